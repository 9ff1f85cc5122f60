package wire

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Recv waits for one packet and returns its length. Descriptors that come with it are discarded by the
// kernel. It returns io.EOF after the peer has gone or Shutdown was called, or for an empty packet, and
// ErrTooLong for a packet over len(buf).
func (c *Conn) Recv(buf []byte) (int, error) {
	r := Receiver{c: c}
	n, _, err := r.Recv(buf)
	return n, err
}

// RecvFile is Recv for packets that may carry a descriptor: file is -1 without one, and the caller's to
// close.
func (c *Conn) RecvFile(buf []byte) (n, file int, err error) {
	r := Receiver{c: c, files: true}
	return r.Recv(buf)
}

// burstTime is how long after a packet the next one is waited for eagerly. The kernel rounds it up to its ticks.
const burstTime = 10 * time.Millisecond

// ErrQuiet reports that nothing came for a while.
var ErrQuiet = errors.New("no packet for a while")

// Receiver receives for one goroutine, which should keep its thread (runtime.LockOSThread). It does not allocate.
//
// An eager one saves what Go adds to a system call that waits: giving its processor slot away and getting one back,
// with a monitor that wakes up 20 µs later to look at it, costs more than the packet. For burstTime after a packet, it
// waits in the kernel without telling the scheduler. Whoever wants to stop the goroutine meanwhile, as the collector
// does, sends it a signal, which ends the wait; it then yields. Each eager Receiver occupies a slot in that time, so
// there must be some to spare (SlotsToSpare).
type Receiver struct {
	c     *Conn
	files bool
	eager bool
	m     message
}

// NewReceiver makes a Receiver of c, for packets that may carry a descriptor if files is set.
func NewReceiver(c *Conn, files, eager bool) *Receiver {
	if eager {
		// recvmsg(2) with a time limit is not restarted after a signal (signal(7)), which eagerness rests on.
		limit := unix.NsecToTimeval(int64(burstTime))
		eager = unix.SetsockoptTimeval(c.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit) == nil
	}
	return &Receiver{c: c, files: files, eager: eager}
}

// SlotsToSpare reports whether n goroutines may occupy a processor slot each while they wait, and leave enough for
// everybody else.
func SlotsToSpare(n int) bool { return runtime.GOMAXPROCS(0) >= runtime.NumCPU()+n+2 }

// Recv waits for one packet. file is -1 without a descriptor, and the caller's to close. Errors are those of Conn.Recv.
func (r *Receiver) Recv(buf []byte) (n, file int, err error) {
	for {
		n, file, err = r.Soon(buf)
		if !errors.Is(err, ErrQuiet) {
			return n, file, err
		}
		if err := r.Await(); err != nil {
			return 0, -1, err
		}
	}
}

// Soon is Recv, but returns ErrQuiet when nothing came for a while. Await must then be called before the next Soon.
// Without eagerness it waits.
func (r *Receiver) Soon(buf []byte) (n, file int, err error) {
	for {
		errno := r.m.receive(r.c.fd, buf, r.files, r.eager, 0)
		switch errno {
		case 0:
			return r.m.packet(buf)
		case unix.EINTR:
			if r.eager {
				runtime.Gosched() // somebody wants this goroutine to stop
			}
		case unix.EAGAIN:
			if r.eager {
				return 0, -1, ErrQuiet
			}
			if err := r.Await(); err != nil { // an eager Receiver of the same socket has set the limit
				return 0, -1, err
			}
		default:
			return 0, -1, r.over(errno)
		}
	}
}

// over is what an error of recvmsg(2) says that ends the conversation.
func (r *Receiver) over(errno unix.Errno) error {
	if errno == unix.ECONNRESET || r.c.closed.Load() {
		return io.EOF
	}
	return fmt.Errorf("recvmsg: %w", errno)
}

// Try is Recv, but returns ErrQuiet where nothing is there yet. It does not tell the scheduler, because it never waits.
// Unlike the others it may be called at any time, after Close too, when it returns io.EOF.
func (r *Receiver) Try(buf []byte) (n, file int, err error) {
	r.c.use.RLock()
	defer r.c.use.RUnlock()
	if r.c.gone {
		return 0, -1, io.EOF
	}
	switch errno := r.m.receive(r.c.fd, buf, r.files, true, unix.MSG_DONTWAIT); errno {
	case 0:
		return r.m.packet(buf)
	case unix.EAGAIN, unix.EINTR:
		return 0, -1, ErrQuiet
	default:
		return 0, -1, r.over(errno)
	}
}

// Await waits, however long, until a Soon would return something at once. Others may have taken it by then.
func (r *Receiver) Await() error {
	fds := [1]unix.PollFd{{Fd: int32(r.c.fd), Events: unix.POLLIN}}
	for {
		_, _, errno := unix.Syscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&fds)), 1, 0, 0, 0, 0)
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
		default:
			return fmt.Errorf("poll: %w", errno)
		}
	}
}

// message is what one recvmsg(2) writes to.
type message struct {
	header  unix.Msghdr
	vector  unix.Iovec
	control [20]byte // CMSG_LEN, not CMSG_SPACE: the padding of the latter has room for a second descriptor
	n       int
}

// receive receives one packet. raw does not tell the scheduler about the wait.
func (m *message) receive(fd int, buf []byte, files, raw bool, flags uintptr) unix.Errno {
	m.vector.Base = unsafe.SliceData(buf)
	m.vector.SetLen(len(buf))
	m.header = unix.Msghdr{Iov: &m.vector}
	m.header.SetIovlen(1)
	if files {
		m.header.Control = &m.control[0]
		m.header.SetControllen(len(m.control))
	}
	var n uintptr
	var errno unix.Errno
	if raw {
		n, _, errno = unix.RawSyscall(unix.SYS_RECVMSG, uintptr(fd), uintptr(unsafe.Pointer(&m.header)),
			unix.MSG_CMSG_CLOEXEC|flags)
	} else {
		n, _, errno = unix.Syscall(unix.SYS_RECVMSG, uintptr(fd), uintptr(unsafe.Pointer(&m.header)),
			unix.MSG_CMSG_CLOEXEC|flags)
	}
	runtime.KeepAlive(buf)
	m.n = int(n)
	return errno
}

// packet returns what was received.
func (m *message) packet(buf []byte) (n, file int, err error) {
	file = m.file()
	if m.n > 0 && m.header.Flags&unix.MSG_TRUNC == 0 {
		return m.n, file, nil
	}
	if file >= 0 {
		_ = unix.Close(file)
	}
	if m.n == 0 { // the end, or an empty packet: nobody sends one on purpose
		return 0, -1, io.EOF
	}
	return len(buf), -1, ErrTooLong
}

// file returns the one descriptor for which there is room; the kernel closes any further ones.
func (m *message) file() int {
	if m.header.Control == nil || int(m.header.Controllen) < unix.CmsgLen(4) {
		return -1
	}
	h := (*unix.Cmsghdr)(unsafe.Pointer(&m.control))
	if h.Level != unix.SOL_SOCKET || h.Type != unix.SCM_RIGHTS {
		return -1
	}
	return int(*(*int32)(unsafe.Pointer(&m.control[unix.CmsgLen(0)])))
}
