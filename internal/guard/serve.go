package guard

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/internal/guard/link"
	"github.com/keepout-security/keepout/internal/sensor/fanotify"
)

// sweep answers whatever a core has taken and not answered. The kernel knows such an event by the number of its
// descriptor in the table of whoever read it, which dies with that process; so all numbers are tried.
//
// A core that is ending may still take events, under numbers that are ours, too. The answers are the same, so it does
// not matter whose event gets which; but one may be left, so it is swept again until the core is gone.
func (g *Guard) sweep() {
	_ = g.group.HeedAll() // a core that is ending may just have set a mark
	// Each answer wakes all who wait, and who runs before its own goes back to sleep and is woken again: n² wake-ups,
	// unless nobody runs in between (sched(7)).
	g.sched = unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1}
	_ = unix.SchedSetAttr(0, &g.sched, 0) // otherwise it only takes longer
	for fd := range link.MaxFiles {
		if g.group.Answer(fd, true) == nil {
			g.gap.Decided++
		}
	}
	g.sched = share()
	_ = unix.SchedSetAttr(0, &g.sched, 0) // less is always allowed
}

// drain answers what is in the queue, but not for ever: openers may be faster than the guard, which has more to do. An
// error is the end of the group.
func (g *Guard) drain() error {
	for range 64 {
		n, err := g.group.Read(g.buf[:])
		switch {
		case err == nil:
			g.allow(g.buf[:n])
		case errors.Is(err, fanotify.ErrTaken):
			return nil
		case errors.Is(err, fanotify.ErrEvent): // its opener was refused by the kernel; the next may be fine
			g.gap.Decided++
		default:
			return err
		}
	}
	return nil
}

// allow answers a batch of events.
func (g *Guard) allow(batch []byte) {
	for len(batch) > 0 {
		ev, rest, _ := fanotify.Parse(batch) // whatever is wrong with it, its descriptors are answered and closed
		if g.group.Answer(ev.File, true) == nil {
			g.gap.Decided++
		}
		_, _ = unix.Close(ev.File), unix.Close(ev.PIDFD) // NoFD is no descriptor's number, here and there
		batch = rest
	}
}
