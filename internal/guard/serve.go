package guard

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/internal/guard/link"
	"github.com/keepout-security/keepout/internal/sensor/fanotify"
)

// server answers instead of a core. Nothing in it allocates once it is made.
type server struct {
	group   *fanotify.Group
	buf     [4096]byte
	decided uint64
	sched   unix.SchedAttr // here, because on the stack it would not stay
}

// sweep answers whatever a core has taken and not answered. The kernel knows such an event by the number of its
// descriptor in the table of whoever read it, which dies with that process; so all numbers are tried.
//
// A core that is ending may still take events, under numbers that are ours, too. The answers are the same, so it does
// not matter whose event gets which; but one may be left, so it is swept again until the core is gone.
func (s *server) sweep() {
	_ = s.group.HeedAll() // a core that is ending may just have set a mark
	// Each answer wakes all who wait, and who runs before its own goes back to sleep and is woken again: n² wake-ups,
	// unless nobody runs in between (sched(7)).
	s.sched = unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1}
	_ = unix.SchedSetAttr(0, &s.sched, 0) // otherwise it only takes longer
	for fd := range link.MaxFiles {
		if s.group.Answer(fd, true) == nil {
			s.decided++
		}
	}
	s.sched = share()
	_ = unix.SchedSetAttr(0, &s.sched, 0) // less is always allowed
}

// batches is how many reads are answered in one go. Openers may be faster than the guard, which has more to do.
const batches = 64

// drain answers what is in the queue, as much as one go allows. An error is the end of the group.
func (s *server) drain() error {
	for range batches {
		n, err := s.group.Read(s.buf[:])
		switch {
		case err == nil:
			s.allow(s.buf[:n])
		case errors.Is(err, fanotify.ErrTaken):
			return nil
		case errors.Is(err, fanotify.ErrEvent): // its opener was refused by the kernel; the next may be fine
			s.decided++
		default:
			return err
		}
	}
	return nil
}

// allow answers a batch of events.
func (s *server) allow(batch []byte) {
	for len(batch) > 0 {
		ev, rest, _ := fanotify.Parse(batch) // whatever is wrong with it, its descriptors are answered and closed
		if ev.File >= 0 {
			if s.group.Answer(ev.File, true) == nil {
				s.decided++
			}
			_ = unix.Close(ev.File)
		}
		if ev.PIDFD >= 0 {
			_ = unix.Close(ev.PIDFD)
		}
		batch = rest
	}
}
