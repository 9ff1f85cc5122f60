package wire

import (
	"errors"
	"fmt"
	"io"
	"os"
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

	// use is held for reading while the descriptor is used for sending, and for writing when it is given back: a
	// number that is used a moment too late belongs to somebody else by then.
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
	return c.send(packet, file, unix.MSG_DONTWAIT)
}

// SendWait is Send, but waits for room. Only a provider may use it: the platform never waits for a peer.
func (c *Conn) SendWait(packet []byte, file int) error {
	return c.send(packet, file, 0)
}

func (c *Conn) send(packet []byte, file, flags int) error {
	c.use.RLock()
	defer c.use.RUnlock()
	if c.gone {
		return io.ErrClosedPipe
	}
	var control [24]byte // CMSG_SPACE(sizeof(int))
	var oob []byte
	if file >= 0 {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&control[0]))
		h.Level, h.Type = unix.SOL_SOCKET, unix.SCM_RIGHTS
		h.SetLen(unix.CmsgLen(4))
		*(*int32)(unsafe.Pointer(&control[unix.CmsgLen(0)])) = int32(file)
		oob = control[:]
	}
	for {
		_, err := unix.SendmsgN(c.fd, packet, oob, nil, flags|unix.MSG_NOSIGNAL)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.ENOBUFS), errors.Is(err, unix.ETOOMANYREFS):
			return ErrFull
		default:
			return fmt.Errorf("sendmsg: %w", err)
		}
	}
}

// Recv waits for one packet and returns its length. Descriptors that come with it are discarded by the
// kernel. It returns io.EOF after the peer has gone or Shutdown was called, or for an empty packet, and
// ErrTooLong for a packet over len(buf).
func (c *Conn) Recv(buf []byte) (int, error) {
	n, _, err := c.recv(buf, nil)
	return n, err
}

// RecvFile is Recv for packets that may carry a descriptor: file is -1 without one, and the caller's to
// close.
func (c *Conn) RecvFile(buf []byte) (n, file int, err error) {
	// CMSG_LEN, not CMSG_SPACE: the padding of the latter has room for a second descriptor, which would leak.
	var control [20]byte
	return c.recv(buf, control[:])
}

func (c *Conn) recv(buf, control []byte) (n, file int, err error) {
	for {
		n, oobn, flags, _, err := unix.Recvmsg(c.fd, buf, control, unix.MSG_CMSG_CLOEXEC)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			if c.closed.Load() || errors.Is(err, unix.ECONNRESET) {
				return 0, -1, io.EOF
			}
			return 0, -1, fmt.Errorf("recvmsg: %w", err)
		}
		file = passedFile(control[:oobn])
		if n > 0 && flags&unix.MSG_TRUNC == 0 {
			return n, file, nil
		}
		if file >= 0 {
			_ = unix.Close(file)
		}
		if n == 0 { // the end, or an empty packet: nobody sends one on purpose
			return 0, -1, io.EOF
		}
		return n, -1, ErrTooLong
	}
}

// passedFile reads the one descriptor for which recv leaves room; the kernel closes any further ones.
func passedFile(control []byte) int {
	if len(control) < unix.CmsgLen(4) {
		return -1
	}
	h := (*unix.Cmsghdr)(unsafe.Pointer(&control[0]))
	if h.Level != unix.SOL_SOCKET || h.Type != unix.SCM_RIGHTS {
		return -1
	}
	return int(*(*int32)(unsafe.Pointer(&control[unix.CmsgLen(0)])))
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
