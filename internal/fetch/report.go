package fetch

import (
	"github.com/keepout-security/keepout/internal/fleet/fleetpb"
	"github.com/keepout-security/keepout/internal/rollback"
	"github.com/keepout-security/keepout/internal/update"
)

// said is what the control plane has heard of a core's counts.
type said struct {
	core     string
	buckets  map[string]uint64 // by signature and digest
	timeouts map[string]uint64 // by provider
	verdicts map[string]uint64
}

// news turns a report into what has not been said yet. The second result is what has been said once it was answered.
func (s said) news(r *update.Report) (*fleetpb.CheckInRequest, said) {
	if s.core != r.Core {
		s = said{core: r.Core} // another core counts from the beginning
	}
	next := said{core: r.Core, buckets: map[string]uint64{}, timeouts: map[string]uint64{}, verdicts: map[string]uint64{}}
	m := &fleetpb.CheckInRequest{}
	for _, i := range r.Installed {
		m.Installed = append(m.Installed, &fleetpb.Installed{
			Provider: i.Provider, Channel: channel(i.Part), Digest: i.Digest, Slot: i.Slot, Counter: i.Release,
			Healthy: i.Healthy,
		})
	}
	for _, a := range r.Asks {
		m.Asks = append(m.Asks, &fleetpb.Ask{Rollout: a.Rollout, Digest: a.Digest, Nonce: a.Nonce})
	}
	for _, c := range r.Counters {
		next.timeouts[c.Provider], next.verdicts[c.Provider] = c.Timeouts, c.Verdicts
		late, votes := c.Timeouts-s.timeouts[c.Provider], c.Verdicts-s.verdicts[c.Provider]
		if late > 0 || votes > 0 {
			m.Counters = append(m.Counters, &fleetpb.Counters{
				Provider: c.Provider, Engine: c.Engine, Content: c.Content, VerdictTimeouts: uint32(late),
				Verdicts: uint32(min(votes, 1<<31)),
			})
		}
	}
	for _, b := range r.Buckets {
		key := b.Signature + b.Digest
		next.buckets[key] = b.Count
		if more := b.Count - s.buckets[key]; more > 0 {
			m.Buckets = append(m.Buckets, &fleetpb.Bucket{
				Signature: b.Signature, Kind: b.Kind, Provider: b.Provider, Digest: b.Digest,
				Count: uint32(min(more, 1<<31)), Sample: b.Sample,
			})
		}
	}
	return m, next
}

func channel(p rollback.Part) fleetpb.Channel {
	if p == rollback.Engine {
		return fleetpb.Channel_CHANNEL_ENGINE
	}
	return fleetpb.Channel_CHANNEL_CONTENT
}

func part(c fleetpb.Channel) rollback.Part {
	if c == fleetpb.Channel_CHANNEL_ENGINE {
		return rollback.Engine
	}
	return rollback.Content
}
