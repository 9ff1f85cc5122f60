package roster

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/keepout-security/keepout/internal/arbiter"
	"github.com/keepout-security/keepout/internal/docket"
	"github.com/keepout-security/keepout/internal/journal"
	"github.com/keepout-security/keepout/internal/supervisor"
)

// heard writes a change of the provider's standing to the log and the change journal, and raises the alarm.
func (m *member) heard(c docket.Change) {
	note := journal.Note{Provider: m.id, Severity: journal.Medium, Detail: c.Cause}
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
	m.r.c.Log.Warn("provider changed", slog.String("provider", m.id), slog.String("change", c.What),
		slog.String("detail", c.Cause))
	m.r.c.Notes.Note(note)
	if m.r.c.Alarms == nil {
		return
	}
	switch c.What {
	case docket.DenyStorm, docket.Stuck:
		m.r.c.Alarms.Tripped(m.id, c.Content, c.Cause)
	case docket.Bypassed, docket.Restored:
		breakers, _ := m.standing.Status()
		m.r.c.Alarms.Breaker(m.id, slices.ContainsFunc(breakers, func(b docket.BreakerStatus) bool {
			return b.State != arbiter.Closed
		}))
	}
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
