package fetch

import (
	"google.golang.org/protobuf/proto"

	"github.com/keepout-security/keepout/internal/fleet/fleetpb"
	"github.com/keepout-security/keepout/internal/rollback"
	"github.com/keepout-security/keepout/internal/update"
)

// said is what the control plane has heard of a core's counts.
type said struct {
	core     string
	buckets  map[string]uint64          // by signature and digest
	counters map[string]update.Counters // by provider and versions
}

// news turns a report into what has not been said yet. Without counts, only what is new at once is in it: versions,
// wishes, and incidents of a kind that was not heard of. The second result is what has been said once it was answered.
func (s said) news(r *update.Report, counts bool) (*fleetpb.CheckInRequest, said) {
	if s.core != r.Core {
		s = said{core: r.Core} // another core counts from the beginning
	}
	next := said{core: r.Core, buckets: map[string]uint64{}, counters: map[string]update.Counters{}}
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
	for _, b := range r.Buckets {
		key := b.Signature + b.Digest
		had, known := s.buckets[key]
		if known && !counts {
			next.buckets[key] = had
			continue
		}
		next.buckets[key] = b.Count
		if more := since(b.Count, had); more > 0 {
			m.Buckets = append(m.Buckets, &fleetpb.Bucket{
				Signature: b.Signature, Kind: b.Kind, Provider: b.Provider, Digest: b.Digest,
				Count: uint32(min(more, 1<<31)), Sample: b.Sample,
			})
		}
	}
	if !counts && len(m.GetBuckets()) == 0 {
		next.counters = s.counters
		return m, next
	}
	for i := range r.Counters { // with a new bucket they are said as well: they are what it is compared with
		c := &r.Counters[i]
		key := c.Provider + " " + c.Engine + " " + c.Content
		had := s.counters[key]
		next.counters[key] = *c
		if more := countersSince(c, &had); more != nil {
			m.Counters = append(m.Counters, more)
		}
	}
	return m, next
}

// since is how much a count rose; one that fell began anew.
func since(now, before uint64) uint64 {
	if now < before {
		return now
	}
	return now - before
}

// countersSince is what there is to say about a provider; nil for nothing.
func countersSince(c, had *update.Counters) *fleetpb.Counters {
	if c.Minutes < had.Minutes || c.CPU < had.CPU {
		had = &update.Counters{} // these versions became active once more
	}
	few := func(now, before uint64) uint32 { return uint32(min(since(now, before), 1<<31)) }
	m := &fleetpb.Counters{
		Provider: c.Provider, Engine: c.Engine, Content: c.Content, Minutes: c.Minutes - had.Minutes,
		CpuSeconds: c.CPU - had.CPU, MemoryBytes: c.Memory, LatencyP99Ms: 1000 * c.P99,
		VerdictTimeouts: few(c.Timeouts, had.Timeouts), Verdicts: few(c.Verdicts, had.Verdicts),
		Denies: few(c.Denies, had.Denies), CriticalDenies: few(c.Critical, had.Critical),
	}
	if m.GetMinutes() <= 0 && m.GetVerdictTimeouts()+m.GetVerdicts()+m.GetDenies()+m.GetCriticalDenies() == 0 {
		return nil
	}
	return m
}

// alarming reports whether counts rose that should be told soon.
func (s said) alarming(r *update.Report) bool {
	if s.core != r.Core {
		s = said{}
	}
	for i := range r.Counters {
		c := &r.Counters[i]
		had := s.counters[c.Provider+" "+c.Engine+" "+c.Content]
		if c.Timeouts != had.Timeouts || c.Denies != had.Denies || c.Critical != had.Critical {
			return true
		}
	}
	for _, b := range r.Buckets {
		if b.Count != s.buckets[b.Signature+b.Digest] {
			return true
		}
	}
	return false
}

// same reports whether two check-ins say the same of versions and wishes. A wish with another nonce is the same: the
// one that the server holds is good for longer than a long-poll lasts, and to interrupt one costs a connection.
func same(a, b *fleetpb.CheckInRequest) bool {
	return proto.Equal(
		&fleetpb.CheckInRequest{Installed: a.GetInstalled(), Asks: wishes(a)},
		&fleetpb.CheckInRequest{Installed: b.GetInstalled(), Asks: wishes(b)},
	)
}

func wishes(m *fleetpb.CheckInRequest) (out []*fleetpb.Ask) {
	for _, a := range m.GetAsks() {
		out = append(out, &fleetpb.Ask{Rollout: a.GetRollout(), Digest: a.GetDigest()})
	}
	return out
}

// without takes away what only a running core can know: that it is well, and what it would activate now.
func without(r update.Report) update.Report {
	r.Asks, r.Installed = nil, append([]update.Installed(nil), r.Installed...)
	for i := range r.Installed {
		r.Installed[i].Healthy = false
	}
	return r
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
