package cli

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"charm.land/lipgloss/v2"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/health"
	"github.com/keepout-security/keepout/internal/roster"
	"github.com/keepout-security/keepout/internal/supervisor"
	"github.com/keepout-security/keepout/wire"
)

const (
	topProviders = 12 // rows at most; the others are counted
	topProblems  = 3
	reverse      = "7" // SGR code
)

// render draws the whole view: exactly height lines, none wider than width.
func (m topModel) render() string {
	head := m.header()
	foot := m.paint.in(grey, m.keys())
	pane := m.pane()
	room := max(m.height-len(head)-len(pane)-1, 0)
	lines := slices.Concat(head, m.events(room))
	for len(lines) < m.height-len(pane)-1 {
		lines = append(lines, "")
	}
	lines = append(append(lines, pane...), foot)
	if extra := len(lines) - m.height; extra > 0 {
		lines = append(lines[:len(lines)-extra-1], foot)
	}
	for i, line := range lines {
		lines[i] = clipTo(line, m.width)
	}
	return strings.Join(lines, "\n")
}

// header is everything above the events, with an empty line after each part.
func (m topModel) header() []string {
	lines := []string{m.title()}
	if m.status == nil {
		return append(lines, "")
	}
	lines = append(append(lines, m.totals(), ""), m.providers()...)
	lines = append(lines, "")
	if problems := m.problems(); len(problems) > 0 {
		lines = append(append(lines, problems...), "")
	}
	return lines
}

func (m topModel) title() string {
	name := m.paint.in(bold, "keepout")
	switch {
	case m.away != nil:
		return name + "  " + m.paint.in(red, "the daemon does not answer") + "  trying again every second"
	case m.status == nil:
		return name + "  connecting"
	}
	s := m.status
	word := m.paint.in(green, "healthy")
	if health.Degraded(s.Problems) {
		word = m.paint.in(yellow, "degraded")
	}
	up := max(m.at.Sub(s.Since), 0).Round(time.Second)
	return fmt.Sprintf("%s  %s  mode %s  tier %s (fanotify)  up %s  pid %d",
		name, word, m.paint.in(bold, string(s.Mode)), s.Tier, up, s.PID)
}

func (m topModel) totals() string {
	v := m.status.Verdicts
	parts := []string{fmt.Sprintf("%.0f/s", m.rate)}
	for _, part := range []struct {
		n      uint64
		word   string
		code   string
		always bool
	}{
		{v.Allowed, "allowed", green, true},
		{v.Denied, "denied", red, true},
		{v.WouldDeny, "would deny", yellow, false},
		{v.Timeout, "timeout", yellow, false},
		{v.Unavailable, "unavailable", yellow, false},
		{uint64(max(v.InFlight, 0)), "in flight", bold, true},
	} {
		switch text := count(part.n) + " " + part.word; {
		case part.n > 0:
			parts = append(parts, m.paint.in(part.code, text))
		case part.always:
			parts = append(parts, m.paint.in(grey, text))
		}
	}
	return strings.Join(parts, "  ")
}

// count renders a number in at most six columns, so that the tables stand.
func count(n uint64) string {
	for _, unit := range []struct {
		size uint64
		name string
	}{{1e15, "P"}, {1e12, "T"}, {1e9, "G"}, {1e6, "M"}} {
		if n >= unit.size {
			return fmt.Sprintf("%.4g%s", float64(n)/float64(unit.size), unit.name)
		}
	}
	return strconv.FormatUint(n, 10)
}

// column is one column of a table.
type column struct {
	name  string
	width int
	right bool
}

// row lays cells out under columns; paint is applied by the caller to whole cells, after they are cut.
func row(columns []column, cells []string, ink func(i int, cell string) string) string {
	out := make([]string, len(columns))
	for i, c := range columns {
		text := fit(cells[i], c.width, c.right)
		if ink != nil {
			text = ink(i, text)
		}
		out[i] = text
	}
	return strings.Join(out, " ")
}

// fit cuts or pads text to width columns.
func fit(text string, width int, right bool) string {
	text = clipTo(text, width)
	pad := strings.Repeat(" ", max(width-lipgloss.Width(text), 0))
	if right {
		return pad + text
	}
	return text + pad
}

// clipTo cuts text, which may hold colours, to width columns.
func clipTo(text string, width int) string {
	if lipgloss.Width(text) <= width {
		return text
	}
	if width <= 1 { // to lipgloss, a width of 0 is no limit
		return strings.Repeat("…", max(width, 0))
	}
	return lipgloss.NewStyle().Inline(true).MaxWidth(width-1).Render(text) + "…"
}

// clipLeft keeps the end of a path, which says more than its beginning.
func clipLeft(text string, width int) string {
	r := []rune(text)
	for lipgloss.Width(string(r)) > width && len(r) > 0 {
		r = r[1:]
		if lipgloss.Width(string(r)) <= width-1 {
			return "…" + string(r)
		}
	}
	return string(r)
}

func names(columns []column) []string {
	out := make([]string, len(columns))
	for i, c := range columns {
		out[i] = c.name
	}
	return out
}

func (m topModel) providers() []string {
	columns := []column{
		{"PROVIDER", max(min(m.width-72, 24), 8), false},
		{"STATE", 8, false},
		{"MODE", 7, false},
		{"P50", 7, true},
		{"P99", 7, true},
		{"ASKED", 6, true},
		{"ANSWERED", 8, true},
		{"MISS", 5, true},
		{"BYPASSED", 8, true},
		{"DROPPED", 7, true},
	}
	lines := []string{m.paint.in(grey, row(columns, names(columns), nil))}
	for i := range m.status.Providers {
		if i == topProviders {
			lines = append(lines, fmt.Sprintf("and %d more: keepout provider list", len(m.status.Providers)-i))
			break
		}
		p := &m.status.Providers[i]
		c := p.Counters
		cells := []string{
			wire.Clip(p.ID), standing(p), string(p.Mode), micros(p.Latency.P50), micros(p.Latency.P99),
			count(c.Delivered), count(c.Answered), count(missed(p)), count(c.Bypassed + c.Skipped), count(c.Dropped),
		}
		ink := func(i int, cell string) string { return m.inkProvider(p, i, cell) }
		lines = append(lines, row(columns, cells, ink))
	}
	return lines
}

func (m topModel) inkProvider(p *roster.Status, i int, cell string) string {
	lost := map[int]uint64{7: missed(p), 8: p.Counters.Bypassed + p.Counters.Skipped, 9: p.Counters.Dropped}
	n, isLost := lost[i]
	switch {
	case i == 0:
		return m.paint.in(bold, cell)
	case i == 1 && standing(p) != string(p.State):
		return m.paint.in(yellow, cell)
	case i == 1:
		return m.paint.in(stateColour(p.State), cell)
	case isLost && n > 0:
		return m.paint.in(yellow, cell)
	case isLost:
		return m.paint.in(grey, cell)
	}
	return cell
}

func stateColour(s supervisor.State) string {
	switch s {
	case supervisor.Running:
		return green
	case supervisor.Backoff:
		return red
	case supervisor.Disabled:
		return grey
	default:
		return yellow
	}
}

func severityColour(s health.Severity) string {
	switch s {
	case health.Failure:
		return red
	case health.Warning:
		return yellow
	default:
		return grey
	}
}

func (m topModel) problems() (lines []string) {
	for i, p := range m.status.Problems {
		if i == topProblems {
			more := fmt.Sprintf("and %d more: keepout status", len(m.status.Problems)-i)
			return append(lines, m.paint.in(grey, more))
		}
		text := m.paint.in(severityColour(p.Severity), p.Code) + " " + wire.Clip(p.Title)
		if p.Fix != "" {
			text += m.paint.in(grey, "  next: "+wire.Clip(p.Fix))
		}
		lines = append(lines, text)
	}
	return lines
}

// events is the table of verdicts in at most room lines, scrolled so that the selected one is in sight.
func (m topModel) events(room int) []string {
	if room < 2 {
		return nil
	}
	room--
	by := max((m.width-53)*9/20, 8)
	columns := []column{
		{"", 1, false},
		{"TIME", 8, false},
		{"VERDICT", wordWidth, false},
		{"ACT", 5, false},
		{"OBJECT", max(m.width-53-by, 8), false},
		{"WHO", 14, false},
		{"BY", by, false},
		{"TOOK", 7, true},
	}
	lines := []string{m.paint.in(grey, row(columns, names(columns), nil))}
	list, at := m.shown(), m.index()
	from := 0
	if at >= room {
		from = at - room + 1
	}
	for i := from; i < len(list) && i < from+room; i++ {
		lines = append(lines, m.event(columns, &list[i], i == at))
	}
	if len(list) == 0 {
		lines = append(lines, m.paint.in(grey, "  nothing yet"))
	}
	return lines
}

func (m topModel) event(columns []column, rec *event.Record, selected bool) string {
	ev, v := &rec.Event, &rec.Verdict
	mark := " "
	if selected {
		mark = ">"
	}
	cells := []string{
		mark, ev.Time.Local().Format("15:04:05"), paint{}.word(v), ev.Type.String(),
		clipLeft(shownPath(ev), columns[4].width), fmt.Sprintf("%s[%d]", orUnknown(ev.Actor.Comm), ev.Actor.PID),
		because(v), micros(max(v.Latency.Microseconds(), 1)),
	}
	if selected {
		return m.paint.in(reverse, row(columns, cells, nil))
	}
	return row(columns, cells, func(i int, cell string) string {
		if i == 2 {
			return m.paint.word(v)
		}
		return cell
	})
}

// because says in few words who decided, where that is not everybody.
func because(v *event.Verdict) string {
	switch v.Outcome {
	case event.Denied, event.WouldDeny:
		return wire.Clip(strings.TrimSuffix(v.DecidedBy+": "+v.Rule, ": "))
	case event.Timeout, event.Unavailable:
		return string(v.Reason)
	case event.Allowed:
		if v.Reason != event.ReasonVoted {
			return string(v.Reason)
		}
	}
	return ""
}

// pane explains the selected event, below the others.
func (m topModel) pane() []string {
	at := m.index()
	if !m.explain || at < 0 {
		return nil
	}
	var b strings.Builder
	rec := m.shown()[at]
	one := app{out: &b, paint: m.paint}
	if err := one.explain(&rec); err != nil {
		return []string{err.Error()}
	}
	rule := m.paint.in(grey, strings.Repeat("─", max(m.width, 0)))
	return append([]string{rule}, strings.Split(strings.TrimRight(b.String(), "\n"), "\n")...)
}

func (m topModel) keys() string {
	on := func(is bool, yes, no string) string {
		if is {
			return yes
		}
		return no
	}
	text := strings.Join([]string{
		"q quit", on(m.denied, "d all", "d only denied"), on(m.pausing, "p go on (paused)", "p pause"),
		"↑↓ select", on(m.explain, "e close", "e explain"),
	}, "  ")
	if m.skipped > 0 {
		text += fmt.Sprintf("  %d came too fast to show", m.skipped)
	}
	return text
}
