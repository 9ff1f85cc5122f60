package rollback

import (
	"slices"
	"strings"
	"time"

	"github.com/keepout-security/keepout/internal/health"
)

// What history says.
const (
	activated   = "activated"
	proven      = "proven"
	rolledBack  = "rolled-back"
	refused     = "refused"
	allowed     = "allowed"
	lost        = "lost"
	quarantined = "quarantined"
	released    = "released"
)

// step is one call of Next.
type step struct {
	c    Config
	now  time.Time
	s    State
	out  []Effect
	keep bool
}

// Next returns the state after in at time now, and what to do, in order.
func (s State) Next(c Config, now time.Time, in Input) (State, []Effect) {
	m := step{c: c, now: now, s: s}
	m.pass(in.Kind == Restarted)
	m.take(in)
	m.settle()
	if m.keep || m.s.Clock-m.s.KeptAt >= c.KeepEvery {
		m.s.KeptAt = m.s.Clock
		m.out = slices.Insert(m.out, 0, Effect{Act: Keep})
	}
	return m.s, m.out
}

// pass lets time go by. Only the platform's own time counts, and a gap of any length counts as Config.Gap, so that
// neither a suspended host nor a clock that is set proves anything.
func (m *step) pass(fresh bool) {
	gap := min(max(m.now.Sub(m.s.Seen), 0), m.c.Gap)
	if fresh || m.s.Seen.IsZero() {
		gap = 0
	}
	m.s.Seen = m.now
	m.s.Clock += gap
	if m.s.Trial.Digest != "" {
		m.s.Trial.Ran += gap
	}
	if m.s.Serving && !m.s.Breaker {
		m.s.Calm += gap
		m.s.Engine.Soaked += gap
		m.s.Content.Soaked += gap
	}
}

func (m *step) take(in Input) {
	switch in.Kind {
	case Installed:
		m.installed(in.Part, in.Version)
	case Offered:
		m.offered(in.Part, in.Version)
	case Withdrawn:
		m.withdrawn(in.Part, in.Digest)
	case Checked, Loaded, SelfTested, Measured, Compared, BesideEnded:
		if t := m.s.Trial; t.Digest != "" && t.Part == in.Part && t.Digest == in.Digest {
			m.tried(in)
		}
	case Crashed, BreakerOpened, BreakerClosed, DenyStorm:
		if m.s.Runnable() && (in.Generation == 0 || in.Generation == m.s.Generation) {
			m.troubled(in)
		}
	case Lost:
		m.lost(in.Part, in.Digest, in.Cause)
	case Tick:
		m.s.Serving = in.Serving && m.s.Runnable()
	case RollBackNow:
		m.rollBackNow(in.Part, in.Version, in.Cause)
	case Allow:
		m.allow(in.Part, in.Digest)
	case Promote:
		if t := &m.s.Trial; t.Digest != "" && t.Part == in.Part {
			t.Waived, m.keep = true, true
		}
	case Restarted:
		m.restarted()
	case Stopping:
		m.stopping()
	case Removed:
		m.removed()
	}
}

// settle does what is due, whatever came in.
func (m *step) settle() {
	s := &m.s
	if s.Breaker && s.Runnable() && s.Clock-s.BreakerAt >= m.c.BreakerHold {
		m.trip("breaker open for " + span(m.c.BreakerHold))
	}
	if s.Quarantine != (Quarantine{}) && s.whole() && s.Clock >= s.Quarantine.Until {
		m.release()
		m.do(Effect{Act: Release})
	}
	if s.Calm >= m.c.Calm {
		s.Wait = 0
	}
	for _, p := range Parts() {
		sl := s.Slots(p)
		if !sl.Active.None() && sl.Active.Digest != sl.LKG.Digest && sl.Soaked >= m.c.Soak {
			m.prove(p, sl.Active, "served "+span(m.c.Soak)+" without trouble")
		}
	}
	m.judge()
	m.next()
}

func (m *step) do(e Effect) { m.out = append(m.out, e) }

func (m *step) note(e Entry) {
	e.At, m.keep = m.now, true
	m.s.History = last(append(slices.Clip(m.s.History), e), m.c.History)
}

// last returns at most n elements from the end, in a slice of its own if some are left out.
func last[T any](all []T, n int) []T {
	if len(all) <= n {
		return all
	}
	return slices.Clone(all[len(all)-n:])
}

// put makes a version active. What came before is forgotten: the new one answers for itself only.
func (m *step) put(p Part, v Version, promoted bool) {
	s, sl := &m.s, m.s.Slots(p)
	v.Since = m.now
	s.Generation++
	switch {
	case promoted && !sl.Active.None():
		sl.Former = sl.Active
	case sl.Former.Digest == v.Digest:
		sl.Former = Version{}
	}
	sl.Active, sl.Soaked, sl.Missing, sl.Changed = v, 0, false, 0
	if promoted {
		sl.Changed = s.Generation
	}
	s.ChangedAt, s.Calm, s.Serving = s.Clock, 0, false
	s.Crashes, s.Breaker, s.BreakerAt = nil, false, 0
	if s.whole() {
		m.release()
	}
	m.keep = true
}

// release ends a quarantine, if there is one.
func (m *step) release() {
	if m.s.Quarantine == (Quarantine{}) {
		return
	}
	m.s.Quarantine = Quarantine{}
	m.s.Crashes, m.s.Breaker, m.s.BreakerAt, m.s.Calm, m.s.Serving = nil, false, 0, 0, false
	m.note(Entry{What: released})
}

// prove makes a version the last-known-good.
func (m *step) prove(p Part, v Version, cause string) {
	v.Since = m.now
	m.s.Slots(p).LKG = v
	m.note(Entry{What: proven, Part: p, To: v, Cause: cause})
	m.do(Effect{Act: MarkLKG, Part: p, Version: v, Cause: cause})
}

// installed takes what came with the installation. It is active at once only where nothing else is: over a version
// that works it is a candidate like any other.
func (m *step) installed(p Part, v Version) {
	sl := m.s.Slots(p)
	v = m.bound(v)
	old := sl.Factory
	if v.None() || old.Digest == v.Digest && !sl.Active.None() {
		return
	}
	sl.Factory, m.keep = v, true
	_, isRefused := sl.Refusal(v.Digest)
	switch {
	case sl.Active.None() && !isRefused:
		m.drop(p)
		m.put(p, v, false)
		m.note(Entry{What: activated, Part: p, To: v, Cause: "nothing else was"})
		m.do(Effect{Act: Activate, Part: p, Version: v})
	case sl.Active.Digest == old.Digest:
		m.offered(p, v)
	}
}

func (m *step) removed() {
	if m.s.Trial.Beside {
		m.do(Effect{Act: StopBeside})
	}
	m.s = New(m.s.Provider)
	m.s.Seen, m.keep = m.now, true
}

// bound makes a version that came from outside fit to be kept.
func (m *step) bound(v Version) Version {
	v.Label, v.Origin, v.Since = cut(v.Label), cut(v.Origin), m.now
	if !v.Digest.Valid() {
		return Version{}
	}
	return v
}

func (m *step) notify(p health.Problem) {
	p.Provider = m.s.Provider
	m.do(Effect{Act: Notify, Problem: p})
}

// cut bounds a text from outside.
func cut(text string) string { return strings.ToValidUTF8(text[:min(len(text), maxText/4)], "") }
