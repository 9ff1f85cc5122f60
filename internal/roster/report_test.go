package roster

import (
	"log/slog"
	"slices"
	"testing"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/docket"
	"github.com/keepout-security/keepout/internal/journal"
)

// ear collects notes and alarms as words.
type ear struct{ heard []string }

func (e *ear) Note(n journal.Note) {
	e.heard = append(e.heard, "note "+n.Code+" "+n.Provider+" "+n.Detail)
}

func (e *ear) Tripped(provider, content, cause string) {
	e.heard = append(e.heard, "tripped "+provider+" "+content+" "+cause)
}

func (e *ear) Breaker(provider string, open bool) {
	word := "closed "
	if open {
		word = "open "
	}
	e.heard = append(e.heard, word+provider)
}

// TestChangesAreTold: every change of a standing is in the change journal, and what may be the newest version's fault
// raises an alarm.
func TestChangesAreTold(t *testing.T) {
	t.Parallel()
	for what, want := range map[string][]string{
		docket.Bypassed:  {"note provider.bypassed p why", "closed p"}, // of this member, whose breakers are closed
		docket.Restored:  {"note provider.restored p why", "closed p"},
		docket.Stuck:     {"note provider.stuck p why", "tripped p v2 why"},
		docket.Slow:      {"note provider.demoted p why"},
		docket.FastAgain: {"note provider.promoted p why"},
		docket.DenyStorm: {"note provider.demoted p why", "tripped p v2 why"},
		docket.Calm:      {"note provider.promoted p why"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			e := &ear{}
			m := &member{
				r: &Roster{c: Config{Notes: e, Alarms: e, Log: slog.New(slog.DiscardHandler)}}, id: "p",
				standing: docket.NewStanding(docket.Watch{ID: "p", Numbers: docket.DefaultNumbers()}),
			}
			m.heard(docket.Change{What: what, Type: event.Open, Content: "v2", Cause: "why"})
			if !slices.Equal(e.heard, want) {
				t.Errorf("heard %q, want %q", e.heard, want)
			}
			m.r.c.Alarms = nil // nobody need listen
			m.heard(docket.Change{What: what})
		})
	}
}
