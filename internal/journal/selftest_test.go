package journal_test

import (
	"strings"
	"testing"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/journal"
)

// TestSelftest: a canary that an engine recognised is told as that, and is no finding; the same denial of another file
// is one.
func TestSelftest(t *testing.T) {
	t.Parallel()
	rec := event.Record{
		Event: event.Event{ID: 1, Type: event.Open, File: event.File{Path: "/srv/" + event.SelftestName + "1"}},
		Verdict: event.Verdict{
			Outcome: event.Denied, Reason: event.ReasonDenied, DecidedBy: "a", Rule: event.SelftestRule,
			Ballots: []event.Ballot{{
				Provider: "a", Counted: true, Vote: event.Vote{Action: event.Deny, Rule: event.SelftestRule},
			}},
		},
	}
	all := journal.OCSF(rec, journal.Origin{})
	if len(all) != 1 || all[0].SeverityID != journal.Informational || !strings.HasPrefix(all[0].Message, "self-test: ") ||
		!all[0].Unmapped.Keepout.Selftest || all[0].ActionID != 2 {
		t.Errorf("%+v", all)
	}
	rec.Event.File.Path = "/srv/invoice"
	all = journal.OCSF(rec, journal.Origin{})
	if len(all) != 2 || all[0].SeverityID != journal.High || all[1].ClassUID != 2004 || all[0].Unmapped.Keepout.Selftest {
		t.Errorf("%+v", all)
	}
}
