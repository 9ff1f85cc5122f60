package docket

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/arbiter"
	"github.com/keepout-security/keepout/internal/digest"
)

// Bounds of what is hashed for those who subscribe to the digest.
const (
	hashers     = 2       // threads that may wait for a disk
	hashQueue   = 64      // objects that wait for one of them; further ones go without a digest
	maxHashed   = 4 << 30 // bytes; nothing larger is hashed within any budget
	hashPercent = 50      // of the time for a vote that hashing may take; the rest is for reading
)

// hashing is one object whose digest takes longer than a reader thread may.
type hashing struct {
	e     *entry
	file  int // our own; it is of the same opening as the question's, so that a lease holds for it, too
	until time.Duration
}

// fingerprint finds out what e's content is, as far as that takes no disk, and leaves the rest to the hashers: late
// says that they will send the event to those who want the digest. Preconditions: the question is being sent, and
// nobody was sent it yet.
func (d *Docket) fingerprint(e *entry) (late bool) {
	wanted := false
	for i := range e.seats {
		wanted = wanted || e.seats[i].wantsDigest()
	}
	if !wanted {
		return false
	}
	f := &e.q.Event.File
	sum, ok := digest.Sum{}, false
	if e.q.Lasting() {
		sum, ok = d.table.Get(&f.Version)
	}
	if !ok {
		if sum, ok = digest.Cached(e.q.File, f.Size); ok {
			d.counts.Hashed.Add(1)
			d.keepDigest(e, sum)
		}
	}
	if ok {
		f.SHA256 = sum.Text()
		return false
	}
	return d.hashLater(e)
}

func (x *seat) wantsDigest() bool { return x.digest && !x.memory.known && x.route != arbiter.Skip }

// keepDigest remembers a digest, if nothing else can have been hashed than what the version stands for. Preconditions:
// the question has not ended.
func (d *Docket) keepDigest(e *entry, sum digest.Sum) {
	if e.pinned && e.q.Lasting() && e.q.Unchanged() {
		d.table.Put(&e.q.Event.File.Version, sum)
	}
}

// hashLater gives the object to a hasher, if there is room and time.
func (d *Docket) hashLater(e *entry) bool {
	if e.q.Event.File.Size > maxHashed || e.q.File < 0 {
		return false
	}
	budget := time.Duration(0)
	for i := range e.seats {
		if x := &e.seats[i]; x.wantsDigest() {
			x.late, budget = true, max(budget, x.budget)
		}
	}
	file, err := unix.FcntlInt(uintptr(e.q.File), unix.F_DUPFD_CLOEXEC, 0)
	if err == nil {
		e.late = 1
		select {
		case d.hashings <- hashing{e, file, budget * arbiter.HeadroomPercent * hashPercent / 100 / 100}:
			return true
		default:
			_ = unix.Close(file)
		}
	}
	e.late = 0
	for i := range e.seats {
		e.seats[i].late = false
	}
	return false
}

// hash is one hasher.
func (d *Docket) hash() {
	for {
		select {
		case h := <-d.hashings:
			d.hashed(h)
		case <-d.over:
			for {
				select {
				case h := <-d.hashings: // its case is closed
					_ = unix.Close(h.file)
				default:
					return
				}
			}
		}
	}
}

// hashed hashes one object and sends the event to those who wait for that.
func (d *Docket) hashed(h hashing) {
	e := h.e
	sum, err := digest.Of(h.file, e.q.Event.File.Size, func() bool {
		return time.Since(e.q.Event.Time) >= h.until || !d.awaited(e)
	})
	d.mu.Lock()
	ev := e.q.Event
	if err == nil {
		d.counts.Hashed.Add(1)
		e.digest = sum.Text()
		ev.File.SHA256 = e.digest
		if !e.over {
			d.keepDigest(e, sum)
		}
	} else {
		d.counts.Unhashed.Add(1)
	}
	d.mu.Unlock()
	d.sendLate(e, &ev, h.file, func(x *seat) bool { return x.late })
}

// awaited reports whether anybody still waits for a digest.
func (d *Docket) awaited(e *entry) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range e.seats {
		if e.seats[i].late && e.c.Expects(i, time.Since(e.q.Event.Time)) {
			return true
		}
	}
	return false
}

// sendLate sends an event to those of its voters who were not sent it at first, and gives file up. e.late counts it.
func (d *Docket) sendLate(e *entry, ev *event.Event, file int, to func(x *seat) bool) {
	for i := range e.seats {
		d.mu.Lock()
		x := &e.seats[i]
		took := time.Since(ev.Time)
		wanted := to(x) && e.c.Expects(i, took)
		with := -1
		if to(x) {
			x.late, x.reads = false, false
		}
		if wanted && x.mayRead && (ev.File.SHA256 == "" || x.read) {
			with, x.read = file, true
		}
		member, typ, left := x.member, x.typ, x.budget*arbiter.HeadroomPercent/100-took
		d.mu.Unlock()
		if !wanted {
			continue
		}
		if err := member.deliver(typ, ev, left, with); err != nil {
			d.step(ev.ID, arbiter.Input{Kind: arbiter.Lost, Voter: i, Reason: lossReason(err)})
		}
	}
	_ = unix.Close(file)
	d.mu.Lock()
	e.late--
	todo := actions{giveUps: e.early}
	if e.late > 0 {
		todo.giveUps = append([]giveUp(nil), e.early...) // the other one says it again
	}
	d.release(e)
	d.mu.Unlock()
	todo.run()
}

// reread answers a vote that asks for the content. ask reports whether the event is to be sent again, with file;
// otherwise wrong says that the provider had no right to ask. Preconditions: mu is held.
func (d *Docket) reread(e *entry, i int, took time.Duration) (file int, ask, wrong bool) {
	x := &e.seats[i]
	if !x.digest || !x.mayRead || x.read {
		return -1, false, true
	}
	if e.over || !e.c.Expects(i, took) {
		return -1, false, false
	}
	file, err := unix.FcntlInt(uintptr(e.q.File), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return -1, false, false
	}
	x.read, x.reads = true, true
	e.late++
	return file, true, false
}

// proved reports whether e's digest is that of what its object still holds. Preconditions: mu is held, and the question
// has not ended.
func (e *entry) proved() bool { return e.digest != "" && e.pinned && e.q.Unchanged() }

// readable reports whether somebody may still ask for the content. Preconditions: mu is held.
func (e *entry) readable() bool {
	for i := range e.seats {
		if x := &e.seats[i]; x.digest && x.mayRead && !x.read && e.c.Expects(i, 0) {
			return true
		}
	}
	return false
}
