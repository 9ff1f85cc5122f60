package plan

import (
	"time"

	"github.com/keepout-security/keepout/internal/boot"
)

// Input is one thing that happened. Exactly one of the answers is set, or Tick is all there is to it.
type Input struct {
	Saved    *Saved
	Linked   *Linked
	Answered *Answered
	Applied  *Applied
	Reported bool
	Key      Key
}

// Saved answers Save.
type Saved struct{ Trouble string }

// Linked says that the machine has an address.
type Linked struct{ Address string }

// Applied answers Apply.
type Applied struct{ Trouble string }

// Kind is what the server said.
type Kind string

// The kinds of answers.
const (
	Fix     Kind = "fix"     // a verified fix for this machine
	None    Kind = "none"    // the server knows this machine and has nothing for it
	Refused Kind = "refused" // what it sent must not be applied
	Failed  Kind = "failed"  // it did not answer, or not as a server of ours does
)

// Answered answers Ask.
type Answered struct {
	Kind  Kind
	Why   string        // of Refused and Failed
	Retry time.Duration // the server's hint, of None and Refused; 0: none
	ID    string        // of Fix
}

// Key is a key that a person pressed.
type Key string

// The keys.
const (
	Details Key = "f2"
	Safe    Key = "f8"
	Off     Key = "f10"
	Again   Key = "enter" // at the menu: look for a fix again
)

// Step returns the state after in at time now, and what to do, in order. Call it with an empty Input at least every
// second: limits act then.
func (s State) Step(now time.Time, in Input) (State, []Effect) {
	if s.Phase == Leaving {
		return s, nil
	}
	m := move{now: now, s: s}
	switch {
	case in.Key != "":
		m.key(in.Key)
	case in.Saved != nil && s.Phase == Saving:
		m.saved(*in.Saved)
	case in.Linked != nil:
		m.linked(*in.Linked)
	case in.Answered != nil && s.Phase == Asking:
		m.answered(*in.Answered)
	case in.Applied != nil && s.Phase == Applying:
		m.applied(*in.Applied)
	case in.Reported && s.Phase == Reporting:
		m.leave(Restart)
	}
	m.limits()
	return m.s, m.out
}

type move struct {
	now time.Time
	s   State
	out []Effect
}

func (m *move) do(e Effect) { m.out = append(m.out, e) }

func (m *move) enter(p Phase, limit time.Duration) {
	m.s.Phase, m.s.limit = p, m.now.Add(limit)
}

func (m *move) saved(in Saved) {
	if in.Trouble != "" {
		m.s.Trouble = in.Trouble
	} else {
		m.s.Saved = true
	}
	switch {
	case m.s.after == Menu:
		m.s.Phase = Menu
	case m.s.Facts.Alone:
		m.local("no server is configured")
	default:
		m.look()
	}
}

// look begins the search for a fix, or begins it again.
func (m *move) look() {
	wait := m.s.Config.TotalWait
	if m.s.Test {
		wait = testWait
	}
	m.s.GiveUp = m.now.Add(m.s.Config.NetworkWait + wait)
	if m.s.Address != "" {
		m.ask()
		return
	}
	m.enter(Connecting, m.s.Config.NetworkWait)
	m.do(Effect{Act: Connect})
}

func (m *move) linked(in Linked) {
	m.s.Address = in.Address
	if m.s.Phase == Connecting {
		m.ask()
	}
}

func (m *move) ask() {
	m.s.Attempts++
	m.enter(Asking, askLimit)
	m.do(Effect{Act: Ask})
}

func (m *move) answered(in Answered) {
	switch in.Kind {
	case Fix:
		m.apply(Remedy{Source: Server, ID: in.ID, Why: in.Why})
		return
	case None:
		m.s.Trouble = "the server has no fix for this machine yet"
		m.s.retry = firstRetry
		m.wait(in.Retry, m.s.Config.RetryInterval)
	case Refused:
		m.s.Trouble = in.Why
		m.wait(in.Retry, m.s.Config.RetryInterval)
	default:
		m.s.Trouble = in.Why
		m.wait(0, min(m.s.retry, m.s.Config.RetryInterval))
		m.s.retry = min(2*m.s.retry, m.s.Config.RetryInterval)
	}
	if m.s.Config.OneScan && in.Kind != Failed {
		m.local("the server was asked once, as configured: " + m.s.Trouble)
	}
}

// wait lets a server's hint shorten the time to the next question, never lengthen it.
func (m *move) wait(hint, otherwise time.Duration) {
	if hint > 0 {
		otherwise = min(max(hint, minRetry), otherwise)
	}
	m.s.Phase, m.s.Next = Waiting, m.now.Add(otherwise)
}

// limits acts for what did not answer in time.
func (m *move) limits() {
	late := !m.now.Before(m.s.limit)
	switch m.s.Phase {
	case Saving:
		if late {
			m.saved(Saved{Trouble: "the diagnostics could not be saved in time"})
		}
	case Connecting:
		if late {
			m.local("no network within " + m.s.Config.NetworkWait.String())
		}
	case Asking:
		if late {
			m.answered(Answered{Kind: Failed, Why: "the server did not answer in time"})
		}
	case Waiting:
		switch {
		case !m.now.Before(m.s.GiveUp):
			m.local("no fix in time: " + m.s.Trouble)
		case !m.now.Before(m.s.Next):
			m.ask()
		}
	case Applying:
		if late {
			m.applied(Applied{Trouble: "the boot file system did not take it in time"})
		}
	case Reporting:
		if late {
			m.leave(Restart)
		}
	default:
	}
}

// local applies the local rule.
func (m *move) local(why string) {
	if m.s.Test {
		m.s.Trouble = why
		m.finish(Remedy{Source: Test, Why: why})
		return
	}
	m.apply(Rule(m.s.Facts, why))
}

func (m *move) apply(r Remedy) {
	if m.s.Test && r.Source == Server {
		r.Source = Test
		m.finish(r)
		return
	}
	m.s.Remedy = r
	m.enter(Applying, applyLimit)
	m.do(Effect{Act: Apply, Remedy: r})
}

// applied goes on when it was written down. A fix that could not be, on a full disk, gives way to the local rule, which
// needs no room; what remains then is the menu, because a restart would lead here again.
func (m *move) applied(in Applied) {
	switch {
	case in.Trouble == "":
		m.finish(m.s.Remedy)
	case m.s.Remedy.Source == Server:
		m.s.Trouble = in.Trouble
		m.local("fix " + m.s.Remedy.ID + " could not be written down: " + in.Trouble)
	default:
		m.s.Trouble, m.s.Remedy, m.s.Phase = in.Trouble, Remedy{}, Menu
	}
}

// finish reports if there is somebody to report to, and restarts.
func (m *move) finish(r Remedy) {
	m.s.Remedy = r
	if m.s.Address == "" || m.s.Facts.Alone {
		m.leave(Restart)
		return
	}
	m.enter(Reporting, reportLimit)
	m.do(Effect{Act: Report, Remedy: r})
}

func (m *move) leave(a Act) {
	m.s.Phase = Leaving
	m.do(Effect{Act: a})
}

func (m *move) key(k Key) {
	s := &m.s
	switch {
	case k == Details:
		s.Details = !s.Details
	case k == Off:
		m.leave(PowerOff)
	case s.Phase == Saving || s.Phase == Applying || s.Phase == Reporting:
		// Something is being written or is nearly done; it takes a moment only.
	case k == Safe && s.Test:
		m.leave(Restart)
	case k == Safe:
		m.apply(Remedy{Source: Person, Mode: boot.Safe, Why: "a person chose to start without third-party security"})
	case k == Again && s.Phase == Menu && !s.Facts.Alone && s.Facts.Unusable == "":
		s.retry = firstRetry
		m.look()
	}
}
