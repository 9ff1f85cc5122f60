package rollback

import (
	"fmt"
	"slices"
	"time"

	"github.com/keepout-security/keepout/internal/health"
)

// troubled takes what the active version did.
func (m *step) troubled(in Input) {
	s := &m.s
	if in.Kind == BreakerClosed {
		s.Breaker, s.BreakerAt = false, 0
		return
	}
	// Any trouble starts the soak anew.
	s.Calm, s.Engine.Soaked, s.Content.Soaked = 0, 0, 0
	switch in.Kind {
	case Crashed:
		s.Serving, m.keep = false, true
		old := func(at time.Duration) bool { return s.Clock-at >= m.c.CrashWindow }
		s.Crashes = append(slices.DeleteFunc(slices.Clone(s.Crashes), old), s.Clock)
		if n := len(s.Crashes); n >= m.c.Crashes {
			m.trip(fmt.Sprintf("%d crashes in %s", n, span(s.Clock-s.Crashes[0])))
		}
	case BreakerOpened:
		if !s.Breaker {
			s.Breaker, s.BreakerAt = true, s.Clock
		}
	case DenyStorm:
		cause := "deny storm"
		if in.Cause != "" {
			cause += ": " + cut(in.Cause)
		}
		m.trip(cause)
	default: // no trouble
	}
}

// suspect returns the part that was promoted last, is not proven, and has something to go back to; "" if none.
func (m *step) suspect() (p Part) {
	var changed uint64
	for _, q := range Parts() {
		sl := m.s.Slots(q)
		if sl.Changed > changed && sl.Active.Digest != sl.LKG.Digest && !sl.Target().None() {
			p, changed = q, sl.Changed
		}
	}
	return p
}

// trip rolls back what changed last, or takes the provider out of service.
func (m *step) trip(cause string) {
	if p := m.suspect(); p != "" {
		m.rollBack(p, m.s.Slots(p).Target(), cause, true)
		return
	}
	m.isolate(cause)
}

// rollBack makes a version active in place of one that is no good. Preconditions: it is neither active nor refused.
func (m *step) rollBack(p Part, to Version, cause string, refuse bool) {
	sl := m.s.Slots(p)
	from := sl.Active
	if sl.Candidate.Digest == to.Digest {
		m.drop(p) // it becomes active without a trial
	}
	m.put(p, to, false)
	e := Entry{At: m.now, What: rolledBack, Part: p, From: from, To: to, Cause: cause}
	m.note(e)
	m.s.Last = e
	m.do(Effect{Act: RollBack, Part: p, From: from, Version: to, Cause: cause})
	m.notify(m.s.rolledBack(e))
	if refuse {
		m.refuse(p, from, cause)
	}
	if m.s.Trial.Beside {
		m.beside()
	}
}

// isolate takes the provider out of service for a while that grows.
func (m *step) isolate(cause string) {
	s := &m.s
	s.Wait = min(max(2*s.Wait, m.c.QuarantineFirst), m.c.QuarantineMax)
	s.Quarantine = Quarantine{Cause: cause, Since: m.now, Until: s.Clock + s.Wait}
	s.Crashes, s.Breaker, s.BreakerAt, s.Serving, s.Calm = nil, false, 0, false, 0
	m.note(Entry{What: quarantined, Cause: cause})
	m.do(Effect{Act: Isolate, Cause: cause})
	m.notify(s.quarantined())
}

// lost takes a package out of every slot: what is not there as it should be is not run.
func (m *step) lost(p Part, d Digest, cause string) {
	sl := m.s.Slots(p)
	if d == "" {
		return
	}
	if cause == "" {
		cause = "its package is missing or damaged"
	}
	var v Version
	for _, slot := range []Version{sl.Factory, sl.Former, sl.LKG, sl.Candidate, sl.Active} {
		if slot.Digest == d {
			v = slot
		}
	}
	if v.None() {
		return
	}
	e := Entry{What: lost, Part: p, To: v, Cause: cut(cause)}
	m.note(e)
	if sl.Candidate.Digest == d {
		m.drop(p)
	}
	if sl.LKG.Digest == d {
		sl.LKG = Version{}
	}
	if sl.Former.Digest == d {
		sl.Former = Version{}
	}
	if sl.Factory.Digest == d {
		sl.Factory = Version{}
	}
	m.notify(health.Problem{
		Code: CodeLost, Severity: health.Warning, Title: Describe(m.s.Provider, e),
		Fix: "check the disk, then install the version again",
	})
	if sl.Active.Digest != d {
		return
	}
	if !sl.Target().None() {
		m.rollBack(p, sl.Target(), cut(cause), false)
		return
	}
	m.s.Generation++
	sl.Active, sl.Changed, sl.Soaked, sl.Missing = Version{}, 0, 0, true
	m.isolate(fmt.Sprintf("%s %s is lost, and there is no other: %s", p, v, cut(cause)))
}

// rollBackNow does what an operator asks for, also when the active version is proven. What is named and is in no slot
// was verified by whoever asks.
func (m *step) rollBackNow(p Part, named Version, cause string) {
	if p == "" {
		p = m.suspect()
	}
	var to Version
	if p != "" && !m.s.Slots(p).Active.None() {
		to = m.s.Slots(p).Goal(m.bound(named))
	}
	if to.None() {
		m.notify(health.Problem{
			Code: CodeNoTarget, Severity: health.Info, Title: m.s.Provider + " has nothing to roll back to",
			Fix: "keepout provider versions shows the slots",
		})
		return
	}
	text := "by an operator"
	if cause != "" {
		text += ": " + cut(cause)
	}
	m.rollBack(p, to, text, true)
}

// span is a duration for people: exact for the short ones, without decimals.
func span(d time.Duration) string {
	if d < 2*time.Minute {
		return fmt.Sprintf("%ds", int(d.Round(time.Second)/time.Second))
	}
	text := d.Round(time.Second).String()
	for _, zero := range []string{"m0s", "h0m"} {
		if n := len(text) - len(zero); n > 0 && text[n:] == zero {
			text = text[:n+1]
		}
	}
	return text
}
