package rollout

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// Step returns the state after one input, and what is to be done. It does not change s.
func (s *State) Step(now time.Time, in *Input) (State, Effects) {
	next := s.clone()
	e := next.Apply(now, in)
	return next, e
}

// Apply is Step in place.
func (s *State) Apply(now time.Time, in *Input) Effects {
	e := Effects{Row: in.Host.Row}
	s.advance(now)
	s.start(&e)
	s.look(now, &e)
	switch in.Kind {
	case CheckIn, Beacon:
		s.hear(now, in, &e)
	case Lapse:
		s.lapse(now, &in.Host, &e)
	case Approve:
		s.approve(in, &e)
	case Pause:
		s.pause(in, &e)
	case Resume:
		s.resume(in, &e)
	case Halt:
		if s.person(in, &e) && s.Status != Stopped {
			s.Status, s.Because = Stopped, in.By+": "+in.Reason
			e.Acts = append(e.Acts, Act{Kind: Halted, Ring: s.Open, Text: s.Because})
		}
	case SetCustomer:
		s.setCustomer(in.Customer, &e)
	case TakeOver:
		if in.Epoch <= s.Epoch {
			e.refuse("epoch %d is not above %d: another controller leads", in.Epoch, s.Epoch)
			break
		}
		s.Epoch = in.Epoch
	case Supersede:
		s.Behind = true
	case Tick:
	}
	return e
}

// advance moves Clock. Time in which nobody called proves nothing about a host, and neither does a clock that jumps.
func (s *State) advance(now time.Time) {
	if !s.Seen.IsZero() {
		s.Clock += min(max(now.Sub(s.Seen), 0), s.Numbers.Gap)
	}
	s.Seen = now
}

// start opens ring 0 when enough people want it.
func (s *State) start(e *Effects) {
	if s.Status != Draft || len(s.Approved) < s.Spec.Approvals() {
		return
	}
	s.Status, s.StartedAt, s.BlockAt = Running, s.Clock, s.Clock
	e.Acts = append(e.Acts, Act{Kind: Started})
	s.open(e)
}

// open opens the next ring.
func (s *State) open(e *Effects) {
	s.Open++
	s.Rings[s.Open].OpenedAt = s.Clock
	e.Acts = append(e.Acts, Act{Kind: Opened, Ring: s.Open})
}

func (e *Effects) refuse(format string, args ...any) {
	e.Acts = append(e.Acts, Act{Kind: Refused, Text: fmt.Sprintf(format, args...)})
}

// person reports whether somebody stands behind the input.
func (s *State) person(in *Input, e *Effects) bool {
	if in.By == "" {
		e.refuse("nobody's name is on it")
		return false
	}
	return true
}

func (s *State) approve(in *Input, e *Effects) {
	switch {
	case !s.person(in, e):
	case s.Status != Draft:
		e.refuse("it is %s already", s.Status)
	case slices.Contains(s.Approved, in.By):
		e.refuse("%s has approved already: a second person must", in.By)
	default:
		s.Approved = append(s.Approved, in.By)
		s.start(e)
	}
}

func (s *State) pause(in *Input, e *Effects) {
	switch {
	case !s.person(in, e):
	case s.Status != Running && s.Status != Complete:
		e.refuse("it is %s: nothing to pause", s.Status)
	default:
		s.Status, s.Because = OnHold, in.By+": "+in.Reason
		e.Acts = append(e.Acts, Act{Kind: Paused, Ring: s.Open, Text: s.Because})
	}
}

// resume goes on after a pause. A gate's evidence is forgotten: somebody has looked at it, and it must come anew.
func (s *State) resume(in *Input, e *Effects) {
	switch {
	case !s.person(in, e):
		return
	case s.Status == Stopped:
		e.refuse("it is halted, because of %s: make another rollout", s.Because)
		return
	case s.Status != OnHold:
		e.refuse("it is %s: nothing to resume", s.Status)
		return
	}
	if s.Evidence != nil {
		from := int(s.Evidence.Gate) * (len(s.Strata) + 1)
		for i := from; i <= from+len(s.Strata); i++ {
			s.Gates[i].Scores = [MaxRatios]float64{}
			s.Gates[i].Block, s.Gates[i].Samples = [2]int{}, [2]int{}
		}
	}
	s.Status, s.Because, s.Evidence = Running, "", nil
	if s.done() {
		s.Status = Complete
	}
	e.Acts = append(e.Acts, Act{Kind: Resumed, Ring: s.Open, Text: in.By})
}

// MaxCustomers bounds the customers that have wishes of their own.
const MaxCustomers = 100_000

func (s *State) setCustomer(c Customer, e *Effects) {
	if _, known := s.Customers[c.ID]; !known && len(s.Customers) >= MaxCustomers {
		e.refuse("%d customers have wishes: no room", len(s.Customers))
		return
	}
	c.Aged = s.Customers[c.ID].Aged
	c.Freeze = slices.Clone(c.Freeze)
	if s.Customers == nil {
		s.Customers = map[string]Customer{}
	}
	s.Customers[c.ID] = c
}

// age tells of customers whose pause outlives their own limit, once each. It resumes nothing.
func (s *State) age(now time.Time, e *Effects) {
	if s.Status == Draft || len(s.Customers) == 0 {
		return
	}
	for _, id := range slices.Sorted(maps.Keys(s.Customers)) {
		c := s.Customers[id]
		waits := c.Paused || frozen(c.Freeze, now)
		if age := s.Clock - s.StartedAt; waits && !c.Aged && c.MaxAge > 0 && age >= c.MaxAge {
			c.Aged = true
			s.Customers[id] = c
			text := fmt.Sprintf("%s has waited %s for release %d", id, age.Round(time.Second), s.Spec.Release)
			e.Acts = append(e.Acts, Act{Kind: Aged, Text: text})
		}
	}
}
