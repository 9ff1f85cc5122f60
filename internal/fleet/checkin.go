package fleet

import (
	"context"
	"encoding/hex"
	"hash/fnv"
	"math/rand/v2"
	"strconv"
	"time"

	"connectrpc.com/connect"

	"github.com/keepout-security/keepout/internal/fleet/conductor"
	"github.com/keepout-security/keepout/internal/fleet/fleetpb"
	"github.com/keepout-security/keepout/internal/fleet/identity"
	"github.com/keepout-security/keepout/internal/fleet/spec"
	"github.com/keepout-security/keepout/internal/fleet/statement"
	"github.com/keepout-security/keepout/internal/fleet/store"
	"github.com/keepout-security/keepout/internal/rollout"
)

// CheckIn implements the service.
func (h hosts) CheckIn(
	ctx context.Context, req *connect.Request[fleetpb.CheckInRequest],
) (*connect.Response[fleetpb.CheckInResponse], error) {
	out, err := h.s.checkIn(ctx, req.Msg)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(out), nil
}

// checkIn answers one check-in.
func (s *Server) checkIn(ctx context.Context, m *fleetpb.CheckInRequest) (*fleetpb.CheckInResponse, error) {
	who := callerOf(ctx).member
	if err := checkReport(m); err != nil {
		return nil, err
	}
	now := s.clock()
	if who.see(m.GetInstance(), m.GetBootId(), now) {
		why := "an instance came back that another had replaced: two machines have this identity"
		if err := s.quarantine(ctx, who, why); err != nil {
			return nil, err
		}
	}
	host := who.snapshot()
	if host.State != store.Active {
		return s.refused(&host), nil
	}
	s.take(who, m, now)
	if err := s.keepBuckets(ctx, host.ID, m.GetBuckets(), now); err != nil {
		return nil, answer(err)
	}
	_, mark, err := s.inForce(ctx)
	if err != nil {
		return nil, answer(err)
	}
	if mark != m.GetRevocationsMark() {
		m.WaitSeconds = 0 // there is news
	}
	a, revision, err := s.settle(ctx, who, m)
	if err != nil {
		return nil, answer(err)
	}
	out := s.reply(&a, revision, &host, s.clock())
	if err := s.tellRevocations(ctx, m, out); err != nil {
		return nil, answer(err)
	}
	if len(m.GetNonce()) > 0 {
		if out.SignedTime, err = s.signTime(m.GetNonce()); err != nil {
			return nil, answer(err)
		}
	}
	return out, nil
}

// settle asks the conductor, and waits as long as the host wants while there is nothing new to say.
func (s *Server) settle(
	ctx context.Context, who *member, m *fleetpb.CheckInRequest,
) (a conductor.Answer, revision uint64, err error) {
	wait := min(time.Duration(m.GetWaitSeconds())*time.Second, maxWait)
	end := time.Now().Add(wait)
	var said []conductor.Said
	for {
		var p *poll
		if wait > 0 {
			p = who.wait() // before asking: what changes from here on wakes
		}
		a = conductor.Answer{}
		if !s.conductor.Idle() {
			if said == nil {
				said = saidIn(m)
			}
			a, err = s.conductor.CheckIn(ctx, who.facts(), said)
		}
		revision = revisionOf(&a)
		left := time.Until(end)
		if a.Wait > 0 {
			left = min(left, a.Wait)
		}
		answered := err != nil || len(a.Grants) > 0 || revision != m.GetRevision()
		if p == nil || answered || left <= 0 || !s.sleep(ctx, p, left) {
			if p != nil {
				who.leave(p)
			}
			return a, revision, err
		}
		for i := range said { // it was counted when it came
			said[i].Report.Incidents, said[i].Report.Load = nil, nil
		}
	}
}

// sleep holds a long-poll. It reports whether there may be something new.
func (s *Server) sleep(ctx context.Context, p *poll, left time.Duration) (again bool) {
	s.busy.Add(-1) // whoever waits keeps nobody from being served
	s.waiting.Add(1)
	defer s.busy.Add(1)
	defer s.waiting.Add(-1)
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case <-p.woken:
		return !p.replaced
	case <-timer.C:
	case <-ctx.Done():
	case <-s.closing:
	}
	return false
}

// facts is a member as the conductor knows hosts.
func (m *member) facts() conductor.Host {
	m.mu.Lock()
	defer m.mu.Unlock()
	h := conductor.Host{ID: m.id, Labels: m.host.Labels, Active: map[conductor.Part]string{}}
	for _, i := range m.installed {
		if i.Slot == slotActive {
			h.Active[conductor.Part{Provider: i.Provider, Channel: rollout.Channel(i.Channel)}] = i.Digest
		}
	}
	return h
}

// slotActive is the slot of what runs.
const slotActive = "active"

// slotCandidate is the slot of what is on trial.
const slotCandidate = "candidate"

// slotProven is the slot of the last version that was proven: what differs from it changed last.
const slotProven = "lkg"

// take notes what a check-in changes.
func (s *Server) take(who *member, m *fleetpb.CheckInRequest, now time.Time) {
	change := store.CheckIn{Host: who.id, At: now, Instance: m.GetInstance(), BootID: m.GetBootId()}
	installed := installedOf(m.GetInstalled())
	who.mu.Lock()
	if len(m.GetLabels()) > 0 {
		who.host.Labels = relabelled(who.host.Labels, m.GetLabels(), who.host.Fixed, who.host.Scope)
		change.Labels = who.host.Labels
	}
	if installed != nil && !equal(installed, who.installed) {
		who.installed, change.Installed = installed, installed
	}
	who.mu.Unlock()
	s.writer.add(change)
}

func equal(a, b []store.Installed) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

func installedOf(list []*fleetpb.Installed) (out []store.Installed) {
	for _, i := range list {
		out = append(out, store.Installed{
			Provider: i.GetProvider(), Channel: spec.Channel(i.GetChannel()), Digest: i.GetDigest(), Slot: i.GetSlot(),
			Counter: i.GetCounter(),
		})
	}
	return out
}

// saidIn is what a host reports about each part that is active.
func saidIn(m *fleetpb.CheckInRequest) (said []conductor.Said) {
	for _, i := range m.GetInstalled() {
		if i.GetSlot() != slotActive {
			continue
		}
		s := conductor.Said{Part: conductor.Part{
			Provider: i.GetProvider(), Channel: rollout.Channel(spec.Channel(i.GetChannel())),
		}}
		s.Report.Running, s.Report.Healthy = rollout.Digest(i.GetDigest()), i.GetHealthy()
		for _, n := range m.GetCounters() {
			if n.GetProvider() == i.GetProvider() {
				count(&s.Report, n)
			}
		}
		s.Candidate = candidateOf(m, i)
		s.Report.Incidents = append(s.Report.Incidents, incidents(m, i.GetProvider())...)
		said = append(said, s)
	}
	for _, a := range m.GetAsks() {
		said = asked(said, a)
	}
	return said
}

// candidateOf is what the host has on trial, or waiting for it, in place of an active package.
func candidateOf(m *fleetpb.CheckInRequest, active *fleetpb.Installed) string {
	for _, i := range m.GetInstalled() {
		if i.GetSlot() == slotCandidate && i.GetProvider() == active.GetProvider() &&
			i.GetChannel() == active.GetChannel() {
			return i.GetDigest()
		}
	}
	return ""
}

// incidents are the buckets of a provider. Denials come last: of many incidents, only the first few are looked at.
func incidents(m *fleetpb.CheckInRequest, provider string) (out []rollout.Incident) {
	for _, denials := range []bool{false, true} {
		for _, b := range m.GetBuckets() {
			gate, ok := gateOf(b.GetKind())
			if ok && b.GetProvider() == provider && (gate == rollout.Denials) == denials {
				out = append(out, rollout.Incident{
					Gate: gate, Signature: b.GetSignature(), Release: rollout.Digest(b.GetDigest()),
				})
			}
		}
	}
	return out
}

// asked adds a wish for a grant to what is said. A host may have several rollouts of one part; it asks in one.
func asked(said []conductor.Said, a *fleetpb.Ask) []conductor.Said {
	for i := range said {
		if said[i].Rollout == "" {
			said[i].Rollout, said[i].Nonce = a.GetRollout(), hex.EncodeToString(a.GetNonce())
		} else if said[i].Rollout != a.GetRollout() {
			more := said[i]
			more.Rollout, more.Nonce = a.GetRollout(), hex.EncodeToString(a.GetNonce())
			said = append(said, more)
		}
	}
	return said
}

// count puts counters into what the gates look at. A crash that no bucket explains counts with a name of its own.
func count(r *rollout.Report, n *fleetpb.Counters) {
	r.Denied = r.Denied || n.GetDenies() > 0
	r.Vital = r.Vital || n.GetCriticalDenies() > 0
	r.Timeouts = r.Timeouts || n.GetVerdictTimeouts() > 0
	for gate, hits := range map[rollout.Gate]uint32{
		rollout.Crash: n.GetCrashes(), rollout.Watchdog: n.GetWatchdogKills(), rollout.Boot: n.GetBootFailures(),
	} {
		if hits > 0 {
			r.Incidents = append(r.Incidents, rollout.Incident{Gate: gate, Signature: "unsigned " + gate.String()})
		}
	}
	if n.GetMinutes() > 0 {
		r.Load = &rollout.Load{
			CPU: n.GetCpuSeconds() / (60 * n.GetMinutes()), Memory: float64(n.GetMemoryBytes()),
			Latency: n.GetLatencyP99Ms() / 1000,
		}
	}
}

func gateOf(kind string) (rollout.Gate, bool) {
	switch kind {
	case "crash":
		return rollout.Crash, true
	case "watchdog":
		return rollout.Watchdog, true
	case "boot":
		return rollout.Boot, true
	case "recovery":
		return rollout.Recovery, true
	case "deny":
		return rollout.Denials, true
	default:
		return 0, false
	}
}

// revisionOf is a number that is the same as long as the orders are.
func revisionOf(a *conductor.Answer) uint64 {
	h := fnv.New64a()
	for i := range a.Orders {
		o := &a.Orders[i]
		for _, text := range []string{o.Rollout, o.Digest, strconv.FormatBool(o.RollBack)} {
			_, _ = h.Write([]byte(text)) // a hash never fails
			_, _ = h.Write([]byte{0})
		}
	}
	return h.Sum64() | 1 // never 0, which is "none"
}

// reply is the answer of an active host.
func (s *Server) reply(
	a *conductor.Answer, revision uint64, host *store.Host, now time.Time,
) *fleetpb.CheckInResponse {
	out := &fleetpb.CheckInResponse{
		Revision: revision, State: host.State, Now: stamp(now), SpreadMs: uint32(s.spread() / time.Millisecond),
		AgainMs: uint32(s.again(a.Wait) / time.Millisecond),
		Renew:   host.Pending == "" && host.CertEnds.Sub(now) < identity.HostLife/3,
	}
	for i := range a.Orders {
		out.Orders = append(out.Orders, orderPB(&a.Orders[i]))
	}
	for i := range a.Grants {
		g := &a.Grants[i]
		nonce, _ := hex.DecodeString(g.Nonce) // we wrote it
		out.Grants = append(out.Grants, &fleetpb.Grant{
			Rollout: g.Rollout, Host: g.Host, Digest: string(g.Digest), Nonce: nonce, Epoch: g.Epoch, Serial: g.Serial,
			Issued: stamp(g.Issued), Expires: stamp(g.Issued.Add(g.Lifetime)), Sealed: g.Sealed,
		})
	}
	return out
}

func (s *Server) refused(host *store.Host) *fleetpb.CheckInResponse {
	return &fleetpb.CheckInResponse{
		State: host.State, Now: stamp(s.clock()), AgainMs: uint32(s.again(0) / time.Millisecond),
		SpreadMs: uint32(s.spread() / time.Millisecond),
	}
}

func orderPB(o *conductor.Order) *fleetpb.Order {
	act := fleetpb.Order_ACT_STAGE
	if o.RollBack {
		act = fleetpb.Order_ACT_ROLL_BACK
	}
	return &fleetpb.Order{Act: act, Rollout: o.Rollout, Reason: o.Reason, Release: &fleetpb.Release{
		Provider: o.Part.Provider, Channel: spec.ChannelPB(string(o.Part.Channel)), Digest: o.Digest, Counter: o.Counter,
		Version: o.Version,
	}}
}

// again is when a host checks in next: what the rollout wants, or the usual, each a tenth more or less.
func (s *Server) again(wish time.Duration) time.Duration {
	if wish <= 0 || wish > s.cfg.CheckIn {
		wish = s.cfg.CheckIn
	}
	return wish*9/10 + rand.N(wish/5+1) //nolint:gosec // it spreads load, it hides nothing
}

// connectTime is what a new connection of a host may cost this server, with room for others.
const connectTime = 4 * time.Millisecond

// spread is how long hosts should take to come back, all of them, when connections break.
func (s *Server) spread() time.Duration {
	s.roll.mu.RLock()
	defer s.roll.mu.RUnlock()
	return max(time.Second, time.Duration(len(s.roll.members))*connectTime)
}

func (s *Server) signTime(nonce []byte) ([]byte, error) {
	return statement.SealTime(s.authority.Director, &statement.Time{Nonce: nonce, Now: s.clock().UTC()})
}
