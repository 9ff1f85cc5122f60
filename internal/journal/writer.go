package journal

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/keepout-security/keepout/event"
)

// batchBytes is how much is collected before it is written at once while the queue does not run dry.
const batchBytes = 64 << 10

// writer forms the chain and writes it. It belongs to the drain alone and has no locks.
//
// Lines are chained into buf ahead of writing them (head). When the disk refuses, the whole batch is given
// up and the chain continues from what is truly written (written), so that a loss never breaks the chain.
type writer struct {
	dir    string
	limits Limits
	origin Origin
	disk   disk
	now    func() time.Time
	every  time.Duration

	enc     *encoder
	buf     []byte
	items   uint64 // queue items in buf
	head    link   // the end of buf
	written link   // the end of the file

	file   file  // nil: the next write creates one
	size   int64 // bytes of whole lines in file
	broken bool  // file may hold a part of a line beyond size

	notes     []Note // our own, to be written at the next opportunity
	lost      losses // to be told at the next opportunity
	told      int    // how many of notes are in buf
	toldLoss  bool   // lost is in buf
	lossNoted time.Time
	failedAt  time.Time // zero: the last write went well

	dirty   bool       // written since the last fsync began
	syncing bool       // an fsync runs; its result comes over synced
	synced  chan error // capacity 1
	unsafe  bool       // the last fsync failed

	spilled func(l *losses)
	lose    func(n uint64)
	publish func(end link)
}

// link is the end of the chain, which the next line repeats. The zero value is outside the journal.
type link struct {
	seq  uint64
	hash [2 * sha256.Size]byte // in hex
}

func (l *link) known() bool { return l.hash[0] != 0 }

// next is the link behind line, which has no newline.
func (l *link) next(line []byte) (end link) {
	sum := sha256.Sum256(line)
	end.seq = l.seq + 1
	hex.Encode(end.hash[:], sum[:])
	return end
}

func (h Head) link() (l link) {
	l.seq = h.Seq
	copy(l.hash[:], h.Hash)
	return l
}

func (l *link) head() Head { return Head{Seq: l.seq, Hash: string(l.hash[:])} }

// add chains one item into buf, and writes when buf is full or the file is.
func (w *writer) add(it *item) {
	if it.barrier != nil {
		w.flush()
		it.barrier <- w.syncNow()
		return
	}
	if !w.failedAt.IsZero() && w.now().Sub(w.failedAt) < w.every {
		w.giveUp(1)
		return
	}
	if len(w.buf) == 0 {
		w.tell()
	}
	switch {
	case it.note != nil:
		w.chain([]Object{it.note.OCSF(w.origin)}, 1)
	case it.rec.Event.Type.Valid():
		w.record(&it.rec)
	}
	if len(w.buf) >= batchBytes {
		w.flush()
	}
}

// record appends the line of a record to buf, and the finding that may belong to it.
func (w *writer) record(rec *event.Record) {
	start, before := len(w.buf), w.head
	w.buf = w.enc.appendActivity(w.buf, rec, w.head)
	w.head = w.head.next(w.buf[start : len(w.buf)-1])
	if detected(rec) && !w.objects(OCSF(*rec, w.origin)[1:]) {
		w.giveBack(start, before, 1)
		return
	}
	w.fit(start, before, 1)
}

// chain appends lines that belong together to buf. They stand for so many queue items.
func (w *writer) chain(objects []Object, items uint64) {
	start, before := len(w.buf), w.head
	if !w.objects(objects) {
		w.giveBack(start, before, items)
		return
	}
	w.fit(start, before, items)
}

// objects appends lines to buf, or a part of them when it returns false.
func (w *writer) objects(objects []Object) bool {
	for i := range objects {
		o, from := &objects[i], len(w.buf)
		o.Metadata.Sequence, o.Unmapped.Keepout.Seq = w.head.seq+1, w.head.seq+1
		o.Unmapped.Keepout.Prev = string(w.head.hash[:])
		var err error
		if w.buf, err = w.enc.appendLine(w.buf, o); err != nil {
			w.lost.err = err
			return false
		}
		w.head = w.head.next(w.buf[from : len(w.buf)-1])
	}
	return true
}

// giveBack takes lines out of buf that could not be encoded. It cannot happen with these types; if it does, these items
// are lost and no other.
func (w *writer) giveBack(start int, before link, items uint64) {
	w.buf, w.head = w.buf[:start], before
	w.giveUp(items)
}

// fit sees to it that the lines from start on, which belong together, are in one file. The link before them is before.
func (w *writer) fit(start int, before link, items uint64) {
	w.items += items
	if w.size+int64(len(w.buf)) <= w.limits.FileBytes || w.size+int64(start) == 0 {
		return
	}
	// These lines do not fit any more: what is before them completes the file, they begin the next.
	if w.write(start, before) {
		w.items = items
		w.rotate()
	}
}

// flush writes buf.
func (w *writer) flush() {
	if len(w.buf) > 0 {
		w.write(len(w.buf), w.head)
	}
}

// write brings the first n bytes of buf, which end with the line upTo, to the file. When that fails, all of
// buf is given up. With n = 0 it only makes sure that the file is whole.
func (w *writer) write(n int, upTo link) bool {
	if err := w.tryWrite(w.buf[:n]); err != nil {
		w.failedAt = w.now()
		items := w.items
		w.buf, w.items, w.head = w.buf[:0], 0, w.written
		w.told, w.toldLoss = 0, false
		w.count(items, err)
		return false
	}
	if n == 0 {
		return true
	}
	w.size += int64(n)
	w.buf = w.buf[:copy(w.buf, w.buf[n:])]
	w.items, w.written, w.dirty, w.failedAt = 0, upTo, true, time.Time{}
	w.notes, w.told = w.notes[w.told:], 0
	if w.toldLoss {
		w.toldLoss, w.lost = false, losses{}
	}
	w.publish(upTo)
	return true
}

// tryWrite appends data, or leaves the file as it was.
func (w *writer) tryWrite(data []byte) error {
	if w.file == nil {
		if len(data) == 0 {
			return nil
		}
		if err := w.create(); err != nil {
			return err
		}
	}
	if w.broken {
		if err := w.file.Truncate(w.size); err != nil {
			return fmt.Errorf("cut a half-written line: %w", err)
		}
		w.broken = false
	}
	n, err := w.file.Write(data)
	if err == nil && n < len(data) {
		err = io.ErrShortWrite
	}
	if err != nil {
		w.broken = w.file.Truncate(w.size) != nil
	}
	return err
}

// create begins the next file and removes those that are too many.
func (w *writer) create() error {
	f, err := w.disk.create(filepath.Join(w.dir, fileName(w.written.seq+1)))
	if err != nil {
		return err
	}
	w.file, w.size, w.broken = f, 0, false
	if err := prune(w.dir, w.limits.Files); err != nil {
		w.note(CodePruneFailed, "An old journal file could not be removed", err.Error())
	}
	return nil
}

// rotate ends the current file. It is synced before the next one begins, so that after a power cut no later
// file can hold lines while an earlier one misses some.
func (w *writer) rotate() {
	_ = w.syncNow() // recorded there
	if err := w.file.Close(); err != nil {
		w.note(CodeSyncFailed, "A journal file could not be closed", err.Error())
	}
	w.file, w.size = nil, 0
}

// tell puts the pending notes and losses at the front of the empty buf, losses at most once in a while.
func (w *writer) tell() {
	objects := make([]Object, 0, len(w.notes)+1)
	for i := range w.notes {
		objects = append(objects, w.notes[i].OCSF(w.origin))
	}
	w.told = len(w.notes)
	if now := w.now(); now.Sub(w.lossNoted) >= w.every {
		w.spilled(&w.lost)
		if w.lost.any() {
			w.toldLoss, w.lossNoted = true, now
			n := w.lost.note(now)
			objects = append(objects, n.OCSF(w.origin))
		}
	}
	if len(objects) > 0 {
		w.chain(objects, 0) // none: when these cannot be written they are not lost but stay pending
	}
}

// tick does what must happen without new records: tell losses, begin an fsync.
func (w *writer) tick() {
	retry := w.failedAt.IsZero() || w.now().Sub(w.failedAt) >= w.every
	if len(w.buf) == 0 && retry {
		w.tell()
		w.flush()
	}
	if w.dirty && !w.syncing && w.file != nil {
		w.dirty, w.syncing = false, true
		// Beside the drain: an fsync may take long, and the queue is short.
		go func(f file, result chan<- error) { result <- f.Sync() }(w.file, w.synced)
	}
}

// busy reports whether a tick is needed.
func (w *writer) busy() bool {
	return w.dirty || len(w.notes) > 0 || w.lost.any()
}

// syncEnded takes the result of an fsync. Only the first of several failures makes a note.
func (w *writer) syncEnded(err error) {
	w.syncing = false
	if err != nil && !w.unsafe {
		w.note(CodeSyncFailed, "The journal could not be synced", err.Error())
	}
	w.unsafe = err != nil
}

// syncNow syncs the file and waits for it.
func (w *writer) syncNow() error {
	if w.syncing {
		w.syncEnded(<-w.synced)
	}
	if w.file == nil {
		return nil
	}
	w.dirty = false
	err := w.file.Sync()
	w.syncEnded(err)
	return err
}

// end writes all that is left and closes the file.
func (w *writer) end() error {
	w.lossNoted, w.failedAt = time.Time{}, time.Time{} // one last try
	w.tell()
	w.flush()
	err := w.syncNow()
	if w.file != nil {
		err = errors.Join(err, w.file.Close())
	}
	if n := w.lost.spilled + w.lost.refused; n > 0 {
		err = errors.Join(fmt.Errorf("%d records were lost untold", n), w.lost.err, err)
	}
	if err != nil {
		return fmt.Errorf("close journal: %w", err)
	}
	return nil
}

// note queues a note of the journal itself. The bound is never reached in practice: each comes from a state
// change, and all are written together.
func (w *writer) note(code, title, detail string) {
	const maxNotes = 16
	if len(w.notes) < maxNotes {
		w.notes = append(w.notes, Note{Time: w.now(), Code: code, Title: title, Severity: High, Detail: detail})
	}
}

// count adds n items to what the disk refused.
func (w *writer) count(n uint64, err error) {
	w.lost.err = err
	w.giveUp(n)
}

func (w *writer) giveUp(n uint64) {
	if n == 0 {
		return
	}
	now := w.now()
	w.lost.add(now, now)
	w.lost.refused += n
	w.lose(n)
}
