package docket

import (
	"hash/maphash"
	"time"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/arbiter"
)

// stepAt applies one input to a case and lets the standings hear what came of it. Preconditions: mu is held.
func (d *Docket) stepAt(e *entry, now time.Time, in arbiter.Input) actions {
	took := now.Sub(e.q.Event.Time)
	eff := e.c.Step(took, in)
	todo := d.apply(e, eff)
	if e.scan != nil { // it costs a provider nothing but work that is not urgent
		if eff.Took && in.Kind == arbiter.Lost {
			up := giveUp{e.seats[in.Voter].member.Session, e.q.Event.ID, in.Reason}
			todo.giveUps, e.early = append(todo.giveUps, up), append(e.early, up)
		}
		return todo
	}
	for _, i := range eff.Missed {
		d.missed(&todo, &e.seats[i], now, true)
	}
	if !eff.Took {
		return todo
	}
	x := &e.seats[in.Voter]
	switch {
	case in.Kind == arbiter.Voted && in.Reason == "":
		if st := x.member.Standing; st != nil {
			d.follow(&todo, x, st.answered(x.typ, now, took, x.budget))
		}
	case in.Kind == arbiter.Voted, in.Reason == event.ReasonNoCredit:
		d.missed(&todo, x, now, false)
	case in.Reason == event.ReasonBypassed:
		up := giveUp{x.member.Session, e.q.Event.ID, in.Reason}
		todo.giveUps = append(todo.giveUps, up)
		if e.sending || e.late > 0 { // it may only now be asked: deliver says it again
			e.early = append(e.early, up)
		}
	}
	return todo
}

func (d *Docket) missed(todo *actions, x *seat, now time.Time, deadline bool) {
	if st := x.member.Standing; st != nil {
		d.follow(todo, x, st.missed(x.typ, now, x.budget, deadline))
	}
}

// follow does what a change of a member's standing means for the cases that are open. Preconditions: mu is held.
func (d *Docket) follow(todo *actions, x *seat, s stir) {
	st := x.member.Standing
	todo.tell(st, s.changes)
	if s.release {
		gone := arbiter.Input{Kind: arbiter.Lost, Reason: event.ReasonBypassed}
		d.each(todo, st, gone, func(e *entry, i int) bool {
			return e.seats[i].typ == x.typ && e.seats[i].route == arbiter.Ask && e.c.Expects(i, 0)
		})
	}
	if s.relieve {
		d.each(todo, st, arbiter.Input{Kind: arbiter.Relieved}, func(*entry, int) bool { return true })
	}
}

// each applies in to every open case in which a standing's provider has a seat that is concerned. It looks at all open
// cases, but standings change seldom. Preconditions: mu is held.
func (d *Docket) each(todo *actions, st *Standing, in arbiter.Input, concerned func(e *entry, seat int) bool) {
	for _, e := range d.cases {
		for i := range e.seats {
			if e.seats[i].member.Standing == st && concerned(e, i) {
				in.Voter = i
				todo.add(d.stepLocked(e, in))
			}
		}
	}
}

// rule shows a vote that is about to count to the deny-storm breaker. If that trips, the vote counts for nothing.
// Preconditions: mu is held.
func (d *Docket) rule(e *entry, i int, now time.Time, vote event.Vote) actions {
	var todo actions
	x := &e.seats[i]
	st := x.member.Standing
	denied := vote.Action == event.Deny
	if st == nil || denied && (x.route != arbiter.Ask || x.member.mode() != event.Enforce) {
		return todo // what has no effect does no harm
	}
	version := e.q.Event.File.Version
	if denied {
		version = e.q.Version() // who changes a file while it is judged makes no provider deny what it had allowed
	}
	r := arbiter.Ruling{
		Object: maphash.Comparable(d.seed, object{version, x.typ}), Denied: denied, ByActor: x.byActor,
		Owned: denied && st.owns(&e.q.Event.File),
	}
	d.follow(&todo, x, st.ruled(r, vote.Content, now))
	return todo
}

// passed tells the deny-storm breaker of a member that its remembered vote let an object pass, so often: what is
// popular stays so though nobody asks about it. The last is the version that the vote is about.
func (d *Docket) passed(m *Member, typ event.Type, byActor bool, content string, times int, version event.Version) {
	if m.Standing == nil {
		return
	}
	r := arbiter.Ruling{Object: maphash.Comparable(d.seed, object{version, typ}), ByActor: byActor}
	now := time.Now()
	for range times {
		m.Standing.ruled(r, content, now) // what lets pass does not trip it
	}
}

// object is one version of a file as a provider was asked about it: it may allow opening what it denies to execute.
type object struct {
	version event.Version
	typ     event.Type
}
