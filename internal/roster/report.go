package roster

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/keepout-security/keepout/internal/arbiter"
	"github.com/keepout-security/keepout/internal/docket"
	"github.com/keepout-security/keepout/internal/journal"
	"github.com/keepout-security/keepout/internal/rollback"
	"github.com/keepout-security/keepout/internal/supervisor"
)

// heard writes a change of the provider's standing to the log and the change journal, and lets the decision know.
func (l *lineage) heard(c docket.Change) {
	note := journal.Note{Provider: l.id, Severity: journal.Medium, Detail: c.Cause}
	switch c.What {
	case docket.Bypassed:
		note.Code, note.Title = "provider.bypassed", "provider misses its deadlines and is bypassed"
	case docket.Stuck:
		note.Code, note.Title, note.Severity = "provider.stuck", "provider has been bypassed for long", journal.High
	case docket.Restored:
		note.Code, note.Title = "provider.restored", "provider is asked again"
	case docket.Slow:
		note.Code, note.Title = "provider.demoted", "provider is too slow and was put in audit"
	case docket.DenyStorm:
		note.Code, note.Title = "provider.demoted", "provider denies too much and was put in audit"
		note.Severity = journal.High
	case docket.FastAgain, docket.Calm:
		note.Code, note.Title = "provider.promoted", "provider enforces again"
	}
	l.r.c.Log.Warn("provider changed", slog.String("provider", l.id), slog.String("change", c.What),
		slog.String("detail", c.Cause))
	l.r.c.Notes.Note(note)
	in := rollback.Input{Generation: c.Generation, Cause: strings.TrimPrefix(c.Cause, l.id+": ")}
	switch c.What {
	case docket.DenyStorm:
		in.Kind = rollback.DenyStorm
	case docket.Bypassed:
		in.Kind = rollback.BreakerOpened
	case docket.Restored:
		breakers, _ := l.standing.Status()
		if slices.ContainsFunc(breakers, func(b docket.BreakerStatus) bool { return b.State != arbiter.Closed }) {
			return // the other one is still open
		}
		in.Kind = rollback.BreakerClosed
	default:
		return
	}
	l.mail.put(func() {
		if in.Kind == rollback.DenyStorm && l.accepted[l.state.Content.Active.Digest] {
			return // it stays in audit until the operator enables it, who has said that these denials are meant
		}
		l.step(in)
	})
}

// told are the titles of what rollback decided, by what was done.
var told = map[rollback.Act]struct {
	code, title string
	severity    journal.Severity
}{
	rollback.StartBeside: {"version.trial", "a candidate runs beside the active version", journal.Informational},
	rollback.Activate:    {"version.activated", "a version became active", journal.Informational},
	rollback.MarkLKG:     {"version.proven", "a version is the last-known-good", journal.Informational},
	rollback.RollBack:    {"version.rolled-back", "a version was rolled back", journal.High},
	rollback.Refuse:      {"version.refused", "a version was refused", journal.Medium},
	rollback.Isolate:     {"provider.quarantined", "a provider is in quarantine", journal.High},
	rollback.Release:     {"provider.released", "a provider is tried again", journal.Medium},
}

// report writes what was decided about the versions to the log and the change journal.
func (l *lineage) report(e rollback.Effect) {
	t, ok := told[e.Act]
	if !ok {
		return
	}
	note := journal.Note{Provider: l.id, Code: t.code, Title: t.title, Severity: t.severity}
	switch {
	case e.Act == rollback.RollBack:
		note.Detail = fmt.Sprintf("%s %s %s→%s: %s", l.id, e.Part, e.From, e.Version, e.Cause)
	case e.Part == "":
		note.Detail = fmt.Sprintf("%s: %s", l.id, e.Cause)
	case e.Cause == "":
		note.Detail = fmt.Sprintf("%s %s %s", l.id, e.Part, e.Version)
	default:
		note.Detail = fmt.Sprintf("%s %s %s: %s", l.id, e.Part, e.Version, e.Cause)
	}
	level := slog.LevelInfo
	if t.severity != journal.Informational {
		level = slog.LevelWarn
	}
	l.r.c.Log.LogAttrs(context.Background(), level, "versions", slog.String("provider", l.id),
		slog.String("change", t.title), slog.String("detail", note.Detail))
	l.r.c.Notes.Note(note)
}

// report writes a change of state to the log and the change journal.
func (m *member) report(before, after supervisor.Provider) {
	if before.State == after.State {
		return
	}
	note := journal.Note{Provider: m.id, Severity: journal.Informational}
	level := slog.LevelInfo
	switch {
	case after.State == supervisor.Running && before.State == supervisor.Loading:
		note.Code, note.Title = "provider.running", "provider is voting"
	case after.State == supervisor.Running:
		note.Code, note.Title = "provider.recovered", "provider is well again"
	case after.State == supervisor.Degraded:
		m.mu.Lock()
		note.Detail = m.beat.Detail
		m.mu.Unlock()
		note.Code, note.Title, note.Severity = "provider.degraded", "provider is degraded", journal.Medium
		level = slog.LevelWarn
	case after.State == supervisor.Backoff:
		note.Code, note.Title, note.Severity = "provider.ended", "provider ended", journal.High
		level = slog.LevelWarn
		note.Detail = fmt.Sprintf("%s; restart in %v", after.Cause, after.RetryIn(time.Now()).Round(time.Second))
	case after.State == supervisor.Disabled:
		note.Code, note.Title = "provider.disabled", "provider was disabled"
	default:
		m.r.c.Log.Debug("provider state", slog.String("provider", m.id), slog.String("state", string(after.State)))
		return
	}
	m.r.c.Log.LogAttrs(context.Background(), level, "provider changed", slog.String("provider", m.id),
		slog.String("state", string(after.State)), slog.String("detail", note.Detail))
	m.r.c.Notes.Note(note)
}
