package fleet

import (
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/keepout-security/keepout/internal/fleet/fleetpb"
)

// TestHolds: what the operator of some hosts wants for them wins over every rollout, also over a restart of the control
// plane: a pause until it is removed, a freeze until it is over, one release behind until a newer one is rolled out.
// Everybody else goes on. Who set and removed it is in the audit trail.
func TestHolds(t *testing.T) {
	t.Parallel()
	p := start(t, nil)
	machines := p.enrolled(24)
	var ids []string
	for i, m := range machines {
		ids = append(ids, m.Identity().HostID)
		if i >= 20 { // some that are free, and first, so that the rollout gets on whoever is drawn
			req := m.report()
			req.Labels = map[string]string{"early": "yes"}
			if _, err := m.CheckIn(t.Context(), req); err != nil {
				t.Fatal(err)
			}
		}
	}
	halter := p.as("hal", "", "halter")
	hold := func(h *fleetpb.Hold) {
		t.Helper()
		h.Reason = "the quarter ends"
		out, err := halter.SetHold(t.Context(), connect.NewRequest(&fleetpb.SetHoldRequest{Hold: h}))
		if err != nil || out.Msg.GetHosts() != 2 || out.Msg.GetHold().GetSetBy() != "hal" {
			t.Fatalf("%s: %v, %v", h.GetName(), out, err)
		}
	}
	now := p.hands.read()
	stampOf := func(d time.Duration) string { return now.Add(d).UTC().Format(time.RFC3339) }
	hold(&fleetpb.Hold{Name: "paused", Hosts: ids[0:2], Paused: true})
	freezes := []*fleetpb.Freeze{{From: stampOf(0), To: stampOf(100 * time.Minute)}}
	hold(&fleetpb.Hold{Name: "frozen", Hosts: ids[2:4], Freezes: freezes})
	hold(&fleetpb.Hold{Name: "behind", Hosts: ids[4:6], Previous: true})

	spec := newContent()
	spec.Pins = []*fleetpb.Pin{{Labels: map[string]string{"early": "yes"}, Place: "first"}}
	id := p.create(spec).GetId()
	runs := func(want string, from, to int) (n int) {
		for _, m := range machines[from:to] {
			if m.runs == digest(want) {
				n++
			}
		}
		return n
	}
	for k := range 90 {
		p.round(machines)
		within(t, p.rollout(id))
		if k == 1 {
			p.stop()
			p.launch()
			t.Cleanup(func() { p.stop() })
			p.tick()
		}
	}
	if runs("old", 0, 6) != 6 || runs("new", 6, 24) != 18 {
		t.Fatalf("of the held %d stayed, of the others %d run it", runs("old", 0, 6), runs("new", 6, 24))
	}
	for range 60 {
		p.round(machines)
	}
	if runs("old", 0, 2) != 2 || runs("new", 2, 4) != 2 || runs("old", 4, 6) != 2 {
		t.Fatalf("after the freeze: paused %d, frozen %d, behind %d", runs("old", 0, 2), runs("new", 2, 4), runs("old", 4, 6))
	}
	why, err := p.admin.ExplainRollout(t.Context(), connect.NewRequest(&fleetpb.ExplainRolloutRequest{
		Id: id, Host: ids[0],
	}))
	if err != nil || !strings.Contains(strings.Join(why.Msg.GetLines(), "\n"), "hold paused of hal") {
		t.Errorf("why it is not updated: %v, %v", why, err)
	}
	over := &fleetpb.RemoveHoldRequest{Name: "paused", Reason: "it is over"}
	if _, err := halter.RemoveHold(t.Context(), connect.NewRequest(over)); err == nil {
		t.Error("who may only stop has let it go on")
	}
	if _, err = p.admin.RemoveHold(t.Context(), connect.NewRequest(over)); err != nil {
		t.Fatal(err)
	}
	newer := newContent()
	newer.Name, newer.Release.Digest, newer.Release.Counter = "sigs-3", digest("newer"), 3
	p.create(newer)
	for range 60 {
		p.round(machines)
	}
	if runs("old", 0, 2) != 0 || runs("new", 4, 6) != 2 {
		t.Errorf("paused %v, behind %v", machines[0].runs, machines[4].runs)
	}
	p.holdsAreTold()
}

// holdsAreTold checks the list and the audit trail.
func (p *plane) holdsAreTold() {
	p.t.Helper()
	list, err := p.admin.ListHolds(p.t.Context(), connect.NewRequest(&fleetpb.ListHoldsRequest{}))
	if err != nil || len(list.Msg.GetHolds()) != 2 || list.Msg.GetHolds()[0].GetName() != "behind" {
		p.t.Errorf("holds %v, %v", list, err)
	}
	trail, err := p.admin.ListAudit(p.t.Context(), connect.NewRequest(&fleetpb.ListAuditRequest{Limit: 1000}))
	if err != nil {
		p.t.Fatal(err)
	}
	for action, who := range map[string]string{"hold.set": "hal", "hold.remove": "admin"} {
		if !slices.ContainsFunc(trail.Msg.GetEntries(), func(e *fleetpb.AuditEntry) bool {
			return e.GetAction() == action && strings.Contains(e.GetActor(), who)
		}) {
			p.t.Errorf("the audit trail has no %s by %s", action, who)
		}
	}
}

// TestBadHolds: a hold that holds nothing, or nobody, is refused with words.
func TestBadHolds(t *testing.T) {
	t.Parallel()
	p := start(t, nil)
	for name, h := range map[string]*fleetpb.Hold{
		"nobody":     {Name: "a", Paused: true, Reason: "x"},
		"nothing":    {Name: "a", Hosts: []string{"h"}, Reason: "x"},
		"no reason":  {Name: "a", Hosts: []string{"h"}, Paused: true},
		"a bad name": {Name: "a|b,c", Hosts: []string{"h"}, Paused: true, Reason: "x"},
		"backwards": {Name: "a", Hosts: []string{"h"}, Reason: "x", Freezes: []*fleetpb.Freeze{
			{From: "2026-12-24T00:00:00Z", To: "2026-12-23T00:00:00Z"},
		}},
	} {
		_, err := p.admin.SetHold(t.Context(), connect.NewRequest(&fleetpb.SetHoldRequest{Hold: h}))
		if err == nil || !strings.Contains(err.Error(), "KO-2208") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := p.admin.RemoveHold(t.Context(), connect.NewRequest(&fleetpb.RemoveHoldRequest{Name: "a"})); err == nil {
		t.Error("a hold that is not there was removed")
	}
}
