package fleet

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"connectrpc.com/connect"

	"github.com/keepout-security/keepout/internal/fleet/audit"
	"github.com/keepout-security/keepout/internal/fleet/fleetpb"
	"github.com/keepout-security/keepout/internal/fleet/spec"
	"github.com/keepout-security/keepout/internal/fleet/store"
	"github.com/keepout-security/keepout/internal/rollout"
)

// pageSize is a list's length when nobody says.
const pageSize = 100

// people is the service for people and their tools.
type people struct{ s *Server }

// vendorOf returns the provider that the caller is limited to, or "".
func vendorOf(ctx context.Context) string { return callerOf(ctx).person.Vendor }

// WhoAmI implements the service.
func (p people) WhoAmI(
	ctx context.Context, _ *connect.Request[fleetpb.WhoAmIRequest],
) (*connect.Response[fleetpb.WhoAmIResponse], error) {
	t := callerOf(ctx).person
	return connect.NewResponse(&fleetpb.WhoAmIResponse{Person: t.Person, Roles: t.Roles, Expires: stamp(t.Expires)}), nil
}

// silentAfter is how many usual check-ins a host may leave out before people hear of it.
const silentAfter = 3

// GetSummary implements the service. A vendor gets counts of hosts and of its own rollouts.
func (p people) GetSummary(
	ctx context.Context, _ *connect.Request[fleetpb.GetSummaryRequest],
) (*connect.Response[fleetpb.GetSummaryResponse], error) {
	s := p.s
	out := &fleetpb.GetSummaryResponse{
		Hosts: map[string]uint32{}, Rollouts: map[string]uint32{}, Connected: uint32(max(s.waiting.Load(), 0)),
	}
	now := s.clock()
	for _, m := range s.roll.all() {
		h := m.snapshot()
		out.Hosts[h.State]++
		if h.State == store.Active && now.Sub(h.LastSeen) > silentAfter*s.cfg.CheckIn {
			out.Hosts["silent"]++
		}
	}
	all, err := s.conductor.List(ctx)
	if err != nil {
		return nil, answer(err)
	}
	vendor := vendorOf(ctx)
	for i := range all {
		if vendor != "" && all[i].Spec.Provider != vendor {
			continue
		}
		out.Rollouts[all[i].Record.Status]++
		if all[i].View.Status == rollout.Draft {
			out.WaitingApprovals++
		}
	}
	if vendor != "" {
		return connect.NewResponse(out), nil
	}
	err = s.store.View(ctx, func(r store.Reader) error {
		beacons, err := r.Beacons(store.Page)
		head, err2 := r.AuditHead()
		out.Beacons, out.AuditEntries, out.AuditHead = uint32(len(beacons)), head.Seq, head.Hash
		return errors.Join(err, err2)
	})
	if err != nil {
		return nil, answer(err)
	}
	return connect.NewResponse(out), nil
}

func hostPB(h *store.Host) *fleetpb.Host {
	out := &fleetpb.Host{
		Id: h.ID, Hostname: h.Hostname, State: h.State, Reason: h.Reason, Labels: h.Labels, Enrolled: stamp(h.Enrolled),
		LastSeen: stamp(h.LastSeen), CertificateExpires: stamp(h.CertEnds),
	}
	for _, i := range h.Installed {
		out.Installed = append(out.Installed, &fleetpb.Installed{
			Provider: i.Provider, Channel: spec.ChannelPB(i.Channel), Digest: i.Digest, Slot: i.Slot, Counter: i.Counter,
		})
	}
	return out
}

// ListHosts implements the service.
func (p people) ListHosts(
	ctx context.Context, req *connect.Request[fleetpb.ListHostsRequest],
) (*connect.Response[fleetpb.ListHostsResponse], error) {
	limit := int(req.Msg.GetLimit())
	if limit == 0 {
		limit = pageSize
	}
	if limit > store.Page {
		return nil, invalid("limit is at most %d", store.Page)
	}
	out := &fleetpb.ListHostsResponse{}
	err := p.s.store.View(ctx, func(r store.Reader) error {
		page, err := r.Hosts(req.Msg.GetAfter(), req.Msg.GetState(), limit)
		for i := range page {
			h := page[i]
			if m := p.s.roll.find(h.ID); m != nil {
				h = m.snapshot() // a flush ahead of what is stored
			}
			out.Hosts = append(out.Hosts, hostPB(&h))
		}
		if len(page) == limit {
			out.Next = page[limit-1].ID
		}
		return err
	})
	if err != nil {
		return nil, answer(err)
	}
	return connect.NewResponse(out), nil
}

// GetHost implements the service.
func (p people) GetHost(
	_ context.Context, req *connect.Request[fleetpb.GetHostRequest],
) (*connect.Response[fleetpb.GetHostResponse], error) {
	m := p.s.roll.find(req.Msg.GetId())
	if m == nil {
		return nil, answer(store.ErrNotFound)
	}
	h := m.snapshot()
	return connect.NewResponse(&fleetpb.GetHostResponse{Host: hostPB(&h)}), nil
}

// SetHostState implements the service.
func (p people) SetHostState(
	ctx context.Context, req *connect.Request[fleetpb.SetHostStateRequest],
) (*connect.Response[fleetpb.SetHostStateResponse], error) {
	s, m := p.s, req.Msg
	if !slices.Contains([]string{store.Active, store.Quarantined, store.Retired}, m.GetState()) {
		return nil, invalid("state is active, quarantined or retired")
	}
	if len(m.GetReason()) > maxText {
		return nil, invalid("a reason has at most %d bytes", maxText)
	}
	who := s.roll.find(m.GetId())
	if who == nil {
		return nil, answer(store.ErrNotFound)
	}
	if who.snapshotState() == store.Retired {
		return nil, refusal(connect.CodeFailedPrecondition, codeQuarantine, "enrol it anew: keepout fleet enroll",
			"a retired host does not come back")
	}
	err := s.store.Update(ctx, func(tx store.Tx) error {
		h, err := tx.Host(m.GetId())
		if err != nil {
			return err
		}
		h.State, h.Reason = m.GetState(), m.GetReason()
		return errors.Join(tx.PutHost(h), s.note(tx, callerOf(ctx).name(), "host."+m.GetState(), h.ID,
			map[string]any{"reason": m.GetReason()}))
	})
	if err != nil {
		return nil, answer(err)
	}
	who.mu.Lock()
	who.host.State, who.host.Reason = m.GetState(), m.GetReason()
	who.earlier = nil // whoever released it has seen to it that there is one
	who.mu.Unlock()
	who.wake()
	h := who.snapshot()
	return connect.NewResponse(&fleetpb.SetHostStateResponse{Host: hostPB(&h)}), nil
}

// ListAudit implements the service.
func (p people) ListAudit(
	ctx context.Context, req *connect.Request[fleetpb.ListAuditRequest],
) (*connect.Response[fleetpb.ListAuditResponse], error) {
	limit := int(req.Msg.GetLimit())
	if limit == 0 {
		limit = pageSize
	}
	if limit > store.Page {
		return nil, invalid("limit is at most %d", store.Page)
	}
	out := &fleetpb.ListAuditResponse{}
	err := p.s.store.View(ctx, func(r store.Reader) error {
		page, err := r.Audit(req.Msg.GetAfter(), limit)
		for i := range page {
			e := &page[i]
			out.Entries = append(out.Entries, &fleetpb.AuditEntry{
				Seq: e.Seq, At: stamp(e.At), Actor: e.Actor, Action: e.Action, Subject: e.Subject, Detail: e.Detail, Hash: e.Hash,
			})
		}
		return err
	})
	if err != nil {
		return nil, answer(err)
	}
	return connect.NewResponse(out), nil
}

// VerifyAudit implements the service.
func (p people) VerifyAudit(
	ctx context.Context, _ *connect.Request[fleetpb.VerifyAuditRequest],
) (*connect.Response[fleetpb.VerifyAuditResponse], error) {
	var chain audit.Chain
	err := verifyAudit(ctx, p.s.store, &chain)
	out := &fleetpb.VerifyAuditResponse{}
	out.Entries, out.Head = chain.Head()
	var broken *audit.Broken
	switch {
	case errors.As(err, &broken):
		out.BrokenAt, out.What = broken.Seq, broken.What
	case err != nil:
		return nil, answer(err)
	default:
		out.Intact = true
	}
	return connect.NewResponse(out), nil
}

// verifyAudit checks the whole trail, a page at a time.
func verifyAudit(ctx context.Context, s store.Store, chain *audit.Chain) error {
	return s.View(ctx, func(r store.Reader) error {
		for {
			seq, _ := chain.Head()
			page, err := r.Audit(seq, store.Page)
			if err != nil || len(page) == 0 {
				return err
			}
			for i := range page {
				if err := chain.Check(page[i]); err != nil {
					return err
				}
			}
		}
	})
}

// VerifyFile checks the audit trail in a database without a server, and returns its length and head.
func VerifyFile(ctx context.Context, path string) (entries uint64, head string, err error) {
	s, err := store.OpenSQLite(ctx, path)
	if err != nil {
		return 0, "", err
	}
	var chain audit.Chain
	err = errors.Join(verifyAudit(ctx, s, &chain), s.Close())
	entries, head = chain.Head()
	return entries, head, err
}

// ListBuckets implements the service. A vendor sees those of its own provider.
func (p people) ListBuckets(
	ctx context.Context, req *connect.Request[fleetpb.ListBucketsRequest],
) (*connect.Response[fleetpb.ListBucketsResponse], error) {
	provider := req.Msg.GetProvider()
	if vendor := vendorOf(ctx); vendor != "" {
		provider = vendor
	}
	out := &fleetpb.ListBucketsResponse{}
	err := p.s.store.View(ctx, func(r store.Reader) error {
		all, err := r.Buckets(provider, req.Msg.GetDigest(), store.Page)
		if err != nil {
			return err
		}
		for i := range all {
			b := &all[i]
			known, err := r.KnownSignature(b.Provider, b.Signature, b.Digest, b.FirstSeen.Add(time.Millisecond))
			if err != nil {
				return fmt.Errorf("bucket %s: %w", b.Signature, err)
			}
			out.Buckets = append(out.Buckets, &fleetpb.BucketCount{
				Signature: b.Signature, Kind: b.Kind, Provider: b.Provider, Digest: b.Digest, Count: b.Count,
				Hosts: uint32(b.Hosts), FirstSeen: stamp(b.FirstSeen), LastSeen: stamp(b.LastSeen), Sample: b.Sample,
				NewInVersion: !known,
			})
		}
		return nil
	})
	if err != nil {
		return nil, answer(err)
	}
	return connect.NewResponse(out), nil
}

// ListBeacons implements the service.
func (p people) ListBeacons(
	ctx context.Context, _ *connect.Request[fleetpb.ListBeaconsRequest],
) (*connect.Response[fleetpb.ListBeaconsResponse], error) {
	out := &fleetpb.ListBeaconsResponse{}
	err := p.s.store.View(ctx, func(r store.Reader) error {
		all, err := r.Beacons(store.Page)
		for i := range all {
			b := &all[i]
			out.Beacons = append(out.Beacons, &fleetpb.Beacon{
				Host: b.Host, Digest: b.Digest, At: stamp(b.At), Signature: b.Signature, Detail: b.Detail,
			})
		}
		return err
	})
	if err != nil {
		return nil, answer(err)
	}
	return connect.NewResponse(out), nil
}
