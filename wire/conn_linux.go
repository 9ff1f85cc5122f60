package wire

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Conn is one end of a SOCK_SEQPACKET socket pair. It uses blocking system calls on purpose: a thread that
// blocks in recvmsg(2) is woken by the kernel directly, while Go's network poller costs a further switch
// (ARCHITECTURE.md, "The hot path"). Methods may be called concurrently.
type Conn struct {
	fd     int
	closed atomic.Bool

	// use is held for reading while the descriptor is used for what does not wait, and for writing when it is given
	// back: a number that is used a moment too late belongs to somebody else by then.
	use  sync.RWMutex
	gone bool
}

// ErrFull reports that the peer does not keep up: the socket's buffer is full and the packet was not sent.
var ErrFull = errors.New("socket buffer full")

// ErrTooLong reports a received packet over the size of the buffer; it is lost.
var ErrTooLong = errors.New("packet too long")

// NewConn takes over descriptor fd, which must be a SOCK_SEQPACKET socket.
func NewConn(fd int) (*Conn, error) {
	typ, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return nil, fmt.Errorf("descriptor %d is not a socket: %w", fd, err)
	}
	if typ != unix.SOCK_SEQPACKET {
		return nil, fmt.Errorf("descriptor %d is a socket of type %d, want SOCK_SEQPACKET", fd, typ)
	}
	unix.CloseOnExec(fd)
	return &Conn{fd: fd}, nil
}

// Pair makes a connected pair: ours, and the end that a child process inherits. sendBuffer, in bytes, bounds
// what may wait for the child; the kernel charges about 1 KiB for a small packet.
func Pair(sendBuffer int) (*Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	// Best effort: without CAP_NET_ADMIN the kernel's default limit stays, and ErrFull comes earlier.
	_ = unix.SetsockoptInt(fds[0], unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, sendBuffer)
	return &Conn{fd: fds[0]}, os.NewFile(uintptr(fds[1]), "provider-end"), nil
}

// Send sends one packet, with a descriptor beside it unless file is negative. It never blocks.
func (c *Conn) Send(packet []byte, file int) error {
	return c.send(packet, file, false)
}

// SendWait is Send, but waits for room. Only a provider may use it: the platform never waits for a peer.
func (c *Conn) SendWait(packet []byte, file int) error {
	return c.send(packet, file, true)
}

func (c *Conn) send(packet []byte, file int, wait bool) error {
	c.use.RLock()
	defer c.use.RUnlock()
	if c.gone {
		return io.ErrClosedPipe
	}
	errno := c.sendOnce(packet, file, false)
	for errno == unix.EINTR || wait && errno == unix.EAGAIN {
		errno = c.sendOnce(packet, file, wait)
	}
	switch errno {
	case 0:
		return nil
	case unix.EAGAIN, unix.ENOBUFS, unix.ETOOMANYREFS:
		return ErrFull
	default:
		return fmt.Errorf("sendmsg: %w", errno)
	}
}

// sendOnce is one sendmsg(2). Where it does not wait, the scheduler need not know of it.
func (c *Conn) sendOnce(packet []byte, file int, wait bool) unix.Errno {
	var control [24]byte // CMSG_SPACE(sizeof(int))
	vector := unix.Iovec{Base: unsafe.SliceData(packet)}
	vector.SetLen(len(packet))
	m := unix.Msghdr{Iov: &vector}
	m.SetIovlen(1)
	if file >= 0 {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&control))
		h.Level, h.Type = unix.SOL_SOCKET, unix.SCM_RIGHTS
		h.SetLen(unix.CmsgLen(4))
		*(*int32)(unsafe.Pointer(&control[unix.CmsgLen(0)])) = int32(file)
		m.Control = &control[0]
		m.SetControllen(len(control))
	}
	var errno unix.Errno
	if wait {
		_, _, errno = unix.Syscall(unix.SYS_SENDMSG, uintptr(c.fd), uintptr(unsafe.Pointer(&m)), unix.MSG_NOSIGNAL)
	} else {
		_, _, errno = unix.RawSyscall(unix.SYS_SENDMSG, uintptr(c.fd), uintptr(unsafe.Pointer(&m)),
			unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
	}
	runtime.KeepAlive(packet)
	return errno
}

// Shutdown ends the connection and wakes every Recv on both sides; Close must still follow.
func (c *Conn) Shutdown() {
	c.closed.Store(true)
	c.use.RLock()
	defer c.use.RUnlock()
	if c.gone {
		return
	}
	_ = unix.Shutdown(c.fd, unix.SHUT_RDWR)
}

// ShutdownRead tells the peer that no more is wanted: its sends fail from now on, while packets already
// queued can still be received, followed by io.EOF, and Send still works.
func (c *Conn) ShutdownRead() { _ = unix.Shutdown(c.fd, unix.SHUT_RD) }

// Close releases the descriptor; what is sent from now on fails with io.ErrClosedPipe. Preconditions: no Recv is
// running or will be called, and no SendWait waits; after Shutdown none does.
func (c *Conn) Close() error {
	c.closed.Store(true)
	c.use.Lock()
	defer c.use.Unlock()
	c.gone = true
	return unix.Close(c.fd)
}
