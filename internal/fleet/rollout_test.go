package fleet

import (
	"strings"
	"testing"

	"connectrpc.com/connect"

	"github.com/keepout-security/keepout/internal/fleet/fleetpb"
)

// TestRolloutReachesEverybody: real TLS, real SQL, and a release that is well.
func TestRolloutReachesEverybody(t *testing.T) {
	t.Parallel()
	p := start(t, nil)
	machines := p.enrolled(24)
	id := p.create(newContent()).GetId()
	for range 100 {
		p.round(machines)
		r := p.rollout(id)
		within(t, r)
		if r.GetStatus() == "complete" {
			break
		}
	}
	r := p.rollout(id)
	if r.GetStatus() != "complete" {
		t.Fatalf("it is %s: %v", r.GetStatus(), r.GetRings())
	}
	for range 10 { // stragglers
		p.round(machines)
	}
	for i, m := range machines {
		if m.runs != digest("new") || m.granted != 1 {
			t.Errorf("host %d runs %s after %d grants", i, m.runs, m.granted)
		}
	}
}

// TestBadContentStopsInRingZero: what crashes its engine is halted by the first hosts, and everybody is back.
func TestBadContentStopsInRingZero(t *testing.T) {
	t.Parallel()
	p := start(t, nil)
	machines := p.enrolled(24)
	for _, m := range machines {
		m.crash = true
	}
	id := p.create(newContent()).GetId()
	for range 10 {
		p.round(machines)
		within(t, p.rollout(id))
	}
	r := p.rollout(id)
	if r.GetStatus() != "halted" || !strings.Contains(r.GetReason(), "crash") ||
		!strings.Contains(r.GetEvidence(), "parse_template") {
		t.Fatalf("it is %s because of %q, evidence %s", r.GetStatus(), r.GetReason(), r.GetEvidence())
	}
	for i, ring := range r.GetRings() {
		if i > 0 && ring.GetGranted() > 0 {
			t.Errorf("ring %d was granted %d times", i, ring.GetGranted())
		}
	}
	for i, m := range machines {
		if m.runs != digest("old") {
			t.Errorf("host %d still runs the bad content", i)
		}
	}
	out, err := p.admin.ListBuckets(t.Context(), connect.NewRequest(&fleetpb.ListBucketsRequest{}))
	if err != nil || len(out.Msg.GetBuckets()) != 1 {
		t.Fatalf("buckets: %v, %v", out, err)
	}
	b := out.Msg.GetBuckets()[0]
	if !b.GetNewInVersion() || b.GetDigest() != digest("new") || b.GetHosts() < 2 ||
		b.GetSignature() != "parse_template+0x21" {
		t.Errorf("bucket %v", b)
	}
}

// TestSilentHostsStopARollout: hosts that say nothing after activation let no further ring open.
func TestSilentHostsStopARollout(t *testing.T) {
	t.Parallel()
	p := start(t, nil)
	machines := p.enrolled(24)
	id := p.create(newContent()).GetId()
	for range 30 {
		p.round(machines)
		for _, m := range machines {
			m.dead = m.dead || m.runs == digest("new")
		}
		within(t, p.rollout(id))
	}
	r := p.rollout(id)
	for i, ring := range r.GetRings() {
		if i > 0 && ring.GetGranted() > 0 {
			t.Errorf("ring %d was granted %d times", i, ring.GetGranted())
		}
	}
	if r.GetRings()[0].GetGranted() == 0 || r.GetStatus() == "complete" {
		t.Errorf("it is %s: %v", r.GetStatus(), r.GetRings())
	}
}

// TestRecoveryBeaconIsAGate: two hosts in their recovery environment halt the rollout, though they never check in.
func TestRecoveryBeaconIsAGate(t *testing.T) {
	t.Parallel()
	p := start(t, nil)
	machines := p.enrolled(24)
	id := p.create(newContent()).GetId()
	p.round(machines)
	p.round(machines)
	for _, m := range machines {
		if m.runs != digest("new") {
			continue
		}
		m.dead = true
		out, err := m.ReportRecovery(t.Context(), &fleetpb.ReportRecoveryRequest{
			Installed: []*fleetpb.Installed{{
				Provider: "acme", Channel: fleetpb.Channel_CHANNEL_CONTENT, Digest: m.runs, Slot: "active",
			}},
			BootFailures: 3, Signature: "panic at boot",
		})
		if err != nil {
			t.Fatal(err)
		}
		if o := out.GetOrders(); len(o) != 1 || o[0].GetRelease().GetDigest() != digest("old") {
			t.Errorf("a host in recovery is told %v", o)
		}
	}
	p.round(machines)
	if r := p.rollout(id); r.GetStatus() != "halted" || !strings.Contains(r.GetReason(), "recovery") {
		t.Errorf("it is %s because of %q", r.GetStatus(), r.GetReason())
	}
	out, err := p.admin.ListBeacons(t.Context(), connect.NewRequest(&fleetpb.ListBeaconsRequest{}))
	if err != nil || len(out.Msg.GetBeacons()) < 2 {
		t.Errorf("beacons: %v, %v", out, err)
	}
}

// TestFourEyes: an emergency and an engine need a second person, and two tokens of one person are one.
func TestFourEyes(t *testing.T) {
	t.Parallel()
	p := start(t, nil)
	p.enrolled(8)
	operator, second := p.as("ann", "", "operator"), p.as("ann", "", "approver")
	approver := p.as("bob", "", "approver")
	spec := newContent()
	spec.Emergency, spec.Reason = true, "exploited in the wild"
	out, err := operator.CreateRollout(t.Context(), connect.NewRequest(&fleetpb.CreateRolloutRequest{Spec: spec}))
	if err != nil || out.Msg.GetRollout().GetStatus() != "draft" || out.Msg.GetRollout().GetPeopleNeeded() != 2 {
		t.Fatalf("%v, %v", out, err)
	}
	approve := connect.NewRequest(&fleetpb.ApproveRolloutRequest{Id: spec.GetName(), Reason: "seen"})
	if _, err := second.ApproveRollout(t.Context(), approve); connect.CodeOf(err) != connect.CodePermissionDenied ||
		!strings.Contains(err.Error(), "KO-2211") {
		t.Errorf("the same person approves with another token: %v", err)
	}
	if _, err := operator.ApproveRollout(t.Context(), approve); !strings.Contains(err.Error(), "KO-2202") {
		t.Errorf("an operator approves: %v", err)
	}
	got, err := approver.ApproveRollout(t.Context(), approve)
	if err != nil || got.Msg.GetRollout().GetStatus() != "running" || len(got.Msg.GetRollout().GetApprovals()) != 2 {
		t.Errorf("%v, %v", got, err)
	}
}
