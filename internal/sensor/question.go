package sensor

import (
	"strings"
	"sync"
	"sync/atomic"
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
	Keep(file int, of *event.Version, era uint64, now time.Time) bool
	Kept(of *event.Version) bool
	Release(file int)
	Hold(on bool)
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
	timed  bool   // every change of the object is seen in its version
	era    uint64
	pinned bool
	names  *names // the names of Event.File are in it, until Retain

	remember bool // with ending
	done     atomic.Uint32
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
	p := pieces.Get().(*piece) //nolint:forcetypeassert // it holds nothing else
	f.Path, f.Handle = p.keep(f.Path), p.keep(f.Handle)
	pieces.Put(p)
	rooms.Put(q.names)
	q.names = nil
}

// Free gives the question up for use again. Nobody may look at it, or at a string of its event, any more.
func (q *Question) Free() {
	if q.names != nil {
		rooms.Put(q.names)
	}
	q.reset()
	questions.Put(q)
}

func (q *Question) reset() {
	q.Event, q.File, q.WithOpen = event.Event{}, 0, false
	q.pairs, q.group, q.keeper, q.names = nil, nil, nil, nil
	q.era, q.pinned, q.timed, q.remember = 0, false, false, false
	q.done.Store(0)
}

// What has happened to a question.
const (
	told    uint32 = 1 << iota // the kernel has its answer
	ending                     // its descriptor is to be closed
	ended                      // it is
	dropped                    // nobody looks at it any more
)

// did notes that something has happened, and does what comes when the last of several threads has done its part: the
// descriptor is closed after the answer, because the kernel knows the event by its number, and another event may have
// that number at once.
func (q *Question) did(what uint32) {
	before := q.done.Or(what)
	now := before | what
	const both = told | ending
	if now&both == both && before&both != both {
		q.close()
		before = q.done.Or(ended)
		now = before | ended
	}
	const all = ended | dropped
	if now&all == all && before&all != all {
		q.Free()
	}
}

// NobodyWaits says that there will be no Tell.
func (q *Question) NobodyWaits() { q.did(told) }

// Drop is for whoever is the last to look at the question: it is used again once it is answered and has ended. Retain
// must have been called.
func (q *Question) Drop() { q.did(dropped) }

func (q *Question) close() {
	if q.pinned && (!q.remember || !q.keeper.Keep(q.File, &q.Event.File.Version, q.era, time.Now())) {
		q.keeper.Release(q.File)
	}
	closeFD(q.File)
}

// piece is memory for the strings of many events.
type piece struct{ free []byte }

// pieceSize is how much of it, in bytes: about a hundred events.
const pieceSize = 16 << 10

var pieces = sync.Pool{New: func() any { return new(piece) }}

// keep returns a copy of s that may be kept, which keeps the piece that it lies in.
func (p *piece) keep(s string) string {
	if len(s) == 0 || len(s) > pieceSize/4 {
		return strings.Clone(s)
	}
	if len(s) > len(p.free) {
		p.free = make([]byte, pieceSize)
	}
	n := copy(p.free, s)
	kept := text(p.free[:n:n]) // nobody writes there again
	p.free = p.free[n:]
	return kept
}

// Pinnable reports whether the object is one that Pin can watch, as far as is known before.
func (q *Question) Pinnable() bool { return q.keeper != nil }

// Lasting reports whether what was found out about the object while it was pinned stays true of this version of it.
func (q *Question) Lasting() bool { return q.keeper != nil && q.timed }

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
	if q.keeper != nil {        // a local file system: nobody has to be told not to ask a server
		var st unix.Stat_t
		if unix.Fstat(q.File, &st) == nil { // without the path that statx(2) first looks for
			now.Size, now.MtimeNS, now.CtimeNS = st.Size, st.Mtim.Nano(), st.Ctim.Nano()
		}
		return now
	}
	var st unix.Statx_t
	if statx(q.File, &st) == 0 {
		now.Size = int64(st.Size)
		now.MtimeNS, now.CtimeNS = nanoseconds(st.Mtime), nanoseconds(st.Ctime)
	}
	return now
}

// Keepable reports whether End can make the kernel remember that this object may be opened, as far as is known before
// Pin. Of an exec that is its open half, where opens are judged.
func (q *Question) Keepable() bool {
	return q.keeper != nil && (q.Event.Type == event.Open || q.WithOpen) && q.keeper.Room(q.Event.File.Size)
}

// Kept reports whether the kernel remembers that already.
func (q *Question) Kept() bool { return q.keeper != nil && q.keeper.Kept(&q.Event.File.Version) }

// Tell gives the kernel the answer. It must be called exactly once, from any goroutine, and before End. An error means
// that it was answered before, which nothing here does.
func (q *Question) Tell(allow bool) error {
	if allow && q.WithOpen && !q.Kept() { // of what is kept there is no second event
		q.pairs.expect(&q.Event, time.Now())
	}
	err := q.group.Answer(q.File, allow)
	q.did(told)
	return err
}

// End closes the descriptor, after Tell where that comes later. With remember, the kernel is to allow further opens of
// the pinned object by itself; it is not sure that it will.
func (q *Question) End(remember bool) {
	q.remember = remember
	q.did(ending)
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
	q.Event, q.File, q.pairs, q.group, q.keeper, q.timed = ev, file, &noPairs, to, keeper, true
	return q
}
