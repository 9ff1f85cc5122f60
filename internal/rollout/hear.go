package rollout

import (
	"fmt"
	"time"
)

// hear takes one check-in, or a beacon.
func (s *State) hear(now time.Time, in *Input, e *Effects) {
	h, r := &in.Host, &e.Row
	if !r.Known {
		if s.dice == nil {
			s.dice = NewDice(s.Spec.Seed)
		}
		r.Stratum, r.Ring = s.Plan.Find(s.dice, h)
		r.Known = true
	}
	e.Store = true
	if in.Kind == Beacon {
		s.beacon(now, in, e)
		return
	}
	s.forget(r)
	s.back(r)
	r.Seen = s.Clock
	switch {
	case in.Report.Running == s.Spec.Digest:
		s.runs(r, &in.Report)
	case s.Behind && in.Report.Running != s.Spec.Previous && in.Host.Pin != Previous:
		s.movedOn(r)
	default:
		s.runsOther(r, &in.Report)
	}
	s.count(now, h, r, &in.Report, e)
	s.reply(now, in, e)
	s.expect(r)
	e.Reply.Wait = s.pace(r)
}

// beacon takes what a recovery environment says. The host is not well, so it is not "heard of": it stays silent.
func (s *State) beacon(now time.Time, in *Input, e *Effects) {
	s.count(now, &in.Host, &e.Row, &in.Report, e)
	e.Reply = Reply{Do: Stay, Wait: s.Numbers.CheckIn}
	if e.Row.Phase != Pending {
		e.Reply.Do, e.Reply.To, e.Reply.Cause = RollBack, s.Spec.Previous, s.cause()
	}
}

// cause says in one line why hosts go back.
func (s *State) cause() string {
	if s.Status == Stopped {
		return s.Because
	}
	return "this host does not boot"
}

// armOf returns the side on which a host counts, if it does.
func (s *State) armOf(r *Row) (Arm, bool) {
	switch r.Phase {
	case Activating, Soaking, Confirmed:
		return Treated, true
	case Pending:
		return Control, r.Ring == s.Plan.Control()
	case WentBack, Foreign, Ahead:
	}
	return 0, false
}

// forget takes a host out of those whose silence would count, before its phase changes.
func (s *State) forget(r *Row) {
	if r.Due == 0 {
		return
	}
	if arm, ok := s.armOf(r); ok {
		s.watch(r, arm, -1)
	}
	r.Due = 0
}

// expect puts a host among them.
func (s *State) expect(r *Row) {
	arm, ok := s.armOf(r)
	if !ok || arm == Treated && !r.Outstanding() && s.Clock-r.GrantedAt > s.Numbers.Watch {
		return
	}
	s.watch(r, arm, 1)
	r.Due = s.Clock + time.Duration(s.Numbers.Missed)*s.pace(r)
}

// watch counts a host in, or out.
func (s *State) watch(r *Row, arm Arm, by int) {
	s.Strata[r.Stratum].Watched[arm] += by
	switch {
	case arm == Control:
	case s.distant(r):
		s.Strata[r.Stratum].Distant += by
	default:
		s.Cohorts[r.Ring].Strata[r.Stratum].Watched += by
	}
}

// distant reports whether a host of the treated side is one of a crowd that was confirmed: it checks in so seldom that
// its silence shows many minutes after the control group's. When people go home, or stop going home, the two would
// differ by that alone, so it is not held against the release. The confirmed hosts of smaller rings, which have run
// the release for longer, stand for these: they go on checking in as often as the control group.
func (s *State) distant(r *Row) bool {
	return r.Phase == Confirmed && s.Plan.Rings[r.Ring].Members > s.Numbers.Crowd
}

// pace returns how often a host checks in.
func (s *State) pace(r *Row) time.Duration {
	arm, ok := s.armOf(r)
	soon := r.Ring >= 0 && r.Ring <= s.Open+1 && s.Plan.Rings[r.Ring].Members <= s.Numbers.Crowd
	switch {
	case r.Phase == Activating || r.Phase == Soaking, ok && arm == Control, r.Phase == Pending && soon,
		r.Phase == Confirmed && !s.distant(r) && s.Clock-r.GrantedAt <= s.Numbers.Watch:
		return s.Numbers.CheckIn
	}
	return s.Numbers.Idle
}

// lapse takes a host's silence.
func (s *State) lapse(now time.Time, h *Host, e *Effects) {
	r := &e.Row
	if r.Due == 0 || s.Clock < r.Due {
		return
	}
	arm, _ := s.armOf(r)
	s.forget(r)
	r.Silent, e.Store = true, true
	if arm == Treated && s.distant(r) {
		return
	}
	s.contest(Silence, r.Stratum).Block[arm]++
	if arm == Control {
		s.Quiet++
		return
	}
	s.Cohorts[r.Ring].Strata[r.Stratum].Lapsed++
	if r.Outstanding() {
		ring := &s.Rings[r.Ring]
		ring.Soaking--
		ring.Silent++
		s.capSilence(now, h, r.Ring, e)
	}
}

// back takes a silent host among those that are heard of. Silent hosts of a ring are counted, not named: while fewer
// came back than were not written off, the next one that does was not.
func (s *State) back(r *Row) {
	if !r.Silent {
		return
	}
	r.Silent = false
	switch {
	case r.Phase == Pending:
		if r.Ring == s.Plan.Control() {
			s.Quiet--
		}
	case r.Outstanding():
		ring := &s.Rings[r.Ring]
		if ring.Silent > 0 {
			ring.Silent--
			ring.Soaking++
		} else {
			ring.Gone--
			r.WrittenOff = true
		}
		r.SoakingAt = s.Clock // what it did meanwhile, nobody knows
	default: // confirmed or written off: it takes up no room
	}
}

// runs takes a report of a host that runs the release.
func (s *State) runs(r *Row, rep *Report) {
	switch r.Phase {
	case Pending, WentBack:
		r.Phase = Foreign
	case Activating:
		r.Phase, r.SoakingAt = Soaking, s.Clock
	case Soaking:
		if !rep.Healthy || rep.failed() {
			r.SoakingAt = s.Clock
			return
		}
		if s.Clock-r.SoakingAt < s.Numbers.Soak {
			return
		}
		ring := &s.Rings[r.Ring]
		if r.WrittenOff {
			ring.Late++
		} else {
			ring.Soaking--
			ring.Confirmed++
		}
		ring.Strata[r.Stratum]++
		r.Phase = Confirmed
		if s.distant(r) {
			s.Strata[r.Stratum].Left[0]++
			s.Cohorts[r.Ring].Strata[r.Stratum].Left[0]++
		}
	case Confirmed, Foreign, Ahead:
	}
}

// movedOn takes a host that runs what came after the release. It has not gone back, and what becomes of it from here on
// is the newer rollout's: else a bad release would also halt the good one before it, and send everybody two back. The
// room that it took is not given to others.
func (s *State) movedOn(r *Row) {
	if r.Outstanding() {
		ring := &s.Rings[r.Ring]
		ring.Soaking--
		ring.Stuck++
	}
	r.Phase = Ahead
}

// runsOther takes a report of a host that does not run the release.
func (s *State) runsOther(r *Row, rep *Report) {
	switch r.Phase {
	case Foreign:
		r.Phase = Pending
	case Activating:
		switch {
		case rep.Unused || rep.Nonce != "" && r.WrittenOff:
			s.returned(r)
		case rep.Trying: // its own trial takes as long as it takes
		case rep.Nonce != "": // it lost the reply: reply gives it another grant for the same room
		case s.Clock-r.GrantedAt > s.Numbers.GrantLife:
			s.wentBack(r) // it had the grant and does not want it any more: it has tried
		}
	case Soaking, Confirmed:
		s.wentBack(r)
		if s.Status != Stopped && !rep.failed() {
			rep.Incidents = append([]Incident{{Gate: Crash, Signature: "went back by itself"}}, rep.Incidents...)
		}
	case Pending, WentBack, Ahead:
	}
}

// returned gives room back: the host proved that it never activated.
func (s *State) returned(r *Row) {
	ring := &s.Rings[r.Ring]
	if !r.WrittenOff {
		ring.Soaking--
		ring.WrittenOff++
		ring.Returned++
	}
	r.Phase, r.WrittenOff, r.GrantedAt = Pending, false, 0
}

// wentBack keeps the room that the host took: a release that makes hosts go back gets no further by that.
func (s *State) wentBack(r *Row) {
	ring := &s.Rings[r.Ring]
	if r.Outstanding() {
		ring.Soaking--
		ring.Stuck++
	}
	if s.Status == Stopped {
		ring.RolledBack++
	} else {
		ring.Failed++
	}
	r.Phase = WentBack
}

// reply decides what the host is told.
func (s *State) reply(now time.Time, in *Input, e *Effects) {
	r := &e.Row
	e.Reply.Do = Stay
	if in.Report.Running == s.Spec.Digest {
		switch {
		case s.Status == Stopped:
			e.Reply.Do, e.Reply.To, e.Reply.Cause = RollBack, s.Spec.Previous, s.Because
		case r.Phase == Foreign:
			e.Reply.Why = Outside
		}
		return
	}
	if s.Status == Stopped && r.Phase == Activating { // it may have it on trial
		e.Reply.Do, e.Reply.To, e.Reply.Cause, e.Reply.Why = RollBack, s.Spec.Previous, s.Because, RolloutHalted
		return
	}
	if e.Reply.Why = s.refusal(now, in, r); e.Reply.Why != Granted {
		return
	}
	s.grant(now, in, e)
}

// refusal says why a host may not activate now, or Granted.
func (s *State) refusal(now time.Time, in *Input, r *Row) Why {
	c := s.Customers[in.Host.Customer]
	switch {
	case s.Status == Draft:
		return NotStarted
	case s.Status == Stopped:
		return RolloutHalted
	case r.Ring < 0 || in.Host.Pin == Never:
		return PinnedNever
	case in.Host.Pin == Previous && !s.Behind:
		return PinnedPrevious
	case in.Host.Pin != Previous && s.Behind:
		return Newer
	case r.Phase == WentBack:
		return Failed
	case c.Paused:
		return CustomerPaused
	case frozen(c.Freeze, now):
		return Frozen
	case s.Status == OnHold:
		return RolloutPaused
	case r.Ring > s.Open:
		return RingClosed
	case in.Report.Nonce == "":
		return NotReady
	case r.Phase == Pending && s.Rings[r.Ring].Outstanding() >= s.room(r.Ring):
		return RingFull
	}
	return Granted
}

// room returns W of an open ring now: what the plan says, but at most Growth times what is proved.
func (s *State) room(ring int) int {
	w := s.Plan.Rings[ring].W
	if ring == 0 {
		return w
	}
	proved := 0
	for i := range s.Rings {
		proved += s.Rings[i].Confirmed
	}
	return min(w, s.Numbers.Growth*proved)
}

// grant hands out room in W, or another grant for room that the host has.
func (s *State) grant(now time.Time, in *Input, e *Effects) {
	r := &e.Row
	if r.Phase == Pending {
		ring := &s.Rings[r.Ring]
		ring.Granted++
		ring.Soaking++
		ring.Reached[r.Stratum]++
		r.Phase, r.WrittenOff = Activating, false
	}
	r.GrantedAt = s.Clock
	s.Serial++
	e.Reply.Do = Activate
	e.Reply.Grant = Grant{
		Rollout: s.Spec.ID, Host: in.Host.ID, Digest: s.Spec.Digest, Nonce: in.Report.Nonce,
		Epoch: s.Epoch, Serial: s.Serial, Issued: now, Lifetime: s.Numbers.GrantLife,
	}
}

// stop halts or pauses because of a gate.
func (s *State) stop(e *Effects, ev Evidence) {
	if s.Status == Stopped || s.Status == OnHold && ev.Gate.pauses() {
		return
	}
	ev.Ring = s.Open
	s.Evidence, s.Because = &ev, ev.String()
	kind := Halted
	s.Status = Stopped
	if ev.Gate.pauses() {
		kind, s.Status = Paused, OnHold
	}
	e.Acts = append(e.Acts, Act{Kind: kind, Ring: s.Open, Text: s.Because, Evidence: &ev})
}

// String tells the evidence in one line.
func (ev *Evidence) String() string {
	text := ev.Gate.String() + ": " + ev.Test
	if ev.Signature != "" {
		text += fmt.Sprintf(" (%s)", ev.Signature)
	}
	if ev.Stratum != "" {
		text += " in " + ev.Stratum
	}
	return text
}
