package fleet

import (
	"context"
	"errors"
	"time"

	"connectrpc.com/connect"

	"github.com/keepout-security/keepout/internal/fleet/conductor"
	"github.com/keepout-security/keepout/internal/fleet/fleetpb"
	"github.com/keepout-security/keepout/internal/fleet/spec"
	"github.com/keepout-security/keepout/internal/fleet/store"
	"github.com/keepout-security/keepout/internal/rollout"
)

// Bounds of a report.
const (
	maxReported = 64 // asks, counters, buckets each
	maxDigest   = 128
)

// checkReport refuses what is out of bounds, before anything looks at it.
func checkReport(m *fleetpb.CheckInRequest) error {
	switch {
	case len(m.GetInstance()) > maxLabel || len(m.GetBootId()) > maxLabel || len(m.GetNonce()) > 64:
		return invalid("instance, boot_id or nonce is too long")
	case len(m.GetInstalled()) > maxInstalled:
		return invalid("%d packages: at most %d", len(m.GetInstalled()), maxInstalled)
	case len(m.GetAsks()) > maxReported || len(m.GetCounters()) > maxReported || len(m.GetBuckets()) > maxReported:
		return invalid("at most %d asks, counters and buckets each", maxReported)
	}
	for _, i := range m.GetInstalled() {
		if spec.Channel(i.GetChannel()) == "" || len(i.GetProvider()) > maxLabel || len(i.GetDigest()) > maxDigest {
			return invalid("package of %.40q: a channel, a provider and a digest of usual length", i.GetProvider())
		}
	}
	for _, a := range m.GetAsks() {
		if n := len(a.GetNonce()); n < 8 || n > 32 {
			return invalid("the nonce of an ask has 8 to 32 bytes")
		}
	}
	for _, b := range m.GetBuckets() {
		if err := checkBucket(b); err != nil {
			return err
		}
	}
	return checkLabels(m.GetLabels())
}

func checkBucket(b *fleetpb.Bucket) error {
	if b.GetSignature() == "" || len(b.GetSignature()) > maxLabel || len(b.GetProvider()) > maxLabel ||
		len(b.GetDigest()) > maxDigest || len(b.GetSample()) > maxText {
		return invalid("a bucket needs a signature of at most %d bytes, and its sample has at most %d", maxLabel, maxText)
	}
	switch b.GetKind() {
	case "crash", "watchdog", "boot", "recovery", "deny":
		return nil
	default:
		return invalid("a bucket's kind is crash, watchdog, boot, recovery or deny")
	}
}

// keepBuckets stores what a host grouped before it is answered: the host will not say it again.
func (s *Server) keepBuckets(ctx context.Context, host string, list []*fleetpb.Bucket, now time.Time) error {
	if len(list) == 0 {
		return nil
	}
	reports := make([]store.BucketReport, 0, len(list))
	for _, b := range list {
		reports = append(reports, store.BucketReport{
			Host: host, Provider: b.GetProvider(), Digest: b.GetDigest(), Signature: b.GetSignature(), Kind: b.GetKind(),
			Count: uint64(max(b.GetCount(), 1)), At: now, Sample: b.GetSample(),
		})
	}
	return s.store.Update(ctx, func(tx store.Tx) error { return tx.AddBuckets(reports) })
}

// ReportRecovery implements the service.
func (h hosts) ReportRecovery(
	ctx context.Context, req *connect.Request[fleetpb.ReportRecoveryRequest],
) (*connect.Response[fleetpb.ReportRecoveryResponse], error) {
	s, who, m := h.s, callerOf(ctx).member, req.Msg
	if len(m.GetInstalled()) > maxInstalled || len(m.GetSignature()) > maxLabel || len(m.GetDetail()) > maxText {
		return nil, invalid("the report is too long")
	}
	out := &fleetpb.ReportRecoveryResponse{Now: stamp(s.clock())}
	if who.snapshotState() != store.Active {
		return connect.NewResponse(out), nil
	}
	for _, i := range m.GetInstalled() {
		if i.GetSlot() != slotActive || len(i.GetDigest()) > maxDigest || spec.Channel(i.GetChannel()) == "" {
			continue
		}
		b := store.Beacon{
			Host: who.id, Digest: i.GetDigest(), At: s.clock(), Signature: m.GetSignature(), Detail: m.GetDetail(),
		}
		err := s.store.Update(ctx, func(tx store.Tx) error {
			return errors.Join(tx.PutBeacon(b), s.note(tx, "host:"+who.id, "host.beacon", i.GetDigest(),
				map[string]any{"signature": m.GetSignature()}))
		})
		if err != nil {
			return nil, answer(err)
		}
		facts := who.facts()
		facts.Active[partOf(i)] = i.GetDigest()
		a, err := s.conductor.Beacon(ctx, facts, i.GetDigest(), m.GetSignature())
		if err != nil {
			return nil, answer(err)
		}
		for k := range a.Orders {
			out.Orders = append(out.Orders, orderPB(&a.Orders[k]))
		}
	}
	return connect.NewResponse(out), nil
}

func partOf(i *fleetpb.Installed) conductor.Part {
	return conductor.Part{Provider: i.GetProvider(), Channel: rollout.Channel(spec.Channel(i.GetChannel()))}
}
