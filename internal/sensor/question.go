package sensor

import (
	"time"

	"github.com/keepout-security/keepout/event"
)

// Answerer tells the kernel what becomes of the caller whose event carries descriptor file.
type Answerer interface {
	Answer(file int, allow bool) error
}

// Keeper pins objects while they are judged, and makes the kernel remember; lease.Set is one, and says what its methods
// mean.
type Keeper interface {
	Room(size int64) bool
	Take(file int) (era uint64, ok bool)
	Whole(file int) bool
	Keep(file int, size int64, era uint64, now time.Time) bool
	Release(file int)
}

// Question is one caller that the kernel holds until Tell.
type Question struct {
	Event event.Event
	File  int // read-only descriptor of the object, open until End

	// WithOpen says that opens of this object are judged too, and that the open half of this exec will be
	// answered by the same verdict: who only wants to see opens must be asked now.
	WithOpen bool

	pairs  *pairs
	group  Answerer
	keeper Keeper // nil for an object that nothing may be remembered of
	era    uint64
	pinned bool
}

// Lasting reports whether the object is one of which votes may be remembered, if nobody can write to it meanwhile.
func (q *Question) Lasting() bool { return q.keeper != nil }

// Pin makes sure that a change of the object from now on is noticed, and reports whether it can be: not while somebody
// has it open for writing. It must be called before anybody reads the content, and at most once.
func (q *Question) Pin() bool {
	if q.keeper != nil {
		q.era, q.pinned = q.keeper.Take(q.File)
	}
	return q.pinned
}

// Unchanged reports whether the object still is what it was at Pin.
func (q *Question) Unchanged() bool { return q.pinned && q.keeper.Whole(q.File) }

// Same reports whether the object still has the version that the event names. After Pin that holds until Unchanged is
// false.
func (q *Question) Same() bool { return q.Version() == q.Event.File.Version }

// Version returns the version that the object has now; that of the event where it cannot be told.
func (q *Question) Version() event.Version {
	obj, err := identify(q.File)
	if err != nil {
		return q.Event.File.Version
	}
	return obj.Version
}

// Keepable reports whether End can make the kernel remember this object, as far as is known before Pin.
func (q *Question) Keepable() bool {
	return q.keeper != nil && q.Event.Type == event.Open && q.keeper.Room(q.Event.File.Size)
}

// Tell gives the kernel the answer. It must be called exactly once, from any goroutine, and before End. An error means
// that it was answered before, which nothing here does.
func (q *Question) Tell(allow bool) error {
	if allow && q.WithOpen {
		q.pairs.expect(&q.Event)
	}
	return q.group.Answer(q.File, allow)
}

// End closes the descriptor. With remember, the kernel is to allow further opens of the pinned object by itself; it is
// not sure that it will.
func (q *Question) End(remember bool) {
	if q.pinned && (!remember || !q.keeper.Keep(q.File, q.Event.File.Size, q.era, time.Now())) {
		q.keeper.Release(q.File)
	}
	closeFD(q.File)
}

// Answer is Tell and End, for a question that nobody was asked about.
func (q *Question) Answer(allow bool) error {
	err := q.Tell(allow)
	q.End(false)
	return err
}

// NewQuestion makes a question for a kernel other than fanotify's: a simulator or a test. The keeper may be nil.
func NewQuestion(ev event.Event, file int, to Answerer, keeper Keeper) *Question {
	return &Question{Event: ev, File: file, pairs: new(pairs), group: to, keeper: keeper}
}
