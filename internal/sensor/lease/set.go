package lease

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/event"
)

// Bounds.
const (
	MaxBytes  = 1 << 20               // size of an object: what is unlinked meanwhile keeps its space
	keptBytes = 1 << 30               // of all together
	KeptFor   = 10 * time.Second      // then the next open is asked about again, and answered from the core's memory
	look      = 25 * time.Millisecond // a fraction of any stall limit, because each look is a beat
	perTurn   = 64                    // kept objects that are let go before anybody else has a turn
)

// Marker sets and takes away the marks; *fanotify.Group is one.
type Marker interface {
	Ignore(file int) error
	Heed(file int) error
	HeedAll() error
}

// Config is what a Set needs.
type Config struct {
	Marker Marker
	// MaxEvent is above every descriptor number that an event can have; what is kept moves to the numbers from there
	// on, of which MaxKept must be allowed by RLIMIT_NOFILE. Each pins about 2 KiB of the kernel's memory.
	MaxEvent, MaxKept int
	// Held is called with the number of kept objects when it changes from or to 0, and Beat regularly while there are
	// any: whoever watches this process must know that somebody may wait for it. Both must not block.
	Held func(kept int)
	Beat func()
}

// What an event's descriptor is to the set.
const (
	free   uint32 = iota
	taken         // a lease is held for its question
	broken        // it was, and somebody waited for it
)

// Set holds leases and marks. It is safe for concurrent use.
type Set struct {
	c      Config
	tid    int32
	breaks int
	wake   int // eventfd: something is kept, or the set closes

	events []atomic.Uint32 // by descriptor number
	era    atomic.Uint64   // grows with each Flush, with mu held

	mu     sync.Mutex
	off    bool // nothing is kept
	kept   map[int]object
	order  []place   // of the kept ones, the oldest first; may name some that are gone
	fresh  time.Time // when the last Flush was; what was kept before it is let go
	bytes  int64
	closed bool
	done   chan struct{}

	seeing sync.RWMutex // locked last, and never while anything waits
	where  map[id]int   // the kept ones that Kept tells of, by what they are

	marked, broke atomic.Uint64
	now           atomic.Int64 // kept objects
	watched       atomic.Int64 // and what is held without an event
}

// object is one that the kernel remembers.
type object struct {
	id    id
	size  int64
	since time.Time
}

// id names an object while it is open.
type id struct{ dev, ino uint64 }

// place is a kept object's place in the order.
type place struct {
	own   int
	since time.Time // numbers are used again
}

// New makes an empty set and starts its thread, which Close ends.
func New(c Config) (*Set, error) {
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	s := &Set{
		c: c, wake: wake, events: make([]atomic.Uint32, c.MaxEvent), kept: map[int]object{}, where: map[id]int{},
		done: make(chan struct{}),
	}
	ready := make(chan error)
	go s.watch(ready)
	if err := <-ready; err != nil {
		_ = unix.Close(wake)
		return nil, err
	}
	return s, nil
}

// Take takes a lease for the question that came with descriptor file, and returns the era in which it was asked. It
// must be called before anybody reads the content, and is followed by exactly one of Keep and Release. False means that
// a writer has the object open, or that there are no leases here: what is voted now must not be remembered.
func (s *Set) Take(file int) (era uint64, ok bool) {
	if file < 0 || file >= len(s.events) {
		return 0, false
	}
	era = s.era.Load()
	s.events[file].Store(taken) // before the lease, because it may be broken at once
	if acquire(file, s.tid) {
		return era, true
	}
	s.events[file].Store(free)
	return 0, false
}

// Room reports whether Keep has room for an object of this size.
func (s *Set) Room(size int64) bool {
	return size <= MaxBytes && s.now.Load() < int64(s.c.MaxKept)
}

// Whole reports whether nobody has changed the object since Take, nor can have.
func (s *Set) Whole(file int) bool { return s.events[file].Load() == taken && whole(file) }

// Release gives the lease up. The descriptor stays the caller's.
func (s *Set) Release(file int) {
	giveUp(file)
	s.events[file].Store(free)
}

// Keep makes the kernel remember that the object may be opened, and reports whether it does: not what was asked in an
// earlier era. The lease is the set's from then on; the descriptor stays the caller's. After false the caller still has
// to Release.
func (s *Set) Keep(file int, of *event.Version, era uint64, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	size := of.Size
	full := len(s.kept) >= s.c.MaxKept || size > MaxBytes || s.bytes+size > keptBytes
	// Whether the lease is whole is asked at the end, when it counts; here it is enough that nothing was heard yet.
	if s.closed || s.off || full || era != s.era.Load() || s.events[file].Load() != taken {
		return false
	}
	own, err := unix.FcntlInt(uintptr(file), unix.F_DUPFD_CLOEXEC, len(s.events))
	if err != nil {
		return false
	}
	s.add(own, object{id{of.Dev, of.Ino}, size, now})
	// Taking it again makes the kernel name the new number when it is broken. If it was broken under the old one, it is
	// given up by now, perhaps the writer has come and gone, and this is another lease: the old number's state tells.
	if !setLease(own, unix.F_RDLCK) || s.c.Marker.Ignore(own) != nil || !s.Whole(file) {
		_ = s.c.Marker.Heed(own) // there may be none
		s.remove(own)
		_ = unix.Close(own) // the lease is still the caller's
		return false
	}
	s.events[file].Store(free)
	s.marked.Add(1)
	s.seeing.Lock()
	s.where[s.kept[own].id] = own
	s.seeing.Unlock()
	return true
}

// Kept reports whether the kernel remembers the object now. It does not wait for anybody.
func (s *Set) Kept(of *event.Version) bool {
	if s.now.Load() == 0 {
		return false
	}
	s.seeing.RLock()
	defer s.seeing.RUnlock()
	_, kept := s.where[id{of.Dev, of.Ino}]
	return kept
}

// Switch says whether anything is kept; at first it is.
func (s *Set) Switch(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.off = !on; s.off {
		s.flush()
	}
}

// Flush makes the kernel forget everything and begins a new era. When it returns, every open is an event again; the
// leases are given up soon after.
func (s *Set) Flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flush()
}

// flush takes the marks away, which is one call, and leaves it to the thread to let go of the leases: that takes
// milliseconds, and the readers would wait. Preconditions: mu is held.
func (s *Set) flush() {
	s.era.Add(1)
	if len(s.kept) == 0 {
		return
	}
	_ = s.c.Marker.HeedAll() // it cannot fail on a group that is open
	s.fresh = time.Now()
	s.seeing.Lock()
	clear(s.where)
	s.seeing.Unlock()
	s.rouse()
}

// Close flushes and ends the thread.
func (s *Set) Close() {
	s.mu.Lock()
	s.flush()
	for own := range s.kept {
		s.remove(own)
		giveUp(own)
		_ = unix.Close(own)
	}
	s.order = nil
	s.closed = true
	s.mu.Unlock()
	s.rouse()
	<-s.done
	_ = unix.Close(s.wake)
}

// Counters say what the kernel remembers.
type Counters struct {
	Kept   int    `json:"kept"`   // objects, now
	Marked uint64 `json:"marked"` // so far
	Broken uint64 `json:"broken"` // leases that a writer wanted
}

// Counters returns a snapshot.
func (s *Set) Counters() Counters {
	return Counters{Kept: int(s.now.Load()), Marked: s.marked.Load(), Broken: s.broke.Load()}
}

// add and remove: preconditions: mu is held.
func (s *Set) add(own int, o object) {
	s.kept[own] = o
	s.order = append(s.order, place{own, o.since})
	s.bytes += o.size
	s.now.Add(1)
	s.attend(1)
}

// Hold says that a lease is held although nobody waits for an event, until it is called again with false: a writer who
// wants it may then wait for this process, which nothing else would show.
func (s *Set) Hold(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if on {
		s.attend(1)
	} else {
		s.attend(-1)
	}
}

// attend counts what a writer may wait for. Preconditions: mu is held.
func (s *Set) attend(n int64) {
	switch left := s.watched.Add(n); {
	case left == 0:
		s.c.Held(0)
	case left == 1 && n > 0:
		s.c.Held(1)
		if !s.closed { // nothing is at that number any more
			s.rouse()
		}
	}
}

func (s *Set) remove(own int) {
	o := s.kept[own]
	s.bytes -= o.size
	delete(s.kept, own)
	s.seeing.Lock()
	if s.where[o.id] == own { // another question may have kept it again
		delete(s.where, o.id)
	}
	s.seeing.Unlock()
	s.now.Add(-1)
	s.attend(-1)
}

// letGo makes the kernel forget one object. Preconditions: mu is held.
func (s *Set) letGo(own int) {
	if s.where[s.kept[own].id] == own { // otherwise there is none, or it is that of who kept the object again
		_ = s.c.Marker.Heed(own) // the kernel may have dropped the mark itself
	}
	s.remove(own)
	giveUp(own) // after the mark: now a writer may go on
	_ = unix.Close(own)
}

func (s *Set) rouse() {
	one := [8]byte{1}
	_, _ = unix.Write(s.wake, one[:]) // cannot fail: the counter is far from full
}

// watch is the thread that is told of broken leases, and lets go of what was kept long enough.
func (s *Set) watch(ready chan<- error) {
	defer close(s.done)
	runtime.LockOSThread() // it ends with the goroutine: its signals are blocked
	fd, err := breaks()
	if err != nil {
		ready <- err
		return
	}
	defer func() { _ = unix.Close(fd) }()
	s.breaks, s.tid = fd, int32(unix.Gettid())
	ready <- nil
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}, {Fd: int32(s.wake), Events: unix.POLLIN}}
	for more := false; ; {
		timeout := -1
		switch {
		case more:
			timeout = 0
		case s.watched.Load() > 0:
			timeout = int(look / time.Millisecond)
		}
		_, _ = unix.Poll(poll, timeout) // whatever woke us, everything is looked at
		var drain [8]byte
		_, _ = unix.Read(s.wake, drain[:])
		s.yieldAll()
		if s.watched.Load() > 0 {
			s.c.Beat()
		}
		var closed bool
		if more, closed = s.expire(time.Now()); closed {
			return
		}
	}
}

// yieldAll gives up what others wait for.
func (s *Set) yieldAll() {
	var b [16 * 128]byte // struct signalfd_siginfo has 128 bytes
	for {
		n, err := unix.Read(s.breaks, b[:])
		if err != nil || n <= 0 {
			return
		}
		for rest := b[:n]; len(rest) >= 128; rest = rest[128:] {
			if file, named := parseBreak(rest); named {
				s.yield(file)
			} else {
				s.yieldLost()
			}
		}
	}
}

// yield gives up one lease that somebody waits for. A number that meanwhile stands for another object loses that one's
// lease, which costs no more than a question.
func (s *Set) yield(file int) {
	s.broke.Add(1)
	if file >= 0 && file < len(s.events) {
		if s.events[file].CompareAndSwap(taken, broken) {
			giveUp(file)
		}
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.kept[file]; ok {
		s.letGo(file)
	}
}

// yieldLost looks for broken leases whose signals were lost.
func (s *Set) yieldLost() {
	for file := range s.events {
		if s.events[file].Load() == taken && !whole(file) && s.events[file].CompareAndSwap(taken, broken) {
			giveUp(file)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for own := range s.kept {
		if !whole(own) {
			s.letGo(own)
		}
	}
}

// expire lets go of the oldest, and reports whether there may be more and whether the set is closed. There may be
// thousands, and meanwhile readers want to keep what they answered, and writers what is kept: so it takes turns.
func (s *Set) expire(now time.Time) (more, closed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for range perTurn {
		if len(s.order) == 0 {
			return false, s.closed
		}
		p := s.order[0]
		if now.Sub(p.since) < KeptFor && p.since.After(s.fresh) {
			return false, s.closed
		}
		s.order = s.order[1:]
		if o, ok := s.kept[p.own]; ok && o.since.Equal(p.since) {
			s.letGo(p.own)
		}
	}
	return true, s.closed
}
