package journal

import (
	"fmt"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keepout-security/keepout/event"
)

// QueueLen is how many records and notes may wait for the disk, about 3 MiB. At 20,000 records a second it
// bridges a disk that stalls for 0.4 seconds; what comes on top is counted as lost.
const QueueLen = 8192

// The bounds that Open takes where Limits has none.
const (
	DefaultFileBytes = 16 << 20
	DefaultFiles     = 8
)

// housekeepingEvery is the pause between two fsyncs, between two notes about losses, and between two
// attempts to write to a disk that refused.
const housekeepingEvery = time.Second

// Limits bounds the disk use to about FileBytes * Files.
type Limits struct {
	FileBytes int64 // a file that would grow beyond this is followed by a new one; 0 or less: DefaultFileBytes
	Files     int   // files kept, the current one included; 0 or less: DefaultFiles
}

// Head is the end of the chain. Whoever keeps a Head elsewhere can later prove that the journal was not cut.
type Head struct {
	Seq  uint64 `json:"seq"`  // number of the last line written; 0: none yet
	Hash string `json:"hash"` // hex SHA-256 of that line without its newline; 64 zeros: none yet
}

// Journal appends to the journal of one folder. Its methods may be called from several goroutines. At most
// one Journal may be open for a folder; the lock of the state folder (durable.Lock) sees to that.
type Journal struct {
	wake   chan struct{} // capacity 1: there is something in the queue, or closed is set
	done   chan struct{} // closed when the drain has ended
	now    func() time.Time
	every  time.Duration
	lost   atomic.Uint64
	w      writer // the drain's alone
	result error  // set before done is closed

	mu     sync.Mutex
	queue  []item // up to QueueLen
	spare  []item // empty: what the queue was before the drain took it
	spill  spill
	closed bool
	end    link // of what was written
}

// item is one thing in the queue: a record, or a note, or a barrier to answer when all before it is on disk.
type item struct {
	rec     event.Record
	note    *Note
	barrier chan<- error
}

// spill counts what found the queue full.
type spill struct {
	n            uint64
	since, until time.Time
}

// Open continues the journal in dir, which it creates if need be (mode 0750). A torn last line is cut off
// and a journal.recovered note says so; other damage is left as it is, for Verify to name.
func Open(dir string, limits Limits) (*Journal, error) {
	return open(dir, limits, environment{
		disk: osDisk{}, origin: Here(), now: time.Now, every: housekeepingEvery,
	})
}

// environment is what tests replace.
type environment struct {
	disk   disk
	origin Origin
	now    func() time.Time
	every  time.Duration
}

func open(dir string, limits Limits, env environment) (*Journal, error) {
	if limits.FileBytes <= 0 {
		limits.FileBytes = DefaultFileBytes
	}
	if limits.Files <= 0 {
		limits.Files = DefaultFiles
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	end, err := resume(dir)
	if err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	j := &Journal{
		wake: make(chan struct{}, 1), done: make(chan struct{}), now: env.now, every: env.every, end: end.head.link(),
	}
	j.w = writer{
		dir: dir, limits: limits, origin: env.origin, disk: env.disk, now: env.now, every: env.every,
		enc: newEncoder(env.origin), written: j.end, head: j.end, synced: make(chan error, 1), spilled: j.takeSpill,
		lose: func(n uint64) { j.lost.Add(n) }, publish: j.publish,
	}
	if end.path != "" && end.size < limits.FileBytes {
		if j.w.file, err = env.disk.open(end.path); err != nil {
			return nil, fmt.Errorf("open journal: %w", err)
		}
		j.w.size = end.size
	}
	if end.torn > 0 {
		j.w.notes = append(j.w.notes, recovered(env.now(), end))
	}
	if err := prune(dir, limits.Files); err != nil {
		j.w.note(CodePruneFailed, "An old journal file could not be removed", err.Error())
	}
	go j.drain()
	return j, nil
}

// Here is the origin of what this process writes: its host name, and its version as the go command recorded
// it.
func Here() Origin {
	var o Origin
	o.Host, _ = os.Hostname() // without a name the line is still worth having
	if info, ok := debug.ReadBuildInfo(); ok {
		o.Version = info.Main.Version
	}
	return o
}

// Append queues records and never waits for the disk; those that find the queue full are counted as lost. What is
// given in one call is written in one go as far as it fits: the disk, and the goroutine that writes, are asked once.
// The caller must not change the records' ballots afterwards.
func (j *Journal) Append(recs ...event.Record) {
	j.mu.Lock()
	for i := range recs {
		if it := j.place(); it != nil {
			it.rec = recs[i]
		}
	}
	j.mu.Unlock()
	j.rouse()
}

// Note queues n as Append does.
func (j *Journal) Note(n Note) {
	if n.Time.IsZero() {
		n.Time = j.now()
	}
	j.mu.Lock()
	if it := j.place(); it != nil {
		it.note = &n
	}
	j.mu.Unlock()
	j.rouse()
}

// place is a new place in the queue, or nil when there is none: then what should take it is lost. Preconditions: mu is
// held.
func (j *Journal) place() *item {
	if !j.closed && len(j.queue) < QueueLen {
		j.queue = append(j.queue, item{})
		return &j.queue[len(j.queue)-1]
	}
	if !j.closed {
		j.spill.add(j.now())
	}
	j.lost.Add(1)
	return nil
}

// rouse wakes the drain. Preconditions: mu is not held.
func (j *Journal) rouse() {
	select {
	case j.wake <- struct{}{}:
	default: // it has yet to look
	}
}

// Lost is how many records and notes were not kept since Open: the queue was full, the disk refused, or the
// journal was closed. What the disk loses after a failed fsync is not in it.
func (j *Journal) Lost() uint64 { return j.lost.Load() }

// Head is the end of what was written (not: synced) so far.
func (j *Journal) Head() Head {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.end.head()
}

func (j *Journal) publish(end link) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.end = end
}

// Sync waits until everything that was queued before is written and synced, and returns the error of the
// fsync. It is for commands of an operator, never for the verdict path. After Close it returns nil at once.
func (j *Journal) Sync() error {
	answer := make(chan error, 1)
	j.mu.Lock()
	if j.closed {
		j.mu.Unlock()
		return nil
	}
	j.queue = append(j.queue, item{barrier: answer}) // also into a full one: there are no more of these than operators
	j.mu.Unlock()
	j.rouse()
	return <-answer
}

// Close writes what is queued, syncs and ends the journal. Its error says what could not be kept. Later calls
// return the same.
func (j *Journal) Close() error {
	j.mu.Lock()
	j.closed = true
	j.mu.Unlock()
	j.rouse()
	<-j.done
	return j.result
}

// drain is the one goroutine that writes.
func (j *Journal) drain() {
	defer close(j.done)
	timer := time.NewTimer(0) // what Open found is told at once
	armed := true
	for {
		select {
		case <-j.wake:
			if !j.batch() {
				j.result = j.w.end()
				return
			}
		case err := <-j.w.synced:
			j.w.syncEnded(err)
		case <-timer.C:
			armed = false
			j.w.tick()
		}
		// An idle journal does not wake up the machine.
		if !armed && (j.w.busy() || j.spilled()) {
			timer.Reset(j.every)
			armed = true
		}
	}
}

// keptItems is how long a queue may have been to be used again.
const keptItems = 1024

// batch writes all that is in the queue; false when the journal is closed, and so nothing more will be.
func (j *Journal) batch() (more bool) {
	j.mu.Lock()
	items := j.queue
	j.queue, j.spare = j.spare, nil
	more = !j.closed
	j.mu.Unlock()
	for i := range items {
		j.w.add(&items[i])
	}
	j.w.flush()
	if cap(items) <= keptItems {
		clear(items) // of what they hold on to
		j.mu.Lock()
		j.spare = items[:0]
		j.mu.Unlock()
	}
	return more
}

func (s *spill) add(now time.Time) {
	if s.n == 0 {
		s.since = now
	}
	s.n++
	s.until = now
}

func (j *Journal) spilled() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.spill.n > 0
}

// takeSpill moves the count of spilled items into l.
func (j *Journal) takeSpill(l *losses) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.spill.n == 0 {
		return
	}
	l.add(j.spill.since, j.spill.until)
	l.spilled += j.spill.n
	j.spill.n = 0
}
