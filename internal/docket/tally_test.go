package docket_test

import (
	"testing"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/docket"
	pb "github.com/keepout-security/keepout/wire/keepoutpb"
)

// TestDenialsAreCounted: a DENY counts with its rule, also when it has no effect; a candidate's only where the version
// that is active lets pass; what packages own counts apart; a canary does not count.
func TestDenialsAreCounted(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	denies := func(names ...string) func(*pb.Event, int) (pb.Action, bool) {
		return func(ev *pb.Event, _ int) (pb.Action, bool) {
			for _, n := range names {
				if ev.GetFile().GetPath() == n {
					return pb.Action_ACTION_DENY, true
				}
			}
			return pb.Action_ACTION_ALLOW, true
		}
	}
	canary := "/srv/" + event.SelftestName + "x"
	owned := func(path string) bool { return path == "/usr/bin/ls" }
	member := func(m docket.Member, denied ...string) (*peer, *docket.Tally) {
		m.Tally, m.Owned = &docket.Tally{}, owned
		return &peer{Member: &m, script: denies(denied...)}, m.Tally
	}
	active, a := member(docket.Member{ID: "p"}, "/usr/bin/ls", "/both", canary)
	audit, b := member(docket.Member{ID: "q", Mode: event.Audit}, "/both")
	candidate, c := member(docket.Member{
		ID: "p.candidate", Mode: event.Audit, Beside: &docket.Agreement{With: "p"},
	}, "/both", "/new", "/usr/bin/ls")
	active.join(r, "p")
	audit.join(r, "q")
	candidate.join(r, "p.candidate")
	r.members(active, audit, candidate)
	for _, name := range []string{"/good", "/usr/bin/ls", "/both", "/new", canary} {
		q := r.question(name)
		r.judge(q)
		r.verdict(q.Event.ID)
	}
	rule := docket.Denial{Type: event.Open, Rule: "rule"}
	for name, x := range map[string]struct {
		tally        *docket.Tally
		votes, owned uint64
	}{"active": {a, 2, 1}, "audit": {b, 1, 0}, "candidate": {c, 1, 0}} {
		r.until(name+" is counted", func() bool { return x.tally.Denied().Votes >= x.votes })
		if got := x.tally.Denied(); got.Votes != x.votes || got.Owned != x.owned || got.Rules[rule] != x.votes {
			t.Errorf("%s: %+v, want %d votes, %d owned", name, got, x.votes, x.owned)
		}
	}
}
