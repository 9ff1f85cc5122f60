package docket

import (
	"sync"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/sensor"
)

// What a question needs is used again for the next ones, so that asking allocates nothing in steady state.
const (
	few       = 4    // actions of a kind that come of one step
	maxSpare  = 1024 // entries
	ballotsIn = 128  // one piece of memory; whoever keeps a record keeps its piece
)

// room holds slices of few places.
type room[T any] struct{ pool sync.Pool }

func newRoom[T any]() *room[T] { return &room[T]{sync.Pool{New: func() any { return new([few]T) }}} }

func (r *room[T]) get() []T { return r.pool.Get().(*[few]T)[:0] } //nolint:forcetypeassert // it holds nothing else

// put takes back what get gave out; what has grown is left to the collector.
func (r *room[T]) put(s []T) {
	if cap(s) != few {
		return
	}
	s = s[:few]
	clear(s)
	r.pool.Put((*[few]T)(s))
}

var (
	answers = newRoom[answer]()
	ends    = newRoom[ending]()
	records = newRoom[event.Record]()
)

// newEntry returns an entry for a question that n members are asked. Preconditions: mu is held.
func (d *Docket) newEntry(q *sensor.Question, n int) *entry {
	var e *entry
	if last := len(d.spare) - 1; last >= 0 {
		e, d.spare = d.spare[last], d.spare[:last]
		// Only now is it sure that nobody who held the lock looks at either any more.
		e.q.Drop()
		joined := e.joined[:0]
		*e = entry{joined: joined}
	} else {
		e = new(entry)
	}
	e.q, e.sending, e.copy = q, true, -1
	if e.seats = e.seatRoom[:]; n > len(e.seatRoom) {
		e.seats = make([]seat, n)
	}
	e.seats = e.seats[:n]
	return e
}

// release gives an entry up for use again once nothing more happens to it. It stays as it is until then.
// Preconditions: mu is held.
func (d *Docket) release(e *entry) {
	if e.filed && !e.sending && e.late == 0 && !e.hashing && len(d.spare) < maxSpare && !e.spared {
		e.spared = true
		clear(e.joined)
		d.spare = append(d.spare, e)
	}
}

// newBallots returns ballots that belong to a record. Preconditions: mu is held.
func (d *Docket) newBallots(n int) []event.Ballot {
	if n > ballotsIn {
		return make([]event.Ballot, n)
	}
	if n > len(d.ballots) {
		d.ballots = make([]event.Ballot, ballotsIn)
	}
	out := d.ballots[:n:n]
	d.ballots = d.ballots[n:]
	return out
}
