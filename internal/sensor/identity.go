package sensor

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/event"
)

// AT_HANDLE_FID (Linux 6.5) asks for a handle that identifies but need not be openable, so that overlayfs and
// others without NFS export support have one too; include/uapi/linux/fcntl.h.
const atHandleFID = 0x200

// statNoSync never asks a server or a FUSE daemon: what the kernel remembers must do, because a reader that
// waits for somebody else's file system would hold up every other caller.
const statNoSync = unix.AT_EMPTY_PATH | unix.AT_STATX_DONT_SYNC

const statMask = unix.STATX_BASIC_STATS | unix.STATX_MNT_ID

// maxHandle is MAX_HANDLE_SZ.
const maxHandle = 128

// object is a file as one event shows it.
type object struct {
	event.File
	mount uint64 // mount id through which it was reached
}

// names is room for the names of one object, so that an event that is answered from memory allocates nothing.
type names struct {
	path   [pathMax]byte
	handle [8 + maxHandle]byte
}

// pathMax is PATH_MAX.
const pathMax = 4096

// text is the string in b, which must stay as it is while the string is used.
func text(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// empty is the path of what a descriptor stands for.
var empty [1]byte

// statx looks at the object behind a descriptor. It does not allocate.
func statx(fd int, into *unix.Statx_t) unix.Errno {
	_, _, errno := unix.Syscall6(unix.SYS_STATX, uintptr(fd), uintptr(unsafe.Pointer(&empty)), statNoSync, statMask,
		uintptr(unsafe.Pointer(into)), 0)
	return errno
}

func nanoseconds(t unix.StatxTimestamp) int64 { return t.Sec*1e9 + int64(t.Nsec) }

// look sees what lies behind an open descriptor, all but its names. It opens nothing.
func look(fd int) (object, error) {
	var st unix.Statx_t
	if errno := statx(fd, &st); errno != 0 {
		return object{}, fmt.Errorf("statx: %w", errno)
	}
	return object{mount: st.Mnt_id, File: event.File{Mode: uint32(st.Mode), UID: st.Uid, Version: event.Version{
		Dev: unix.Mkdev(st.Dev_major, st.Dev_minor), Ino: st.Ino, Size: int64(st.Size),
		MtimeNS: nanoseconds(st.Mtime), CtimeNS: nanoseconds(st.Ctime),
	}}}, nil
}

// identify is look with the handle, which is in into.
func identify(fd int, into *names) (object, error) {
	o, err := look(fd)
	if err != nil {
		return object{}, err
	}
	handle, err := fileHandle(fd, into)
	if err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		return object{}, err
	}
	o.Handle = handle
	return o, nil
}

// How long ago a file must have changed before another change is sure to be seen in its times: they advance with the
// kernel's clock tick, or by whole seconds on file systems that keep no more.
const (
	clockTick  = 20 * time.Millisecond // two ticks at 100 a second
	coarseTick = 2 * time.Second
)

// settled reports whether a change after now would give the object another version.
func settled(v *event.Version, now time.Time) bool {
	wait := clockTick
	if v.CtimeNS%1e9 == 0 && v.MtimeNS%1e9 == 0 {
		wait = coarseTick
	}
	return now.UnixNano()-v.CtimeNS >= int64(wait)
}

// fileHandle returns the handle's type and bytes, or EOPNOTSUPP for a file system that has none.
func fileHandle(fd int, into *names) (string, error) {
	// struct file_handle: handle_bytes, handle_type, then the handle itself.
	b := &into.handle
	if errno := nameToHandle(fd, &empty[0], b, handleFlags()); errno != 0 {
		return "", fmt.Errorf("name_to_handle_at: %w", errno)
	}
	size := min(binary.NativeEndian.Uint32(b[:]), maxHandle)
	return text(b[4 : 8+size]), nil
}

func nameToHandle(dir int, path *byte, b *[8 + maxHandle]byte, flags uintptr) unix.Errno {
	var mount int32
	binary.NativeEndian.PutUint32(b[:], maxHandle)
	_, _, errno := unix.Syscall6(unix.SYS_NAME_TO_HANDLE_AT, uintptr(dir), uintptr(unsafe.Pointer(path)),
		uintptr(unsafe.Pointer(b)), uintptr(unsafe.Pointer(&mount)), flags, 0)
	return errno
}

// handleFlags are how this kernel is asked for a handle. One without AT_HANDLE_FID says so with EINVAL, which is found
// out once and not at each event.
var handleFlags = sync.OnceValue(func() uintptr {
	const flags = unix.AT_EMPTY_PATH | atHandleFID
	var b [8 + maxHandle]byte
	root := [2]byte{'/'}
	if nameToHandle(unix.AT_FDCWD, &root[0], &b, flags) == unix.EINVAL {
		return unix.AT_EMPTY_PATH
	}
	return flags
})

// pathHint returns the path as seen from the platform, for people and prefixes; it is read from a link, so
// nothing is opened. It may be empty. It is in into.
func pathHint(fd int, into *names) string {
	var name [12]byte
	strconv.AppendInt(name[:0], int64(fd), 10) // at least one zero byte is left
	n, _, errno := unix.Syscall6(unix.SYS_READLINKAT, uintptr(ownFiles()), uintptr(unsafe.Pointer(&name)),
		uintptr(unsafe.Pointer(&into.path)), pathMax, 0, 0)
	if errno != 0 {
		return ""
	}
	return text(into.path[:n])
}

// ownFiles is /proc/self/fd, held open because walking there costs more than reading the link.
var ownFiles = sync.OnceValue(func() int { return openFolder("/proc/self/fd") })

// openFolder returns a descriptor below which names can be looked up, or -1: without /proc there are no hints.
func openFolder(path string) int {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1
	}
	return fd
}
