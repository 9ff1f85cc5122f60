// Package trail keeps the records of recent verdicts in memory, passes them to followers and to the journal.
//
// It runs behind the kernel's answers: Record never blocks, a goroutine does the rest in batches, and what does
// not fit is counted.
package trail

import (
	"sync"
	"time"

	"github.com/keepout-security/keepout/event"
)

// Bounds.
const (
	queueLen    = 8192                  // records not yet looked at
	Recent      = 4096                  // records kept for explain and events
	followLen   = 1024                  // records not yet taken by one follower
	flushEvery  = 20 * time.Millisecond // while records come in
	restAfter   = 50                    // flushes without a record before the goroutine rests
	maxFollower = 16
	syncTries   = 100 // milliseconds; under a flood there is always something queued
)

// Journal takes the records that are kept on disk. It must not block.
type Journal interface {
	Append(rec event.Record)
}

// Config is what a trail needs.
type Config struct {
	Journal Journal
	// Comm names a process, for people; it may read /proc.
	Comm func(pid int32) string
	// Keep says whether a record goes to the journal.
	Keep func(rec *event.Record) bool
}

// Trail is safe for concurrent use.
type Trail struct {
	c    Config
	wake chan struct{}
	done chan struct{}

	mu      sync.Mutex
	queue   []event.Record
	resting bool
	working bool // a batch is being kept
	closed  bool
	lost    uint64

	ringMu    sync.RWMutex
	ring      []event.Record
	next      int
	followers map[*Follower]struct{}
}

// New makes a trail and starts its goroutine, which Close ends.
func New(c Config) *Trail {
	t := &Trail{
		c: c, wake: make(chan struct{}, 1), done: make(chan struct{}), resting: true,
		followers: map[*Follower]struct{}{},
	}
	go t.work()
	return t
}

// Record queues one record.
func (t *Trail) Record(rec event.Record) {
	t.mu.Lock()
	if len(t.queue) >= queueLen || t.closed {
		t.lost++
		t.mu.Unlock()
		return
	}
	t.queue = append(t.queue, rec)
	rouse := t.resting || rec.Verdict.Outcome != event.Allowed // what matters to people is shown at once
	t.resting = false
	t.mu.Unlock()
	if rouse {
		select {
		case t.wake <- struct{}{}:
		default:
		}
	}
}

// Sync waits until what was recorded before can be found. It is for people's questions, never for the verdict path.
func (t *Trail) Sync() {
	for range syncTries {
		t.mu.Lock()
		done := len(t.queue) == 0 && !t.working || t.closed
		t.mu.Unlock()
		if done {
			return
		}
		select {
		case t.wake <- struct{}{}:
		default:
		}
		time.Sleep(time.Millisecond)
	}
}

// Lost is how many records were dropped because the queue was full.
func (t *Trail) Lost() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.lost
}

// work moves records from the queue. It polls while records come in, so that a busy host needs no wake-up for
// each, and sleeps while none do.
func (t *Trail) work() {
	defer close(t.done)
	ticker := time.NewTicker(flushEvery)
	defer ticker.Stop()
	for idle := 0; ; {
		batch, closed := t.takeQueue()
		t.keep(batch)
		t.mu.Lock()
		t.working = false
		t.mu.Unlock()
		if closed {
			return
		}
		if idle++; len(batch) > 0 {
			idle = 0
		}
		if idle < restAfter {
			select {
			case <-ticker.C:
			case <-t.wake:
			}
			continue
		}
		if !t.rest() {
			continue
		}
		ticker.Stop()
		<-t.wake
		ticker.Reset(flushEvery)
		idle = 0
	}
}

// rest reports whether there is nothing to do; then Record wakes the goroutine.
func (t *Trail) rest() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.resting = len(t.queue) == 0 && !t.closed
	return t.resting
}

func (t *Trail) takeQueue() (batch []event.Record, closed bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	batch, t.queue = t.queue, nil
	t.working = len(batch) > 0
	return batch, t.closed
}

// keep puts records where people and programs find them.
func (t *Trail) keep(batch []event.Record) {
	// One process often stands behind many records of a batch, which covers some milliseconds.
	names := map[int32]string{}
	for i := range batch {
		rec := &batch[i]
		if rec.Event.Actor.Comm == "" {
			name, known := names[rec.Event.Actor.PID]
			if !known {
				name = t.c.Comm(rec.Event.Actor.PID)
				names[rec.Event.Actor.PID] = name
			}
			rec.Event.Actor.Comm = name
		}
		if t.c.Keep(rec) {
			t.c.Journal.Append(*rec)
		}
	}
	if len(batch) == 0 {
		return
	}
	t.ringMu.Lock()
	defer t.ringMu.Unlock()
	for _, rec := range batch {
		if len(t.ring) < Recent {
			t.ring = append(t.ring, rec)
		} else {
			t.ring[t.next] = rec
		}
		t.next = (t.next + 1) % Recent
		for f := range t.followers {
			f.put(rec)
		}
	}
}

// Recent returns the kept records, oldest first, that match.
func (t *Trail) Recent(match func(rec *event.Record) bool) []event.Record {
	t.ringMu.RLock()
	defer t.ringMu.RUnlock()
	return t.recent(match)
}

// recent is Recent. Preconditions: ringMu is held.
func (t *Trail) recent(match func(rec *event.Record) bool) []event.Record {
	start := 0
	if len(t.ring) == Recent {
		start = t.next
	}
	var out []event.Record
	for i := range t.ring {
		if rec := &t.ring[(start+i)%len(t.ring)]; match(rec) {
			out = append(out, *rec)
		}
	}
	return out
}

// Close flushes what is queued and ends the goroutine.
func (t *Trail) Close() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	select {
	case t.wake <- struct{}{}:
	default:
	}
	<-t.done
}

// Follower gets every record from its start on.
type Follower struct {
	C    <-chan event.Record
	c    chan event.Record
	lost uint64
}

func (f *Follower) put(rec event.Record) {
	select {
	case f.c <- rec:
	default:
		f.lost++
	}
}

// Follow returns the kept records that match and a follower that gets every record after them, none twice and none
// left out. Unfollow removes the follower. It returns nil when there are too many.
func (t *Trail) Follow(match func(rec *event.Record) bool) ([]event.Record, *Follower) {
	c := make(chan event.Record, followLen)
	f := &Follower{C: c, c: c}
	t.ringMu.Lock()
	defer t.ringMu.Unlock()
	if len(t.followers) >= maxFollower {
		return nil, nil
	}
	t.followers[f] = struct{}{}
	return t.recent(match), f
}

// Missed is how many records a follower did not get because it was slow.
func (t *Trail) Missed(f *Follower) uint64 {
	t.ringMu.RLock()
	defer t.ringMu.RUnlock()
	return f.lost
}

// Unfollow removes a follower.
func (t *Trail) Unfollow(f *Follower) {
	t.ringMu.Lock()
	defer t.ringMu.Unlock()
	delete(t.followers, f)
}
