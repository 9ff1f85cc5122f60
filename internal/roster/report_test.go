package roster

import (
	"log/slog"
	"slices"
	"testing"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/docket"
	"github.com/keepout-security/keepout/internal/journal"
)

// ear collects notes as words.
type ear struct{ heard []string }

func (e *ear) Note(n journal.Note) {
	e.heard = append(e.heard, "note "+n.Code+" "+n.Provider+" "+n.Detail)
}

// TestChangesAreTold: every change of a standing is in the change journal, and what may be the newest version's fault
// is told to the decision.
func TestChangesAreTold(t *testing.T) {
	t.Parallel()
	for what, want := range map[string]struct {
		note    string
		decides bool
	}{
		docket.Bypassed:  {"note provider.bypassed p p: why", true},
		docket.Restored:  {"note provider.restored p p: why", true},
		docket.Stuck:     {"note provider.stuck p p: why", false}, // the breaker's opening was told
		docket.Slow:      {"note provider.demoted p p: why", false},
		docket.FastAgain: {"note provider.promoted p p: why", false},
		docket.DenyStorm: {"note provider.demoted p p: why", true},
		docket.Calm:      {"note provider.promoted p p: why", false},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			e := &ear{}
			l := &lineage{
				r: &Roster{c: Config{Notes: e, Log: slog.New(slog.DiscardHandler)}}, id: "p", mail: newMailbox(),
				standing: docket.NewStanding(docket.Watch{ID: "p", Numbers: docket.DefaultNumbers()}),
			}
			l.heard(docket.Change{What: what, Type: event.Open, Content: "v2", Cause: "p: why"})
			if !slices.Equal(e.heard, []string{want.note}) {
				t.Errorf("heard %q, want %q", e.heard, want.note)
			}
			if told := l.mail.take() != nil; told != want.decides {
				t.Errorf("told the decision: %t, want %t", told, want.decides)
			}
		})
	}
}
