package drill

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/supervisor"
)

// The lanes of a timeline.
const (
	laneFault    = "fault"
	laneHost     = "host"
	lanePlatform = "platform"
	laneProvider = "provider"
)

// mostMoments bounds a timeline; a flapping provider would fill pages.
const mostMoments = 40

// timeline puts what was observed in order.
func (d *Drill) timeline(e *evidence) []Moment {
	var out []Moment
	add := func(at time.Duration, lane, format string, args ...any) {
		out = append(out, Moment{AtMS: at.Milliseconds(), Lane: lane, Text: firstLine(fmt.Sprintf(format, args...))})
	}
	if e.fault > 0 {
		add(e.fault, laneFault, "%s", d.act())
	}
	if e.checked != "" {
		add(e.fault, lanePlatform, "config check: %s", e.checked)
	}
	if e.refused != "" {
		add(e.fault, lanePlatform, "reload refused: %s", e.refused)
	}
	for i, s := range e.states {
		if i == 0 && s.state == supervisor.Running || s.at > e.lifted {
			continue // as it was, or the platform's own end
		}
		text := fmt.Sprintf("%s: %s", d.Engine, s.state)
		if s.state == supervisor.Backoff && s.cause != "" {
			text += ", " + s.cause
		}
		add(s.at, laneProvider, "%s", text)
	}
	for _, n := range e.notes {
		if n.at > e.lifted {
			continue // the platform's own end
		}
		plain := strings.HasPrefix(n.note.Code, "provider.") && !matches("bypass|storm|roll|audit", noteText(n))
		if n.at >= e.fault && !plain { // a provider's plain ups and downs are a lane of their own
			add(n.at, lanePlatform, "%s", noteText(n))
		}
	}
	if e.yields > 0 {
		add(e.yields, lanePlatform, "%s burns processor time, and makes way for the others", d.Engine)
	}
	e.felt(add)
	for i, c := range e.cores {
		switch {
		case i == 0 || c.at > e.lifted:
		case c.pid == 0:
			add(c.at, lanePlatform, "the core does not answer")
		default:
			add(c.at, lanePlatform, "the core answers as process %d", c.pid)
		}
	}
	slices.SortStableFunc(out, func(a, b Moment) int { return cmp.Compare(a.AtMS, b.AtMS) })
	return out[:min(len(out), mostMoments)]
}

// act says in words how the fault was committed.
func (d *Drill) act() string {
	whose := d.Engine
	if d.Core {
		whose = "the core"
	}
	if d.Update == nil {
		return unix.SignalName(d.Signal) + " to " + whose
	}
	return "content update for " + d.Engine + ": " + d.Title
}

// felt adds what the openers saw.
func (e *evidence) felt(add func(at time.Duration, lane, format string, args ...any)) {
	type span struct {
		first, last time.Duration
		n           int
	}
	spans := map[string]*span{}
	note := func(what string, at time.Duration) {
		s := spans[what]
		if s == nil {
			s = &span{first: at}
			spans[what] = s
		}
		s.first, s.last, s.n = min(s.first, at), max(s.last, at), s.n+1
	}
	var longest opened
	for _, o := range e.after() {
		if o.took > longest.took {
			longest = o
		}
		switch {
		case o.how == failed:
			note("opens failed", o.at)
		case o.bad && o.how == passed:
			note("bad files were let through", o.at)
		case !o.bad && o.how == denied:
			note("good files were denied", o.at)
		}
	}
	for what, s := range spans {
		add(s.first, laneHost, "%d %s, until %.1f s after the fault", s.n, what, (s.last - e.fault).Seconds())
	}
	if longest.took > 0 {
		add(longest.at-longest.took, laneHost, "the longest open begins; it takes %.1f ms", milliseconds(longest.took))
	}
	for _, reason := range []event.Reason{event.ReasonLost, event.ReasonDeadline, event.ReasonNoCredit, "bypassed"} {
		if t := e.reasons[reason]; t.n > 0 {
			add(t.first, lanePlatform, "from here on %d opens were answered by policy: %s", t.n, reason)
		}
	}
}
