package docket

import (
	"slices"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/arbiter"
	"github.com/keepout-security/keepout/internal/sensor"
)

// Busy reports whether anybody waits for a verdict.
func (d *Docket) Busy() bool { return d.waiting.Load() > 0 }

// Offer implements sensor.Prescanner: it asks those whose votes can be remembered about a file that nobody has opened
// yet, so that the first who does finds them. Nobody gets an answer, and there is no record. Denials are not
// remembered: who opens the file asks again, and then the denial takes effect, is recorded and counts for the
// deny-storm breaker.
func (d *Docket) Offer(q *sensor.Question) {
	var places [maxAsked]question
	asked := d.panel.Load().ask(q, places[:0])
	d.recollect(q, asked)
	asked = slices.DeleteFunc(asked, func(a question) bool {
		st := a.member.Standing
		return !a.memory.lasting || a.memory.known || a.member.Session == nil || st != nil && !st.sound(a.typ)
	})
	q.Retain()
	q.NobodyWaits()
	// Memory is for hosts on which somebody waits for votes.
	useful := len(asked) > 0 && q.Lasting() && d.ruling.Policy().Mode == event.Enforce && q.Pin()
	d.mu.Lock()
	if !useful || d.closing || d.waiting.Load() > 0 || d.scan != nil {
		d.mu.Unlock()
		q.End(false)
		q.Drop()
		return
	}
	over := make(chan struct{})
	e := d.newEntry(q, len(asked))
	e.scan, e.pinned, e.due = over, true, true
	d.scan = e
	todo := d.open(e, asked)
	d.mu.Unlock()
	todo.run()
	d.rouse()
	d.deliver(e, asked)
	<-over
}

// interrupt cancels the offer that is being looked at if it is about the object of q, for which somebody waits now.
// Preconditions: mu is held.
func (d *Docket) interrupt(q *sensor.Question) (todo actions) {
	e := d.scan
	if e == nil || e.q.Event.File.Ino != q.Event.File.Ino || e.q.Event.File.Dev != q.Event.File.Dev {
		return todo
	}
	d.counts.Interrupted.Add(1)
	for i := range e.seats {
		todo.add(d.stepLocked(e, arbiter.Input{Kind: arbiter.Lost, Voter: i, Reason: event.ReasonCancelled}))
	}
	return todo
}

// scanned ends an offer. Preconditions: mu is held, and its case is closed.
func (d *Docket) scanned(e *entry) actions {
	v := e.c.Verdict()
	d.remember(e, &v)
	for i := range v.Ballots {
		if v.Ballots[i].Reason == event.ReasonVoted {
			d.counts.Prescanned.Add(1)
			break
		}
	}
	e.over, d.scan = true, nil
	close(e.scan)
	d.release(e)
	return actions{ends: []ending{{q: e.q}}}
}
