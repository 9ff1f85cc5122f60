package guard

import (
	"fmt"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/internal/guard/link"
)

// Numbers.
const (
	defaultLimit = time.Second            // until the core has read its configuration
	sweepAgain   = 100 * time.Millisecond // while a core that was killed is still there
	firstWait    = 100 * time.Millisecond // before the second restart; doubles
	longestWait  = 10 * time.Second
	steady       = time.Minute // of reading, after which the first restart does not wait again
	shortest     = 10 * time.Millisecond
	idleLimit    = time.Minute // for a core that does not read: to take over, or to end
)

// Places in Guard.poll.
const (
	onGroup = iota
	onSignal
	onSocket
	onCore
	places
)

// Guard runs on one thread. Either it answers, or the core reads.
type Guard struct {
	server
	program *program
	pulse   *link.Pulse
	say     chan<- string
	poll    [places]unix.PollFd

	core    *core
	reading bool       // the core reads; otherwise the guard answers
	armed   bool       // the core reads and nobody waits: the next event wakes the guard
	ever    bool       // a core has started in full once; from then on there must be one
	reload  bool       // a core that has yet to take over is told then, when it surely listens
	leaving bool       // the guard ends with its core
	killed  link.Cause // why the guard is ending the core, or None
	watch   watch

	gap      link.Gap      // that a new core is told
	since    time.Duration // when the gap, or else the reading, began
	read     time.Duration // how long the last core that has read did so
	idle     time.Duration // since when the core does not read
	swept    time.Duration
	nextWait time.Duration
	startAt  time.Duration // of a core, while there is none
}

// now is a clock that goes on while the host sleeps.
func now() time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) // cannot fail for this clock
	return time.Duration(ts.Nano())
}

// run starts the core, again and again, and returns the guard's exit code when both are to end.
func (g *Guard) run() int {
	for {
		if g.core == nil && g.leaving {
			return 0
		}
		if g.core == nil && now() >= g.startAt && !g.launch() && !g.ever {
			return 1
		}
		g.sleep()
		g.pass()
		g.hear()
		if g.reading {
			g.look()
		} else if g.drain() != nil {
			return 1 // there is no group any more, and so nobody who waits for it
		}
		if code, over := g.bury(); over {
			return code
		}
	}
}

// sleep waits for something to do. While a core reads, the guard is not woken for every event, which would cost more
// than the event; it looks in from time to time until nobody has waited for a while.
func (g *Guard) sleep() {
	timeout := time.Duration(-1)
	switch {
	case g.core == nil:
		timeout = max(g.startAt-now(), 0)
	case g.killed != link.None || g.core.dead:
		timeout = sweepAgain
	case g.armed && g.pulse.Taken.Load() != g.pulse.Answered.Load(): // taken before the core saw that the guard sleeps
		timeout = 0
	case !g.reading:
		timeout = max(g.idle+idleLimit-now(), 0)
	case g.reading && !g.armed:
		timeout = max(g.limit()/samplesPerLimit, shortest)
	}
	g.poll[onGroup].Fd, g.poll[onSocket].Fd, g.poll[onCore].Fd = int32(g.group.FD()), -1, -1
	if g.reading && !g.armed {
		g.poll[onGroup].Fd = -1 // not only no wanted events: an event wakes whoever polls the group, whatever for
	}
	// What has ended would wake the guard again and again.
	if g.core != nil && !g.core.silent {
		g.poll[onSocket].Fd = int32(g.core.sock)
	}
	if g.core != nil && !g.core.dead {
		g.poll[onCore].Fd = int32(g.core.pidfd)
	}
	ms := -1 // for ever
	if timeout >= 0 {
		ms = int((timeout + time.Millisecond - 1) / time.Millisecond)
	}
	_, _ = unix.Poll(g.poll[:], ms) // whatever woke us, everything is looked at
}

func (g *Guard) limit() time.Duration {
	if l := time.Duration(g.pulse.Limit.Load()); l > 0 {
		return l
	}
	return defaultLimit
}

// launch starts a core, which does not read before it has taken over.
func (g *Guard) launch() bool {
	g.pulse.Reset()
	c, err := g.program.start()
	if err != nil {
		g.tell(err.Error())
		g.postpone()
		return false
	}
	g.core, g.read, g.idle = c, 0, now()
	g.gap.Cores++
	return true
}

// postpone says when the next core is started.
func (g *Guard) postpone() {
	if g.read >= steady {
		g.nextWait = 0
	}
	g.startAt = now() + g.nextWait
	g.nextWait = min(max(2*g.nextWait, firstWait), longestWait)
}

// hear does what the core says.
func (g *Guard) hear() {
	if g.core == nil {
		return
	}
	switch link.Hear(g.core.sock) {
	case link.TakeOver: // everything that this process has read is answered
		if g.reading || g.killed != link.None {
			return
		}
		if g.gap.Cause != link.None {
			g.gap.Length, g.gap.Decided = now()-g.since, g.decided
		}
		if link.Report(g.core.sock, g.gap) == nil {
			g.gap, g.decided = link.Gap{Cores: g.gap.Cores}, 0
			g.reading, g.armed, g.watch, g.since = true, false, watch{}, now()
			if g.reload {
				g.reload = false
				g.core.signal(unix.SIGHUP)
			}
		}
	case link.Ready:
		g.ever = true
	case link.Leave:
		g.stand(now())
	case link.Closed:
		g.core.silent = true
	}
}

// stand makes the guard answer from now on, in a gap that began at since.
func (g *Guard) stand(since time.Duration) {
	if g.reading {
		g.reading, g.read, g.since, g.idle = false, since-g.since, since, now()
		_ = g.group.HeedAll() // what the kernel remembers was the core's to watch
	}
}

// look judges a core that reads.
func (g *Guard) look() {
	halted := g.core.halted()
	if g.armed {
		owes := g.pulse.Taken.Load() != g.pulse.Answered.Load()
		if g.poll[onGroup].Revents == 0 && g.pulse.Asleep.Load() && !owes && !halted {
			return
		}
		g.pulse.Asleep.Store(false)
		g.armed, g.watch = false, watch{}
	}
	var v verdict
	g.watch, v = g.watch.step(g.limit(), now(), sample{
		queued: g.group.Waiting(), taken: g.pulse.Taken.Load(), answered: g.pulse.Answered.Load(),
		beat: g.pulse.Beat.Load(), held: g.pulse.Held.Load(), stopped: halted,
	})
	switch v {
	case idle:
		g.armed = true
		g.pulse.Asleep.Store(true)
	case stalled:
		g.kill(link.Stalled, g.watch.good)
	case stopped:
		g.kill(link.Stopped, g.watch.good)
	case fine:
	}
}

// kill ends the core and answers in its place at once: it may be long before it is gone.
func (g *Guard) kill(cause link.Cause, since time.Duration) {
	g.killed = cause
	g.core.signal(unix.SIGKILL)
	g.stand(since)
	g.swept = 0
}

// bury sweeps up after a core that is ending, and reports whether its end is the guard's, too.
func (g *Guard) bury() (code int, over bool) {
	if g.core == nil {
		return 0, false
	}
	status, ended := g.core.reap()
	if !ended {
		if g.poll[onCore].Fd >= 0 && g.poll[onCore].Revents != 0 {
			g.core.dead = true
			g.stand(now())
		}
		switch {
		case (g.killed != link.None || g.core.dead) && now()-g.swept >= sweepAgain:
			g.sweep()
			g.swept = now()
		case !g.reading && g.killed == link.None && now()-g.idle >= idleLimit:
			g.kill(link.Stalled, now())
		}
		return 0, false
	}
	g.stand(now())
	g.sweep()
	g.core = nil
	code, cause := status.ExitStatus(), link.Exited
	if status.Signaled() {
		code, cause = int(status.Signal()), link.Killed
	}
	if g.leaving || !g.ever {
		if cause == link.Killed {
			code += 128 // as a shell says it
		}
		return code, true
	}
	if g.killed != link.None {
		cause = g.killed
	}
	g.killed = link.None
	g.postpone()
	if g.gap.Cause == link.None { // a core that has not even taken over says less than the one before it
		g.gap.Cause, g.gap.Detail = cause, code
	}
	g.tell(fmt.Sprintf("%v; the next start is due in %v", link.Gap{
		Cause: cause, Detail: code, Length: now() - g.since, Decided: g.decided,
	}, max(g.startAt-now(), 0).Round(time.Millisecond)))
	return 0, false
}

// pass takes a signal and passes it on. A second request to end is not for the core to consider.
func (g *Guard) pass() {
	var b [1]byte
	if n, err := unix.Read(int(g.poll[onSignal].Fd), b[:]); err != nil || n != 1 {
		return
	}
	s := syscall.Signal(b[0])
	if s == 0 {
		return // a child has changed, which only wakes
	}
	again := g.leaving
	g.leaving = again || s != unix.SIGHUP
	switch {
	case g.core == nil:
	case s == unix.SIGHUP && !g.reading:
		g.reload = true
	case again && s != unix.SIGHUP:
		g.kill(link.Killed, now())
	default:
		g.core.signal(s)
	}
}

// tell writes a line to the log. It never waits: who reads it may be waiting for an answer.
func (g *Guard) tell(line string) {
	select {
	case g.say <- line:
	default:
	}
}
