package guard

import (
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/internal/guard/link"
	"github.com/keepout-security/keepout/internal/sensor/fanotify"
)

// Numbers.
const (
	sweepAgain  = 100 * time.Millisecond // while a core that was killed is still there
	firstWait   = 100 * time.Millisecond // before the second restart; doubles
	longestWait = 10 * time.Second
	steady      = time.Minute // of reading, after which the first restart does not wait again
	idleLimit   = time.Minute // for a core that does not read: to take over, or to end
)

// Places in Guard.poll.
const onGroup, onSignal, onSocket = 0, 1, 2

// Guard runs on one thread. Either it answers, or the core reads.
type Guard struct {
	group *fanotify.Group
	pulse *link.Pulse
	page  *os.File // of the pulse
	image *os.File // the core's program in memory: its start shall raise no event, which this thread could not answer
	argv  []string
	say   chan<- string
	poll  [3]unix.PollFd
	buf   [2048]byte     // 64 events with two descriptors each: as many as any process may have
	sched unix.SchedAttr // here, because on the stack it would not stay

	core    int        // the core's process, or 0
	reading bool       // it reads; otherwise the guard answers
	armed   bool       // it reads and nobody waits: the next event wakes the guard
	ever    bool       // one has started in full; from then on there must be one
	reload  bool       // it is to be told once it has taken over, when it surely listens
	leaving bool       // the guard ends with its core
	killed  link.Cause // why the guard is ending the core, or None
	watch   watch

	gap      link.Gap      // that a new core is told
	since    time.Duration // when the gap, or else the reading, began
	due      time.Duration // without a core: its start; for one that does not read: its end; then: the next sweep
	nextWait time.Duration
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
		g.sleep()
		g.pass()
		g.hear()
		if code, over := g.bury(); over {
			return code
		}
		if g.reading {
			g.look()
		} else if !g.serve() {
			return 1
		}
	}
}

// serve answers, and does what is due. It returns false at the end: there is no group any more, and so nobody who waits
// for it, or the first core cannot be started.
func (g *Guard) serve() bool {
	switch {
	case g.drain() != nil:
		return false
	case now() < g.due:
	case g.core == 0:
		return g.launch() || g.ever
	case g.killed != link.None:
		g.sweep()
		g.due = now() + sweepAgain
	default: // it neither takes over nor ends
		g.kill(link.Stalled, now())
	}
	return true
}

// sleep waits for something to do. While a core reads, the guard is not woken for every event, which would cost more
// than the event; it looks in from time to time until nobody has waited for a while.
func (g *Guard) sleep() {
	timeout := g.due - now()
	g.poll[onGroup].Fd = int32(g.group.FD())
	switch {
	case g.armed:
		timeout = time.Hour // nothing is due
	case g.reading:
		timeout = time.Duration(g.pulse.Limit.Load()) / samplesPerLimit
		g.poll[onGroup].Fd = -1 // not only no wanted events: an event wakes whoever polls the group, whatever for
	}
	_, _ = unix.Poll(g.poll[:], int(max(timeout, 0).Milliseconds())+1) // whatever woke us, everything is looked at
}

// launch starts a core, which lives at most as long as this thread and does not read before it has taken over.
func (g *Guard) launch() bool {
	g.pulse.Reset()
	ours, theirs, err := link.Pair()
	if err == nil {
		g.core, err = syscall.ForkExec(fmt.Sprintf("/proc/self/fd/%d", g.image.Fd()), g.argv, &syscall.ProcAttr{
			Env: os.Environ(), Files: []uintptr{
				0, 1, 2, link.GroupFD: uintptr(g.group.FD()), link.PulseFD: g.page.Fd(), link.NextFD - 1: uintptr(theirs),
			},
			// Ctrl-C is for the guard; and without a guard the core ends, in order.
			Sys: &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM},
		})
		_ = unix.Close(theirs) // the core has its own
	}
	if err != nil {
		_ = unix.Close(ours)
		g.postpone(fmt.Sprintf("start the core: %v", err))
		return false
	}
	g.poll[onSocket].Fd, g.due = int32(ours), now()+idleLimit
	g.gap.Cores++
	return true
}

// postpone says why there is no core, and when the next one is started.
func (g *Guard) postpone(why string) {
	select {
	case g.say <- fmt.Sprintf("%s; the next start is due in %v", why, g.nextWait):
	default: // who reads the log may be waiting for an answer
	}
	g.due = now() + g.nextWait
	g.nextWait = min(max(2*g.nextWait, firstWait), longestWait)
}

// hear does what the core says.
func (g *Guard) hear() {
	switch link.Hear(int(g.poll[onSocket].Fd)) {
	case link.TakeOver: // everything that this process has read is answered
		g.handOver()
	case link.Ready:
		g.ever = true
	case link.Leave:
		g.stand(now())
	case link.Closed:
		g.hangUp()
	}
	if g.reading && g.reload {
		g.reload = false
		_ = unix.Kill(g.core, unix.SIGHUP)
	}
}

// hangUp closes the socket of a core that says nothing any more, and would wake the guard again and again.
func (g *Guard) hangUp() {
	_ = unix.Close(int(g.poll[onSocket].Fd))
	g.poll[onSocket].Fd = -1
}

// handOver lets the core read.
func (g *Guard) handOver() {
	t := now()
	g.gap.Length = t - g.since
	if g.reading || g.killed != link.None || link.Report(int(g.poll[onSocket].Fd), g.gap) != nil {
		return
	}
	g.gap = link.Gap{Cores: g.gap.Cores}
	g.reading, g.since, g.watch = true, t, watch{at: t, good: t, owed: t}
}

// stand makes the guard answer from now on, in a gap that began at since.
func (g *Guard) stand(since time.Duration) {
	if !g.reading {
		return
	}
	if since-g.since >= steady {
		g.nextWait = 0
	}
	g.reading, g.armed, g.since, g.due = false, false, since, now()+idleLimit
}

// look judges a core that reads.
func (g *Guard) look() {
	t := now()
	if g.armed {
		g.pulse.Asleep.Store(false)
		g.armed, g.watch = false, watch{at: t, good: t, owed: t}
	}
	halted := g.halted()
	var v verdict
	g.watch, v = g.watch.step(time.Duration(g.pulse.Limit.Load()), t, sample{
		queued: g.group.Waiting(), taken: g.pulse.Taken.Load(), answered: g.pulse.Answered.Load(),
		beat: g.pulse.Beat.Load(), held: g.pulse.Held.Load(), stopped: halted,
	})
	switch {
	case v == idle:
		g.armed = g.pulse.Sleep()
	case v == stalled && halted:
		g.kill(link.Stopped, g.watch.good)
	case v == stalled:
		g.kill(link.Stalled, g.watch.good)
	}
}

// halted reports whether a signal has stopped the core.
func (g *Guard) halted() bool {
	var info unix.Siginfo
	// WNOWAIT leaves the state as it is, so that it can be asked for again; waitid(2).
	err := unix.Waitid(unix.P_PID, g.core, &info, unix.WSTOPPED|unix.WNOHANG|unix.WNOWAIT, nil)
	return err == nil && info.Signo == int32(unix.SIGCHLD)
}

// kill ends the core and answers in its place at once: it may be long before it is gone.
func (g *Guard) kill(cause link.Cause, since time.Duration) {
	_ = unix.Kill(g.core, unix.SIGKILL)
	g.stand(since)
	g.killed, g.due = cause, now()
}

// bury sweeps up after a core that has ended, and reports whether its end is the guard's, too.
func (g *Guard) bury() (code int, over bool) {
	if g.core == 0 {
		return 0, g.leaving
	}
	var status unix.WaitStatus
	if pid, _ := unix.Wait4(g.core, &status, unix.WNOHANG, nil); pid != g.core { // it, or one of its threads, is there
		return 0, false
	}
	g.stand(now())
	g.sweep()
	g.hangUp()
	g.core = 0
	gap := link.Gap{Cause: link.Exited, Detail: status.ExitStatus(), Length: now() - g.since, Decided: g.gap.Decided}
	code = gap.Detail
	if status.Signaled() {
		gap.Cause, gap.Detail = link.Killed, int(status.Signal())
		code = 128 + gap.Detail // as a shell says it
	}
	if g.leaving || !g.ever {
		return code, true
	}
	if g.killed != link.None {
		gap.Cause, g.killed = g.killed, link.None
	}
	if g.gap.Cause == link.None { // a core that has not even taken over says less than the one before it
		g.gap.Cause, g.gap.Detail = gap.Cause, gap.Detail
	}
	g.postpone(gap.String())
	return 0, false
}

// pass takes a signal and passes it on. A second request to end is not for the core to consider.
func (g *Guard) pass() {
	var b [1]byte
	_, _ = unix.Read(int(g.poll[onSignal].Fd), b[:])
	switch b[0] {
	case byte(unix.SIGHUP):
		g.reload = true
	case byte(unix.SIGTERM), byte(unix.SIGINT):
		if g.leaving && g.core != 0 {
			g.kill(link.Killed, now())
		} else if g.core != 0 {
			_ = unix.Kill(g.core, syscall.Signal(b[0]))
		}
		g.leaving = true
	}
}
