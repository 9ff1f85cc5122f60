package sensor

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
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

// identify names the object behind an open descriptor; the handle is in into. It opens nothing.
func identify(fd int, into *names) (object, error) {
	var st unix.Statx_t
	if errno := statx(fd, &st); errno != 0 {
		return object{}, fmt.Errorf("statx: %w", errno)
	}
	o := object{mount: st.Mnt_id, File: event.File{Mode: uint32(st.Mode), UID: st.Uid, Version: event.Version{
		Dev: unix.Mkdev(st.Dev_major, st.Dev_minor), Ino: st.Ino, Size: int64(st.Size),
		MtimeNS: nanoseconds(st.Mtime), CtimeNS: nanoseconds(st.Ctime),
	}}}
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
	var mount int32
	for _, flags := range []uintptr{unix.AT_EMPTY_PATH | atHandleFID, unix.AT_EMPTY_PATH} {
		binary.NativeEndian.PutUint32(b[:], maxHandle)
		_, _, errno := unix.Syscall6(unix.SYS_NAME_TO_HANDLE_AT, uintptr(fd), uintptr(unsafe.Pointer(&empty[0])),
			uintptr(unsafe.Pointer(&b[0])), uintptr(unsafe.Pointer(&mount)), flags, 0)
		switch errno {
		case 0:
			size := min(binary.NativeEndian.Uint32(b[:]), maxHandle)
			return text(b[4 : 8+size]), nil
		case unix.EINVAL: // a kernel without AT_HANDLE_FID
		default:
			return "", fmt.Errorf("name_to_handle_at: %w", errno)
		}
	}
	return "", unix.EOPNOTSUPP
}

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
var ownFiles = sync.OnceValue(func() int {
	fd, err := unix.Open("/proc/self/fd", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1 // without /proc there are no hints
	}
	return fd
})

// actor describes the process behind a pidfd. Without one (already reaped) only the number is known.
func actor(pid int32, pidfd int) event.Process {
	p := event.Process{PID: pid, UID: unknownUID, GID: unknownUID}
	if pidfd < 0 {
		return p
	}
	var info unix.PidfdInfo
	info.Mask = unix.PIDFD_INFO_CREDS
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(pidfd), uintptr(unix.PIDFD_GET_INFO),
		uintptr(unsafe.Pointer(&info)))
	if errno == 0 {
		p.PPID, p.UID, p.GID = int32(info.Ppid), info.Ruid, info.Rgid
	} else {
		p.UID = ownerOf(pid) // before Linux 6.13
	}
	var st unix.Stat_t
	if hasPidfs(pidfd) && unix.Fstat(pidfd, &st) == nil {
		p.Token = st.Ino // unique for the boot
	}
	return p
}

// pidfsMagic is PID_FS_MAGIC of linux/magic.h.
const pidfsMagic = 0x50494446

// pidfs is 0 until the first pidfd was looked at, then 1 or 2.
var pidfs atomic.Int32

// hasPidfs reports whether pidfds have inode numbers of their own (Linux 6.9). Before, all of them share one, which
// would make all processes the same.
func hasPidfs(pidfd int) bool {
	if known := pidfs.Load(); known != 0 {
		return known == 1
	}
	var fs unix.Statfs_t
	known := int32(2)
	if unix.Fstatfs(pidfd, &fs) == nil && fs.Type == pidfsMagic {
		known = 1
	}
	pidfs.Store(known)
	return known == 1
}

// unknownUID is the kernel's invalid user id; no process has it.
const unknownUID = ^uint32(0)

// ownerOf reads the owner of /proc/PID, which is the effective user of a process that can be dumped.
func ownerOf(pid int32) uint32 {
	var st unix.Stat_t
	if unix.Stat("/proc/"+strconv.Itoa(int(pid)), &st) != nil {
		return unknownUID
	}
	return st.Uid
}

// Comm returns the command name of a process for people, or "". It opens a file in /proc, so it is only for use
// after the verdict.
func Comm(pid int32) string {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(int(pid)) + "/comm")
	if err != nil || len(b) == 0 {
		return ""
	}
	return string(b[:len(b)-1])
}

// Program returns the file name of what a process runs, or "". Unlike Comm it only reads a link, so it may be used
// while a caller waits.
func Program(pid int32) string {
	var buf [4096]byte
	n, err := unix.Readlink("/proc/"+strconv.Itoa(int(pid))+"/exe", buf[:])
	if err != nil {
		return ""
	}
	return filepath.Base(string(buf[:n]))
}
