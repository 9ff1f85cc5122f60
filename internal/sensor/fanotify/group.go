package fanotify

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Mask bits that this package delivers; see fanotify_mark(2).
const (
	OpenPerm     = unix.FAN_OPEN_PERM
	OpenExecPerm = unix.FAN_OPEN_EXEC_PERM
	CloseWrite   = unix.FAN_CLOSE_WRITE
	Create       = unix.FAN_CREATE
	Delete       = unix.FAN_DELETE
	Rename       = unix.FAN_RENAME
	Overflow     = unix.FAN_Q_OVERFLOW
)

// Group is one fanotify group. Its methods may be called concurrently.
type Group struct {
	fd     int
	wake   int // eventfd that ends every ReadBlocking
	closed atomic.Bool

	taken, answered *atomic.Uint64
	took            func() // after each Take
}

// NewPermission makes the group that holds callers until they are answered: content class, because the file is
// read before the answer; unlimited queue and marks, because a permission event that overflows the default
// queue is silently allowed. No pidfd comes with an event: the caller waits, and keeps its number. It needs
// CAP_SYS_ADMIN.
func NewPermission() (*Group, error) {
	return newGroup(unix.FAN_CLASS_CONTENT | unix.FAN_UNLIMITED_QUEUE | unix.FAN_UNLIMITED_MARKS |
		unix.FAN_CLOEXEC | unix.FAN_NONBLOCK)
}

// NewNotify makes the group for acts that have already happened, with a pidfd, because process numbers are reused. Its
// queue is bounded by the kernel (fs.fanotify.max_queued_events); what overflows is reported as one Overflow event.
func NewNotify() (*Group, error) {
	return newGroup(unix.FAN_CLASS_NOTIF | unix.FAN_UNLIMITED_MARKS | unix.FAN_REPORT_DFID_NAME_TARGET |
		unix.FAN_REPORT_PIDFD | unix.FAN_CLOEXEC | unix.FAN_NONBLOCK)
}

// The descriptors that the kernel opens for us: never a new open event (fanotify marks them), no access time.
// It opens them inside our read(2), so they must not wait: without O_NONBLOCK anybody who holds a write lease on
// a file of his own (fcntl(2), F_SETLEASE) would stop a reader for fs.lease-break-time. With it the kernel
// refuses such an opener, and asks the holder to give the lease up.
const eventFlags = unix.O_RDONLY | unix.O_LARGEFILE | unix.O_CLOEXEC | unix.O_NOATIME | unix.O_NONBLOCK

func newGroup(flags uint) (*Group, error) {
	fd, err := unix.FanotifyInit(flags, eventFlags)
	if err != nil {
		return nil, fmt.Errorf("fanotify_init: %w", err)
	}
	g, err := Adopt(fd, new(atomic.Uint64), new(atomic.Uint64), func() {})
	if err != nil {
		_ = unix.Close(fd)
	}
	return g, err
}

// Adopt makes a Group of one that another process has opened. The counters say what is owed to the kernel: Take adds
// to the first and then calls took, which must not block; Answer adds to the second. On an error fd stays open.
func Adopt(fd int, taken, answered *atomic.Uint64, took func()) (*Group, error) {
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	return &Group{fd: fd, wake: wake, taken: taken, answered: answered, took: took}, nil
}

// FD is the group's descriptor, for poll(2), epoll(7) and a child that shall adopt it.
func (g *Group) FD() int { return g.fd }

// Take counts an event that was read and must be answered.
func (g *Group) Take() {
	g.taken.Add(1)
	g.took()
}

// MarkFilesystem adds mask to the marks of the file system that holds path. Unlike a mount mark it also sees
// bind mounts and other mount namespaces.
func (g *Group) MarkFilesystem(path string, mask uint64) error {
	return g.mark(unix.FAN_MARK_ADD, path, mask)
}

// UnmarkFilesystem takes mask away again.
func (g *Group) UnmarkFilesystem(path string, mask uint64) error {
	return g.mark(unix.FAN_MARK_REMOVE, path, mask)
}

func (g *Group) mark(action uint, path string, mask uint64) error {
	if err := unix.FanotifyMark(g.fd, action|unix.FAN_MARK_FILESYSTEM, mask, unix.AT_FDCWD, path); err != nil {
		return fmt.Errorf("fanotify_mark %s: %w", path, err)
	}
	return nil
}

// ignored is the mask of what Ignore makes the kernel answer by itself. Never OpenExecPerm: an exec is always asked.
const ignored = OpenPerm

// Ignore makes the kernel allow opens of the object behind descriptor file without an event, until Heed, HeedAll, or a
// write(2) or truncate(2) of the object, which take the mark away. A store through a shared mapping does not: the
// caller holds a read lease meanwhile (internal/sensor/lease). While a writer has the object open the kernel may keep
// no mark and say nothing.
func (g *Group) Ignore(file int) error {
	return g.markFile(unix.FAN_MARK_ADD|unix.FAN_MARK_IGNORED_MASK, file)
}

// Heed takes Ignore back. An error says that there was no mark any more.
func (g *Group) Heed(file int) error {
	return g.markFile(unix.FAN_MARK_REMOVE|unix.FAN_MARK_IGNORED_MASK, file)
}

func (g *Group) markFile(action uint, file int) error {
	if err := unix.FanotifyMark(g.fd, action, ignored, file, ""); err != nil {
		return fmt.Errorf("fanotify_mark object: %w", err)
	}
	return nil
}

// HeedAll takes every Ignore back: FAN_MARK_FLUSH removes all marks on single objects, and no others. It does not
// allocate unless it returns an error.
func (g *Group) HeedAll() error {
	if err := unix.FanotifyMark(g.fd, unix.FAN_MARK_FLUSH, 0, unix.AT_FDCWD, ""); err != nil {
		return fmt.Errorf("fanotify_mark flush: %w", err)
	}
	return nil
}

// ErrEvent reports an event that the kernel could not hand over, mostly for want of a descriptor. Its opener
// has been refused, and the next one can be read.
var ErrEvent = errors.New("event lost")

// ErrTaken reports that another reader of the group took the event that this one was woken for.
var ErrTaken = errors.New("no event, or another reader took it")

// ReadBlocking waits for events and reads as many as fit in buf. It returns io.EOF after Stop, ErrEvent when only
// one event was lost, and ErrTaken; other errors are the end of reading.
//
// It polls before it reads, so that Stop works: a thread that blocks in read(2) itself keeps the group alive,
// and every waiting opener with it, even after the descriptor was closed elsewhere.
func (g *Group) ReadBlocking(buf []byte) (int, error) {
	fds := [2]unix.PollFd{{Fd: int32(g.fd), Events: unix.POLLIN}, {Fd: int32(g.wake), Events: unix.POLLIN}}
	for {
		_, err := unix.Poll(fds[:], -1)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("poll fanotify group: %w", err)
		}
		if g.closed.Load() {
			return 0, io.EOF
		}
		return g.Read(buf)
	}
}

// Read reads as many events as fit in buf, without waiting: ErrTaken says that there are none. ErrEvent is as with
// ReadBlocking. Without an error it does not allocate.
func (g *Group) Read(buf []byte) (int, error) {
	for {
		n, err := unix.Read(g.fd, buf)
		switch {
		case err == nil:
			return n, nil
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			return 0, ErrTaken
		case errors.Is(err, unix.EBADF), errors.Is(err, unix.EFAULT), errors.Is(err, unix.EINVAL):
			return 0, fmt.Errorf("read fanotify group: %w", err)
		default: // from opening the event's file for us
			return 0, fmt.Errorf("%w: %w", ErrEvent, err)
		}
	}
}

// Waiting reports whether there are events that nobody has read.
func (g *Group) Waiting() bool {
	fds := [1]unix.PollFd{{Fd: int32(g.fd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds[:], 0)
	return err == nil && n == 1
}

// ErrAnswered reports that nobody waits for an answer under this descriptor. A caller that was killed meanwhile is not
// such a case: its answer is accepted.
var ErrAnswered = errors.New("no fanotify event has this descriptor")

// Answer ends the wait of the caller whose event carries descriptor file. The kernel matches answers by that
// number, so it must still be open. It does not allocate when it returns nil or ErrAnswered.
func (g *Group) Answer(file int, allow bool) error {
	response := uint32(unix.FAN_DENY)
	if allow {
		response = unix.FAN_ALLOW
	}
	var b [8]byte // struct fanotify_response
	binary.NativeEndian.PutUint32(b[:4], uint32(file))
	binary.NativeEndian.PutUint32(b[4:], response)
	for {
		// Not unix.Write, whose argument lives on the heap where the race detector is on.
		_, _, errno := unix.Syscall(unix.SYS_WRITE, uintptr(g.fd), uintptr(unsafe.Pointer(&b)), uintptr(len(b)))
		switch errno {
		case 0:
			g.answered.Add(1)
			return nil
		case unix.EINTR:
		case unix.ENOENT:
			return ErrAnswered
		default:
			return fmt.Errorf("answer fanotify event: %w", errno)
		}
	}
}

// Stop ends every ReadBlocking. Answers are still possible.
func (g *Group) Stop() {
	g.closed.Store(true)
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	_, _ = unix.Write(g.wake, one[:]) // cannot fail: the counter is far from full
}

// Close gives up the group; the kernel allows whatever still waits. Preconditions: Stop was called and no
// other method is running.
func (g *Group) Close() error {
	return errors.Join(unix.Close(g.fd), unix.Close(g.wake))
}
