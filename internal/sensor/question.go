package sensor

import (
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

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
	names  *names // the names of Event.File are in it, until Retain
}

// questions and rooms are used again and again: a host may open a hundred thousand files a second.
var (
	questions = sync.Pool{New: func() any { return new(Question) }}
	rooms     = sync.Pool{New: func() any { return new(names) }}
)

func newQuestion() *Question {
	q := questions.Get().(*Question) //nolint:forcetypeassert // it holds nothing else
	q.names = rooms.Get().(*names)   //nolint:forcetypeassert // it holds nothing else
	return q
}

// Retain makes the event one that can be kept: until then, its strings are only good until Free. Whoever lets go of the
// question without Free must have called it.
func (q *Question) Retain() {
	if q.names == nil {
		return
	}
	f := &q.Event.File
	f.Path, f.Handle = strings.Clone(f.Path), strings.Clone(f.Handle)
	rooms.Put(q.names)
	q.names = nil
}

// Free gives the question up for use again. Nobody may look at it, or at a string of its event, any more.
func (q *Question) Free() {
	if q.names != nil {
		rooms.Put(q.names)
	}
	*q = Question{}
	questions.Put(q)
}

// Lasting reports whether the object is one of which votes may be remembered, if nobody can write to it meanwhile.
func (q *Question) Lasting() bool { return q.keeper != nil }

// Pin makes sure that a change of the object from now on is noticed, and that it still has the version that the event
// names. It reports false where that cannot be: somebody has it open for writing, or had it since the event, and then
// what the event says of it, its size for one, may mislead who reads it. It must be called before anybody reads the
// content, and at most once.
func (q *Question) Pin() bool {
	if q.keeper == nil {
		return false
	}
	if q.era, q.pinned = q.keeper.Take(q.File); q.pinned && q.Version() != q.Event.File.Version {
		q.keeper.Release(q.File)
		q.pinned = false
	}
	return q.pinned
}

// Unchanged reports whether the object still is what it was at Pin.
func (q *Question) Unchanged() bool { return q.pinned && q.keeper.Whole(q.File) }

// Version returns the version that the object has now; that of the event where it cannot be told.
func (q *Question) Version() event.Version {
	now := q.Event.File.Version // the object behind a descriptor is always the same one
	var st unix.Statx_t
	if statx(q.File, &st) == 0 {
		now.Size = int64(st.Size)
		now.MtimeNS, now.CtimeNS = nanoseconds(st.Mtime), nanoseconds(st.Ctime)
	}
	return now
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

// noPairs is for questions whose kernel raises one event for an exec.
var noPairs pairs

// NewQuestion makes a question for a kernel other than fanotify's: a simulator or a test. The keeper may be nil.
func NewQuestion(ev event.Event, file int, to Answerer, keeper Keeper) *Question {
	q := newQuestion()
	q.Event, q.File, q.pairs, q.group, q.keeper = ev, file, &noPairs, to, keeper
	return q
}
