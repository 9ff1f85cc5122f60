package drill

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/keepout-security/keepout/internal/session"
	"github.com/keepout-security/keepout/internal/supervisor"
)

// The kinds of what can be seen after a fault.
const (
	seeRestarts       = "restarts"        // the process was started again, at least N times
	seeState          = "state"           // the provider is in state Text, after it had left it
	seeCounter        = "counter"         // its counter Text grew by N
	seeReason         = "reason"          // a verdict, or its part in one, had a reason that matches Text
	seeNote           = "note"            // the change journal says something that matches Text about it
	seeRefused        = "refused"         // the core refused the update, in words that match Text
	seeCheck          = "check"           // the check of the new content said something that matches Text
	seeUntouched      = "untouched"       // it still runs, in the same process
	seeContent        = "content"         // its content in force matches Text
	seeNewCore        = "new-core"        // another core answers
	seeYields         = "yields"          // it makes way for the others on the processors
	seeMemoryBelow    = "memory-below"    // MiB
	seeProcessesBelow = "processes-below" // and threads
	seeFilesBelow     = "files-below"     // descriptors
	seeCPUBelow       = "cpu-below"       // percent
)

// Sight is one thing that can be seen.
type Sight struct {
	Kind string
	Text string // a regular expression, where there is room for words
	N    int
}

// in looks for it and says what it found.
func (s Sight) in(e *evidence) (ok bool, detail string) {
	switch s.Kind {
	case seeRestarts:
		n := e.restarts()
		return n >= s.N, fmt.Sprintf("%d restarts", n)
	case seeState:
		return e.left(s.Text) && string(e.last.State) == s.Text, string(e.last.State)
	case seeCounter:
		n := count(e.last.Counters, s.Text) - count(e.before.Counters, s.Text)
		return n >= uint64(s.N), strconv.FormatUint(n, 10)
	case seeReason:
		n := 0
		for reason, seen := range e.reasons {
			if matches(s.Text, string(reason)) {
				n += seen.n
			}
		}
		return n > 0, fmt.Sprintf("%d times", n)
	case seeNote:
		for _, n := range e.notes {
			if text := noteText(n); n.at >= e.fault && matches(s.Text, text) {
				return true, text
			}
		}
		return false, "the change journal does not say so"
	case seeRefused:
		return e.wasRefused(s.Text)
	case seeCheck:
		return e.checked != "" && matches(s.Text, e.checked), orElse(e.checked, "nothing against it")
	case seeUntouched:
		same := e.last.PID == e.before.PID && e.last.Restarts == e.before.Restarts && e.last.PID != 0
		return same && e.last.Content == e.before.Content, fmt.Sprintf("%s, content %q", e.last.State, e.last.Content)
	case seeContent:
		return e.last.State == "running" && matches(s.Text, e.last.Content), orElse(e.last.Content, string(e.last.State))
	case seeNewCore:
		return e.newCore()
	case seeYields:
		if e.yields == 0 {
			return false, "never"
		}
		return true, fmt.Sprintf("after %.1f s", (e.yields - e.fault).Seconds())
	}
	return s.below(e)
}

// below compares what the hostile provider took with its limit.
func (s Sight) below(e *evidence) (ok bool, detail string) {
	var used int
	var unit string
	switch s.Kind {
	case seeMemoryBelow:
		used, unit = e.usage.MemoryMiB, " MiB"
	case seeProcessesBelow:
		used, unit = e.usage.Processes, " at the most"
	case seeFilesBelow:
		used, unit = e.usage.Files, " at the most"
	case seeCPUBelow:
		used, unit = e.usage.CPUPercent, " %"
	default:
		return false, "nobody knows how to see " + s.Kind
	}
	return used > 0 && used < s.N, fmt.Sprintf("%d%s", used, unit)
}

// wasRefused looks for a refusal of the update: in the answer to the reload, or later in the change journal.
func (e *evidence) wasRefused(pattern string) (ok bool, detail string) {
	if e.refused != "" {
		return matches(pattern, e.refused), e.refused
	}
	for _, n := range e.notes {
		text := noteText(n)
		if n.at >= e.fault && matches("refus|reject", text) && matches(pattern, text) {
			return true, text
		}
	}
	return false, "it was taken"
}

// restarts counts how often the provider came back after the fault. Its own counter begins anew after a rollback.
func (e *evidence) restarts() int {
	seen, down := 0, false
	for _, s := range e.states {
		if s.at < e.fault {
			continue
		}
		if down && s.state != supervisor.Backoff {
			seen++
		}
		down = s.state == supervisor.Backoff
	}
	return max(seen, e.last.Restarts-e.before.Restarts)
}

// left reports whether the provider was seen in another state after the fault.
func (e *evidence) left(state string) bool {
	return slices.ContainsFunc(e.states, func(s stateSeen) bool { return s.at >= e.fault && string(s.state) != state })
}

// newCore looks for another process on the admin socket, and says how long nobody answered.
func (e *evidence) newCore() (ok bool, detail string) {
	first := 0
	for _, c := range e.cores {
		switch {
		case c.pid == 0:
		case first == 0:
			first = c.pid
		case c.pid != first:
			return true, fmt.Sprintf("after %.1f s", (c.at - e.fault).Seconds())
		}
	}
	return false, "none answered"
}

// count reads one counter by the name that it has in the status.
func count(c session.Counters, name string) uint64 {
	return map[string]uint64{
		"late": c.Late, "late_votes": c.LateVotes, "double_votes": c.DoubleVotes, "unknown": c.Unknown,
		"dropped": c.Dropped, "bypassed": c.Bypassed, "answered": c.Answered,
	}[name]
}

func noteText(n noteSeen) string {
	text := n.note.Code + ": " + n.note.Title
	if n.note.Detail != "" {
		text += "; " + n.note.Detail
	}
	return text
}

// matches reports whether text contains a match, whatever the case. The catalogue's patterns are tested.
func matches(pattern, text string) bool {
	re, err := regexp.Compile("(?i)" + pattern)
	return err == nil && re.MatchString(text)
}

func orElse(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}

// judge compares what was observed with what was promised.
func (d *Drill) judge(e *evidence) []Check {
	checks := d.promises(e)
	for _, x := range d.Expect {
		ok, detail := x.See.in(e)
		if !ok && e.lifted-e.fault < x.After {
			continue
		}
		checks = append(checks, Check{What: x.What, Passed: ok, Detail: firstLine(detail)})
	}
	return checks
}

// promises are those that hold in every drill.
func (d *Drill) promises(e *evidence) []Check {
	h := e.host(d.rule())
	bound := h.RuleMS + milliseconds(margin)
	within := func(what string, n int, last, allowed time.Duration) Check {
		c := Check{What: what, Passed: n == 0 || last <= allowed, Detail: strconv.Itoa(n)}
		if n > 0 {
			c.Detail = fmt.Sprintf("%d, the last %.1f s after the fault", n, last.Seconds())
		}
		return c
	}
	missed := within("no bad file was let through", h.Missed, e.lastOf(true, passed), d.OpenFor)
	if d.OpenFor > 0 {
		missed.What = fmt.Sprintf("bad files are denied again within %v", d.OpenFor)
	}
	wrongly := within("no good file was denied", h.WronglyDenied, e.lastOf(false, denied), d.DenyFor)
	if d.DenyFor > 0 {
		wrongly.What = fmt.Sprintf("good files are no longer denied after %v", d.DenyFor)
	}
	all := []Check{
		{
			What: fmt.Sprintf("no open waited longer than the rule of %.0f ms (and %v for a busy machine)", h.RuleMS, margin),
			// No open at all is not a fast one.
			Passed: h.Opens > 0 && h.LongestMS <= bound,
			Detail: fmt.Sprintf("%.1f ms", h.LongestMS),
		},
		{What: "no open failed", Passed: h.Failed == 0, Detail: strconv.Itoa(h.Failed)},
		wrongly, missed,
	}
	if d.GoodOnly {
		return all[:len(all)-1]
	}
	return all
}

// settled reports whether everything that can be expected has been seen.
func (d *Drill) settled(e *evidence) bool {
	for _, x := range d.Expect {
		if ok, _ := x.See.in(e); !ok && x.After == 0 {
			return false
		}
	}
	return true
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	if r := []rune(s); len(r) > 240 {
		return string(r[:240]) + "…"
	}
	return s
}
