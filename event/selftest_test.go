package event_test

import (
	"testing"

	"github.com/keepout-security/keepout/event"
)

func TestCanary(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]bool{
		"/srv/.keepout-selftest-1": true, ".keepout-selftest-": true, "/srv/x.keepout-selftest-1": false,
		"/srv/.keepout-selftest-1/x": false, "": false, "/": false,
	} {
		f := event.File{Path: path}
		if f.Canary() != want {
			t.Errorf("%q: %v, want %v", path, f.Canary(), want)
		}
	}
}

// TestSelftest: it takes a canary's name and an engine that denies by the rule; neither alone makes a denial harmless.
func TestSelftest(t *testing.T) {
	t.Parallel()
	const canary, other = "/srv/.keepout-selftest-1", "/srv/invoice"
	deny := func(rule string) event.Vote { return event.Vote{Action: event.Deny, Rule: rule} }
	for _, c := range []struct {
		path  string
		votes []event.Vote
		want  bool
	}{
		{canary, []event.Vote{deny(event.SelftestRule)}, true},
		{canary, []event.Vote{deny("Eicar"), deny(event.SelftestRule + " (Eicar)")}, true},
		{canary, []event.Vote{deny("Evil")}, false},
		{canary, []event.Vote{{Action: event.Allow, Rule: event.SelftestRule}}, false},
		{canary, []event.Vote{deny(event.SelftestRule + "ing")}, false},
		{canary, nil, false},
		{other, []event.Vote{deny(event.SelftestRule)}, false},
	} {
		rec := event.Record{Event: event.Event{File: event.File{Path: c.path}}}
		for _, v := range c.votes {
			rec.Verdict.Ballots = append(rec.Verdict.Ballots, event.Ballot{Vote: v})
		}
		if rec.Selftest() != c.want {
			t.Errorf("%s %+v: %v, want %v", c.path, c.votes, rec.Selftest(), c.want)
		}
	}
}
