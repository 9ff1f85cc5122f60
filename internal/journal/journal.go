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
	queue  chan item
	done   chan struct{} // closed when the drain has ended
	now    func() time.Time
	every  time.Duration
	lost   atomic.Uint64
	head   atomic.Pointer[Head]
	spill  spill
	w      writer // the drain's alone
	result error  // set before done is closed

	mu     sync.RWMutex // orders Append before Close
	closed bool
}

// item is one thing in the queue: a record, or a note, or a barrier to answer when all before it is on disk.
type item struct {
	rec     event.Record
	note    *Note
	barrier chan<- error
}

// spill counts what found the queue full.
type spill struct {
	mu           sync.Mutex
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
		queue: make(chan item, QueueLen), done: make(chan struct{}), now: env.now, every: env.every,
	}
	j.w = writer{
		dir: dir, limits: limits, origin: env.origin, disk: env.disk, now: env.now, every: env.every,
		written: end.head, head: end.head, synced: make(chan error, 1), spilled: j.takeSpill,
		lose: func(n uint64) { j.lost.Add(n) }, publish: func(h Head) { j.head.Store(&h) },
	}
	j.w.publish(end.head)
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

// Append queues rec and never waits for the disk; when the queue is full, rec is counted as lost. The
// caller must not change rec's ballots afterwards.
func (j *Journal) Append(rec event.Record) { j.put(item{rec: rec}) }

// Note queues n as Append does.
func (j *Journal) Note(n Note) {
	if n.Time.IsZero() {
		n.Time = j.now()
	}
	j.put(item{note: &n})
}

func (j *Journal) put(it item) {
	j.mu.RLock()
	defer j.mu.RUnlock()
	if !j.closed {
		select {
		case j.queue <- it:
			return
		default:
		}
		j.spill.add(j.now())
	}
	j.lost.Add(1)
}

// Lost is how many records and notes were not kept since Open: the queue was full, the disk refused, or the
// journal was closed. What the disk loses after a failed fsync is not in it.
func (j *Journal) Lost() uint64 { return j.lost.Load() }

// Head is the end of what was written (not: synced) so far.
func (j *Journal) Head() Head { return *j.head.Load() }

// Sync waits until everything that was queued before is written and synced, and returns the error of the
// fsync. It is for commands of an operator, never for the verdict path. After Close it returns nil at once.
func (j *Journal) Sync() error {
	answer := make(chan error, 1)
	j.mu.RLock()
	if j.closed {
		j.mu.RUnlock()
		return nil
	}
	j.queue <- item{barrier: answer}
	j.mu.RUnlock()
	return <-answer
}

// Close writes what is queued, syncs and ends the journal. Its error says what could not be kept. Later calls
// return the same.
func (j *Journal) Close() error {
	j.mu.Lock()
	if !j.closed {
		j.closed = true
		close(j.queue)
	}
	j.mu.Unlock()
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
		case it, more := <-j.queue:
			if !more || !j.batch(it) {
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
		if !armed && (j.w.busy() || j.spill.any()) {
			timer.Reset(j.every)
			armed = true
		}
	}
}

// maxBatch bounds how long the drain stays away from its timer, in items.
const maxBatch = 1024

// batch writes the first item and all that wait behind it; false when the queue is closed and empty.
func (j *Journal) batch(first item) bool {
	defer j.w.flush()
	j.w.add(&first)
	for range maxBatch {
		select {
		case it, more := <-j.queue:
			if !more {
				return false
			}
			j.w.add(&it)
		default:
			return true
		}
	}
	return true
}

func (s *spill) add(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.n == 0 {
		s.since = now
	}
	s.n++
	s.until = now
}

func (s *spill) any() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.n > 0
}

// takeSpill moves the count of spilled items into l.
func (j *Journal) takeSpill(l *losses) {
	s := &j.spill
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.n == 0 {
		return
	}
	l.add(s.since, s.until)
	l.spilled += s.n
	s.n = 0
}
