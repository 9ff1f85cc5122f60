package link

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Descriptors that the core inherits.
const (
	GroupFD = 3 + iota // the permission group
	PulseFD            // the pulse
	sockFD             // the core's end of the socket
	NextFD             // the first one that is free
)

// MaxFiles bounds the descriptor numbers of a core, and so those under which a dead one's events can be answered. With
// docket.MaxInFlight questions and what readers take at once, the kernel never finds the core's table full, which it
// would answer by refusing the opener.
const MaxFiles = 8192

// MaxKept bounds the descriptors above those, of objects that the kernel remembers (internal/sensor/lease); none of
// them belongs to an event. There are fewer where the limit of open files is lower and may not be raised.
const MaxKept = 32768

// What the core says, one byte each.
const (
	TakeOver = 'R' // the core is ready to read; the guard stops, and answers with a gap
	Ready    = 'O' // the core has started in full; from now on there must be one
	Woken    = 'W' // the core has taken an event or a lease while the guard slept
	Leave    = 'S' // the core no longer reads; the guard answers from now on
	Closed   = 'E' // it has nothing more to say: its end of the socket is closed
)

// patience is how long the core waits for the guard, in seconds.
const patience = 5

// Link is the core's side.
type Link struct {
	Pulse *Pulse
	sock  int
}

// ErrAlone reports a core that no guard has started.
var ErrAlone = errors.New("keepout-core is started by keepoutd, not by hand")

// Attach takes up what the guard has left in this process's descriptors.
func Attach() (*Link, error) {
	var st unix.Stat_t
	if err := unix.Fstat(sockFD, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return nil, ErrAlone
	}
	for fd := GroupFD; fd < NextFD; fd++ {
		unix.CloseOnExec(fd) // whatever the core starts must not hold them
	}
	pulse, err := mapPulse(PulseFD)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrAlone, err)
	}
	return &Link{Pulse: pulse, sock: sockFD}, nil
}

// TakeOver makes the guard stop reading and returns what it did until then. The caller reads from now on.
func (l *Link) TakeOver() (Gap, error) {
	if err := unix.SetsockoptTimeval(l.sock, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: patience}); err != nil {
		return Gap{}, fmt.Errorf("guard: %w", err)
	}
	if _, err := unix.Write(l.sock, []byte{TakeOver}); err != nil {
		return Gap{}, fmt.Errorf("guard: %w", err)
	}
	var b [gapSize]byte
	for {
		n, err := unix.Read(l.sock, b[:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return Gap{}, fmt.Errorf("guard: %w", os.NewSyscallError("read", err))
		}
		return decodeGap(b[:n])
	}
}

// Ready tells the guard that this core has started in full.
func (l *Link) Ready() { l.say(Ready) }

// Leave tells the guard that nobody here reads any more.
func (l *Link) Leave() { l.say(Leave) }

// Took is to be called after each event that was counted as taken. The guard sleeps on the queue while nobody waits,
// but poll(2) goes back to sleep when somebody was faster than it: the event that the core takes out of an empty queue
// may be the one on which it hangs, and then nothing would ever wake the guard.
func (l *Link) Took() {
	if l.Pulse.Asleep.Load() && l.Pulse.Asleep.CompareAndSwap(true, false) {
		l.say(Woken)
	}
}

// Hold says whether this core holds leases. A writer may wait for one without any event, so the guard must not sleep.
func (l *Link) Hold(on bool) {
	l.Pulse.Held.Store(on)
	if on {
		l.Took()
	}
}

// say never waits: what is not heard was said to a guard that is gone, and with it is everybody who would wait.
func (l *Link) say(what byte) {
	_ = unix.Send(l.sock, []byte{what}, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
}

// Pair makes the socket between a guard, whose end never waits, and one core.
func Pair() (guard, core int, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, -1, fmt.Errorf("socketpair: %w", err)
	}
	if err := unix.SetNonblock(fds[0], true); err != nil {
		return -1, -1, errors.Join(fmt.Errorf("socketpair: %w", err), unix.Close(fds[0]), unix.Close(fds[1]))
	}
	return fds[0], fds[1], nil
}

// Hear returns what the core has said, or 0.
func Hear(sock int) byte {
	var b [1]byte
	n, err := unix.Read(sock, b[:])
	switch {
	case err != nil:
		return 0
	case n == 0:
		return Closed
	}
	return b[0]
}

// Report gives a core that takes over the gap before it.
func Report(sock int, g Gap) error {
	var b [gapSize]byte
	g.encode(&b)
	if _, err := unix.Write(sock, b[:]); err != nil {
		return fmt.Errorf("report to the core: %w", err)
	}
	return nil
}

// RaiseFiles sets this process's limit of open files to as many as a core has use for, or, without CAP_SYS_RESOURCE and
// if that is enough, as many as it may have. It returns how many of them are above MaxFiles, at most MaxKept.
func RaiseFiles() (kept int, err error) {
	var have unix.Rlimit
	err = unix.Getrlimit(unix.RLIMIT_NOFILE, &have)
	for _, n := range []uint64{MaxFiles + MaxKept, max(have.Max, MaxFiles)} {
		if err = unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: n, Max: n}); err == nil {
			return int(min(n-MaxFiles, MaxKept)), nil
		}
	}
	return 0, fmt.Errorf("%d open files, of at most %d: %w", MaxFiles, have.Max, err)
}
