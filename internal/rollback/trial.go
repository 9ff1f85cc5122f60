package rollback

import (
	"fmt"
	"slices"
	"strings"

	"github.com/keepout-security/keepout/internal/health"
)

// offered takes a candidate. The newest offer of a part counts.
func (m *step) offered(p Part, v Version) {
	sl := m.s.Slots(p)
	v = m.bound(v)
	if v.None() || v.Digest == sl.Candidate.Digest {
		return
	}
	if r, isRefused := sl.Refusal(v.Digest); isRefused {
		m.do(Effect{Act: Refuse, Part: p, Version: v, Cause: r.Cause})
		return
	}
	m.drop(p)
	if v.Digest != sl.Active.Digest { // otherwise: stay with what is active
		sl.Candidate, m.keep = v, true
	}
}

func (m *step) withdrawn(p Part, d Digest) {
	if d != "" && m.s.Slots(p).Candidate.Digest == d {
		m.drop(p)
	}
}

// drop forgets a candidate and ends its trial.
func (m *step) drop(p Part) {
	sl := m.s.Slots(p)
	if sl.Candidate.None() {
		return
	}
	if m.s.Trial.Part == p {
		if m.s.Trial.Beside {
			m.do(Effect{Act: StopBeside})
		}
		m.s.Trial = Trial{}
	}
	sl.Candidate, sl.Attempts, m.keep = Version{}, 0, true
}

// next begins a trial when none is on: of the candidate that came first.
func (m *step) next() {
	if m.s.Trial != (Trial{}) {
		return
	}
	engine, content := m.s.Engine.Candidate, m.s.Content.Candidate
	p := Engine
	if engine.None() || !content.None() && content.Since.Before(engine.Since) {
		p = Content
	}
	switch { // neither runs without the other
	case m.s.Engine.Active.None():
		p = Engine
	case m.s.Content.Missing:
		p = Content
	}
	v := m.s.Slots(p).Candidate
	if v.None() {
		return
	}
	m.s.Trial, m.keep = Trial{Part: p, Digest: v.Digest}, true
	m.s.Slots(p).Attempts++
	m.do(Effect{Act: Check, Part: p, Version: v})
}

// tried takes what the candidate on trial has shown.
func (m *step) tried(in Input) {
	t := &m.s.Trial
	bad := ""
	switch in.Kind {
	case Checked:
		if t.Beside {
			return
		}
		if bad = reason(in, "does not load"); in.OK {
			m.beside()
		}
	case Loaded:
		t.Loaded = t.Beside
	case SelfTested:
		bad = reason(in, "fails its self-test")
		t.SelfTest = t.Beside && in.OK
	case Measured:
		bad = reason(in, "does not meet its budget")
		t.Budget = t.Beside && in.OK
	case Compared:
		t.Samples, t.Differing = in.Samples, min(in.Differing, in.Samples)
	case BesideEnded:
		if !t.Beside {
			return
		}
		bad = "crashed on trial"
		if in.Cause != "" {
			bad += ": " + cut(in.Cause)
		}
	default: // not of a trial
	}
	if bad != "" {
		m.refuse(t.Part, m.s.Slots(t.Part).Candidate, bad)
	}
}

// reason says what is wrong, "" if nothing.
func reason(in Input, what string) string {
	switch {
	case in.OK:
		return ""
	case in.Cause == "":
		return what
	}
	return what + ": " + cut(in.Cause)
}

// beside starts the candidate on trial, or starts it anew because what it was compared with is no longer active.
func (m *step) beside() {
	t := m.s.Trial
	if t.Beside {
		m.do(Effect{Act: StopBeside})
	}
	m.s.Trial, m.keep = Trial{Part: t.Part, Digest: t.Digest, Beside: true, Waived: t.Waived}, true
	m.do(Effect{Act: StartBeside, Part: t.Part, Version: m.s.Slots(t.Part).Candidate})
}

// refuse never tries a version again.
func (m *step) refuse(p Part, v Version, cause string) {
	sl := m.s.Slots(p)
	if sl.Candidate.Digest == v.Digest {
		m.drop(p)
	}
	if sl.LKG.Digest == v.Digest {
		sl.LKG = Version{}
	}
	if sl.Former.Digest == v.Digest {
		sl.Former = Version{}
	}
	others := slices.DeleteFunc(slices.Clone(sl.Refused), func(r Refusal) bool { return r.Version.Digest == v.Digest })
	sl.Refused = last(append(others, Refusal{Version: v, Cause: cause, At: m.now}), m.c.Refusals)
	e := Entry{What: refused, Part: p, To: v, Cause: cause}
	m.note(e)
	m.do(Effect{Act: Refuse, Part: p, Version: v, Cause: cause})
	m.notify(health.Problem{
		Code: CodeRefused, Severity: health.Info, Title: Describe(m.s.Provider, e),
		Fix: fmt.Sprintf("offer another version, or: keepout provider allow %s %s", m.s.Provider, v.Digest.Short()),
	})
}

// judge promotes the candidate on trial when it has shown enough, and refuses it when it has shown too little.
func (m *step) judge() {
	t := m.s.Trial
	sl := m.s.Slots(t.Part)
	if !t.Beside {
		if t.Digest != "" && t.Ran >= m.c.TrialLimit {
			m.refuse(t.Part, sl.Candidate, "after "+span(m.c.TrialLimit)+" still not checked")
		}
		return
	}
	// Without an active version that runs there is nothing to compare with, and no time to lose.
	free := t.Waived || sl.Active.None() || !m.s.Runnable()
	enough := t.Samples >= m.c.Samples
	most := max(m.c.Delta*float64(t.Samples), float64(m.c.Few))
	if (enough || t.Ran >= m.c.TrialIdle) && !free && float64(t.Differing) > most {
		m.refuse(t.Part, sl.Candidate, fmt.Sprintf("disagrees on %d objects in %d events (limit %.1f %%, at least %d)",
			t.Differing, t.Samples, 100*m.c.Delta, m.c.Few))
		return
	}
	if missing := t.missing(); len(missing) > 0 {
		if t.Ran >= m.c.TrialLimit {
			m.refuse(t.Part, sl.Candidate, "after "+span(m.c.TrialLimit)+" still "+strings.Join(missing, ", "))
		}
		return
	}
	settled := m.s.Generation == 0 || m.s.Clock-m.s.ChangedAt >= m.c.Settle
	if free || settled && t.Ran >= m.c.TrialMin && (enough || t.Ran >= m.c.TrialIdle) {
		m.promote(t)
	}
}

// missing lists what a candidate has not shown.
func (t Trial) missing() (what []string) {
	if !t.Loaded {
		what = append(what, "not loaded")
	}
	if !t.SelfTest {
		what = append(what, "no self-test")
	}
	if !t.Budget {
		what = append(what, "budget not met")
	}
	return what
}

// promote makes the candidate on trial active.
func (m *step) promote(t Trial) {
	sl := m.s.Slots(t.Part)
	v, old, served := sl.Candidate, sl.Active, sl.Soaked
	sl.Candidate, sl.Attempts, m.s.Trial = Version{}, 0, Trial{}
	m.put(t.Part, v, true)
	// What is left must be able to come back. Better one that served an hour than one of last year; and any that
	// ran rather than none.
	if !old.None() && old.Digest != sl.LKG.Digest && (served >= m.c.Superseded || sl.Target().None()) {
		m.prove(t.Part, old, "served "+span(served)+" before "+v.String())
	}
	cause := fmt.Sprintf("differed on %d objects in %d events in %s", t.Differing, t.Samples, span(t.Ran))
	if t.Waived {
		cause = "an operator did not wait: " + cause
	}
	m.note(Entry{What: activated, Part: t.Part, From: old, To: v, Cause: cause})
	m.do(Effect{Act: Activate, Part: t.Part, Version: v, From: old, Cause: cause})
	m.do(Effect{Act: StopBeside}) // after it: the process beside may be the one that takes over
}

// allow takes a refusal back; whoever wants the version offers it again.
func (m *step) allow(p Part, d Digest) {
	sl := m.s.Slots(p)
	r, isRefused := sl.Refusal(d)
	if !isRefused {
		return
	}
	sl.Refused = slices.DeleteFunc(slices.Clone(sl.Refused), func(r Refusal) bool { return r.Version.Digest == d })
	m.note(Entry{What: allowed, Part: p, To: r.Version, Cause: "by an operator"})
}

// restarted begins the platform's life: no process is left of what ran before.
func (m *step) restarted() {
	s := &m.s
	s.Serving, s.Breaker, s.BreakerAt, m.keep = false, false, 0, true
	if s.Trial == (Trial{}) {
		return
	}
	p, waived := s.Trial.Part, s.Trial.Waived
	s.Trial = Trial{}
	if sl := s.Slots(p); sl.Attempts >= m.c.Attempts {
		m.refuse(p, sl.Candidate, fmt.Sprintf("%d trials ended with the platform", sl.Attempts))
		return
	}
	m.next()
	if s.Trial.Part == p {
		s.Trial.Waived = waived
	}
}

// stopping takes the attempt back that this orderly end would count as.
func (m *step) stopping() {
	t := m.s.Trial
	if t.Digest != "" {
		m.s.Slots(t.Part).Attempts = max(m.s.Slots(t.Part).Attempts-1, 0)
	}
	if t.Beside {
		m.do(Effect{Act: StopBeside})
	}
	m.keep = true
}
