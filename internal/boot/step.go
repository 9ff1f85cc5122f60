package boot

import (
	"slices"
	"time"
)

// Kind says what happened.
type Kind int

// What can happen.
const (
	Started         Kind = iota + 1 // a boot of the system has begun
	Good                            // that boot was judged good
	ShutDown                        // the system goes down in order
	RecoveryEntered                 // the recovery environment has begun
	Remedied                        // it, or bootguard, applied Orders
	Choose                          // a person at the menu wants Mode
	Release                         // orders and caution are taken back; the next boot is as configured
	NotRemedied                     // a fix that was left to bootguard was not applied
	Unreadable                      // the state was lost; State is a new one
)

// Input is one thing that happened.
type Input struct {
	Kind Kind
	Boot string // the kernel's boot id
	// Left is what the boot loader's counter stands at: of Started after it counted this boot, of RecoveryEntered as
	// it was found; negative: it does not count, or that is not known.
	Left int
	// CanRecover says that the recovery environment is there and can be asked for.
	CanRecover bool
	Crumb      Crumb  // as it was found
	Orders     Orders // of Remedied
	Unset      bool   // of Remedied: safe mode is taken back first
	Mode       Mode   // of Choose, and of Remedied: where to begin; empty is Normal
	Why        string // for the history
}

// Act says what to do.
type Act string

// What can be asked for.
const (
	// Keep: write the state before anything else is done. When that is impossible, take the step again with
	// CanRecover false, and never reboot: a count that cannot be kept could never end.
	Keep Act = "keep"
	// Run: go on with this boot in Effect.Mode.
	Run Act = "run"
	// EnterRecovery: restart into the recovery environment.
	EnterRecovery Act = "enter-recovery"
	// Repair: the recovery environment may look for a fix and apply it.
	Repair Act = "repair"
	// ShowMenu: stop. The recovery environment shows its menu and waits; in the system, nothing reboots by itself
	// any more, and the loader shall wait for a person.
	ShowMenu Act = "show-menu"
	// Arm: set the boot loader's counter to Effect.Tries, and its count of visits to Effect.Visits.
	Arm Act = "arm"
)

// Effect is one thing to do.
type Effect struct {
	Act   Act
	Mode  Mode // of Run
	Tries int  // of Arm
	// Visits of Arm is how often the recovery environment was started; at MaxRecoveries the loader shows its menu.
	Visits int
	Why    string // of Run, EnterRecovery and ShowMenu, for people
}

// Step returns the state after in at time now, and what to do, in order. now is for the history only: no decision
// depends on the clock, which may be wrong.
func (s State) Step(now time.Time, in Input) (State, []Effect) {
	m := step{now: now, s: s, in: in}
	m.in.Boot, m.in.Crumb, m.in.Why = cut(in.Boot), in.Crumb.bound(), cut(in.Why)
	switch in.Kind {
	case Started:
		m.started()
	case Good:
		m.good()
	case ShutDown:
		m.shutDown()
	case RecoveryEntered:
		m.entered()
	case Remedied:
		m.remedied()
	case NotRemedied:
		m.in.Why = cutWithin(in.Why)
		m.notRemedied()
	case Choose:
		m.chosen()
	case Release:
		m.released()
	case Unreadable:
		m.note(Event{What: Reset, Why: m.in.Why})
	}
	return m.s, m.out
}

// step is one call of Step.
type step struct {
	now time.Time
	in  Input
	s   State
	out []Effect
}

func (m *step) do(effects ...Effect) { m.out = append(m.out, effects...) }

func (m *step) note(e Event) {
	e.At, e.Why = m.now.UTC().Truncate(time.Second), cut(e.Why) // what a suspect's texts are together can be too long
	all := append(slices.Clone(m.s.History), e)
	m.s.History = all[max(0, len(all)-maxHistory):]
}

func (m *step) started() {
	s := &m.s
	if s.Boot != "" && s.Boot == m.in.Boot {
		m.do(Effect{Act: Run, Mode: s.Mode, Why: m.why()})
		return
	}
	m.failed()
	m.missed(1)
	s.Mode = s.rung()
	switch {
	case s.Mode == Recovery && m.in.CanRecover && s.Sent < maxSent:
		s.Sent++
		if s.Recoveries >= MaxRecoveries {
			s.Next = Menu // it shows its menu; whatever comes of that, it is not asked again
		}
		m.do(Effect{Act: Keep}, Effect{Act: EnterRecovery, Why: m.why()})
	case s.Mode.rank() >= Recovery.rank():
		m.stop()
		s.Boot, s.Mode = m.in.Boot, Safe
		m.do(Effect{Act: Keep}, Effect{Act: Run, Mode: Safe, Why: m.why()},
			Effect{Act: ShowMenu, Why: m.why()})
	default:
		s.Boot = m.in.Boot
		m.do(Effect{Act: Keep}, Effect{Act: Run, Mode: s.Mode, Why: m.why()})
	}
}

// failed counts the boot that was under way, if there was one.
func (m *step) failed() {
	s := &m.s
	if s.Boot == "" {
		return
	}
	why := ""
	switch {
	case m.in.Crumb.Boot == s.Boot:
		s.Suspect, why = m.in.Crumb, m.in.Crumb.String()
	case s.Mode != Safe: // which starts nobody: whom the boot before it was starting is still the last one
		s.Suspect = Crumb{}
	}
	m.note(Event{What: Failed, Boot: s.Boot, Mode: s.Mode, Why: why})
	s.Boot = ""
	s.climb()
}

// missed counts boots that only the loader saw: they failed before this program ran. Of those that it counted, own have
// come so far, which is none where the recovery environment runs instead. What a boot before them was starting is no
// evidence of what ended them.
func (m *step) missed(own int) {
	if m.in.Left < 0 {
		return
	}
	for expected := m.s.Tries() - own; expected > m.in.Left; expected-- {
		m.s.Suspect = Crumb{}
		m.note(Event{What: Failed, Mode: m.s.rung(), Why: "it ended before Keepout was started"})
		m.s.climb()
	}
}

func (m *step) stop() {
	if m.s.Next != Menu {
		m.s.Next, m.s.Trial = Menu, false
		m.note(Event{What: Stopped, Why: "nothing that was tried helped"})
	}
}

func (m *step) good() {
	s := &m.s
	if s.Boot == "" || s.Boot != m.in.Boot {
		return
	}
	m.note(Event{What: Passed, Boot: s.Boot, Mode: s.Mode, Why: m.in.Why})
	if s.Mode.rank() < s.Floor.rank() {
		s.Trials = 0
	}
	s.Boot, s.Once, s.Failures, s.Recoveries, s.Sent, s.Visit, s.Suspect = "", "", 0, 0, 0, "", Crumb{}
	s.Floor, s.Next, s.Trial = s.Mode, s.Mode, false
	if s.Floor != Normal && s.Trials < MaxTrials {
		s.Next, s.Trial = below(s.Floor), true
	}
	m.do(Effect{Act: Keep}, s.arm())
}

// shutDown ends a boot that had no time to be judged; the next one begins on the same rung.
func (m *step) shutDown() {
	s := &m.s
	if s.Boot == "" || s.Boot != m.in.Boot {
		return
	}
	m.note(Event{What: Ended, Boot: s.Boot, Mode: s.Mode})
	s.Boot = ""
	m.do(Effect{Act: Keep}, s.arm())
}

func (m *step) entered() {
	s := &m.s
	again := s.Visit != "" && s.Visit == m.in.Boot
	if !again {
		m.failed()
		m.missed(0)
		s.Visit, s.Sent, s.Once, s.Trial = m.in.Boot, 0, "", false
		m.note(Event{What: Visited, Boot: m.in.Boot, Why: m.in.Why})
		if s.Recoveries >= MaxRecoveries {
			m.stop()
		}
		if s.Next != Menu {
			s.Recoveries++
			s.Next = Recovery // until something is remedied
		}
		s.Mode = Recovery
		m.do(Effect{Act: Keep})
	}
	if s.Next == Menu {
		m.do(Effect{Act: ShowMenu, Why: m.why()})
		return
	}
	m.do(Effect{Act: Repair, Why: m.why()})
}

func (m *step) remedied() {
	s := &m.s
	if m.in.Unset {
		s.unsetSafe()
	}
	s.Orders = s.Orders.with(m.in.Orders)
	if s.Next == Recovery && s.Boot == "" {
		s.Next, s.Once, s.Trial = startOf(m.in.Mode), "", false
	}
	m.note(Event{What: Fixed, Mode: s.rung(), Why: m.in.Why})
	m.do(Effect{Act: Keep}, s.arm())
}

// notRemedied tells it once for each visit to the recovery environment, which leaves the fixes: one that waits is
// looked at in each boot until the machine is well. The same words after that are about another fix or failure.
func (m *step) notRemedied() {
	for _, e := range slices.Backward(m.s.History) {
		if e.What == Visited || e.What == Passed || e.What == Released {
			break
		}
		if e.What == Unfixed && e.Why == m.in.Why {
			return
		}
	}
	m.note(Event{What: Unfixed, Why: m.in.Why})
	m.do(Effect{Act: Keep})
}

// startOf bounds where a remediation lets the next boot begin.
func startOf(m Mode) Mode {
	if m == LastKnownGood || m == Safe {
		return m
	}
	return Normal
}

func (m *step) chosen() {
	s := &m.s
	m.note(Event{What: Chosen, Mode: m.in.Mode, Why: m.in.Why})
	if m.in.Mode == Recovery {
		s.Next, s.Recoveries = Recovery, MaxRecoveries
		m.do(Effect{Act: Keep}, Effect{Act: Repair, Why: "a person asked for it"})
		return
	}
	s.Once = startOf(m.in.Mode)
	m.do(Effect{Act: Keep}, s.arm())
}

func (m *step) released() {
	s := &m.s
	m.note(Event{What: Released, Why: m.in.Why})
	s.Orders, s.Floor, s.Next, s.Once = Orders{}, Normal, Normal, ""
	s.Trial, s.Trials, s.Failures, s.Recoveries, s.Sent, s.Suspect = false, 0, 0, 0, 0, Crumb{}
	m.do(Effect{Act: Keep}, s.arm())
}

// arm sets the loader to what the state says.
func (s *State) arm() Effect {
	return Effect{Act: Arm, Tries: s.Tries(), Visits: min(s.Recoveries, MaxRecoveries)}
}
