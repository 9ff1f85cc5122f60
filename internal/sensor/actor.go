package sensor

import (
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/event"
)

// actors knows the processes behind events. It holds a pidfd of those that it saw last: while the kernel can say whose
// the process behind it is, its number is nobody else's. So one system call describes a process that was seen
// before, in place of four. It is for one goroutine; the zero value is ready, and close gives up what it holds.
//
// The process behind an event waits in the kernel until it is answered, so that its number is its own, unless it is
// killed meanwhile: then nobody gets the file, and at worst a record names another process (decision 13).
type actors struct {
	seen [actorSlots]seenActor // by process number
}

// actorSlots is how many are held. A build has more processes, but few that open files at one time.
const actorSlots = 64

// seenActor is one of them; fd is valid where pid is not 0.
type seenActor struct {
	pid   int32
	fd    int
	token uint64
}

// of describes the process pid. Of one that is gone, or is not in our pid namespace, only the number is known.
func (a *actors) of(pid int32) event.Process {
	if pid <= 0 {
		return stranger(pid)
	}
	x := &a.seen[pid%actorSlots]
	if x.pid == pid {
		if p, ok := describe(x); ok {
			return p
		}
	}
	x.letGo()
	fd, err := unix.PidfdOpen(int(pid), 0)
	if err != nil {
		return stranger(pid)
	}
	*x = seenActor{pid: pid, fd: fd, token: tokenOf(fd)}
	p, ok := describe(x)
	if !ok {
		x.letGo()
		return stranger(pid)
	}
	return p
}

func (a *actors) close() {
	for i := range a.seen {
		a.seen[i].letGo()
	}
}

func (x *seenActor) letGo() {
	if x.pid != 0 {
		closeFD(x.fd)
	}
	*x = seenActor{}
}

// describe reports whether the process still has its number, and if so whose it is.
func describe(x *seenActor) (event.Process, bool) {
	p := stranger(x.pid)
	p.Token = x.token
	if info, ok := credentials(x.fd); ok {
		p.PPID, p.UID, p.GID = int32(info.Ppid), info.Ruid, info.Rgid
		return p, true
	}
	p.UID = ownerOf(x.pid)
	return p, unix.PidfdSendSignal(x.fd, 0, nil, 0) == nil // after the look at what the number stands for
}

func stranger(pid int32) event.Process {
	return event.Process{PID: pid, UID: unknownUID, GID: unknownUID}
}

// actorBehind describes the process behind a pidfd that an event came with. Without one (already reaped) only the
// number is known.
func actorBehind(pid int32, pidfd int) event.Process {
	if pidfd < 0 {
		return stranger(pid)
	}
	p, _ := describe(&seenActor{pid: pid, fd: pidfd, token: tokenOf(pidfd)})
	return p
}

// tokenOf returns the number that the process behind a pidfd has for the life of the boot, or 0 where the kernel gives
// none.
func tokenOf(pidfd int) uint64 {
	var st unix.Stat_t
	if pidfd < 0 || !pidfds().unique || unix.Fstat(pidfd, &st) != nil {
		return 0
	}
	return st.Ino
}

// credentials asks the kernel whose the process behind a pidfd is.
func credentials(pidfd int) (info unix.PidfdInfo, ok bool) {
	ok = pidfds().told && askInfo(pidfd, &info)
	return info, ok
}

func askInfo(pidfd int, into *unix.PidfdInfo) bool {
	into.Mask = unix.PIDFD_INFO_CREDS
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(pidfd), uintptr(unix.PIDFD_GET_INFO),
		uintptr(unsafe.Pointer(into)))
	return errno == 0
}

// pidfdKind is what this kernel's pidfds can say.
type pidfdKind struct {
	told   bool // whose the process is (Linux 6.13)
	unique bool // they have inode numbers of their own (6.9); before, all share one, which would make all the same
}

// pidfsMagic is PID_FS_MAGIC of linux/magic.h.
const pidfsMagic = 0x50494446

// pidfds finds out once what would otherwise be refused at each event.
var pidfds = sync.OnceValue(func() (k pidfdKind) {
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return k // everything is found in /proc, too
	}
	defer closeFD(fd)
	var info unix.PidfdInfo
	var fs unix.Statfs_t
	k.told = askInfo(fd, &info)
	k.unique = unix.Fstatfs(fd, &fs) == nil && fs.Type == pidfsMagic
	return k
})

// unknownUID is the kernel's invalid user id; no process has it.
const unknownUID = ^uint32(0)

// processes is /proc, held open.
var processes = sync.OnceValue(func() int { return openFolder("/proc") })

// inProc writes the name of a process's folder in /proc and what follows it, with its NUL.
func inProc(into *[32]byte, pid int32, rest string) *byte {
	b := append(strconv.AppendInt(into[:0], int64(pid), 10), rest...)
	return unsafe.SliceData(append(b, 0)) // there is room
}

// ownerOf returns the owner of /proc/PID, which is the effective user of a process that can be dumped.
func ownerOf(pid int32) uint32 {
	var name [32]byte
	var st unix.Stat_t
	_, _, errno := unix.Syscall6(unix.SYS_NEWFSTATAT, uintptr(processes()),
		uintptr(unsafe.Pointer(inProc(&name, pid, ""))), uintptr(unsafe.Pointer(&st)), 0, 0, 0)
	if errno != 0 {
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
	var name [32]byte
	var buf [pathMax]byte
	n, _, errno := unix.Syscall6(unix.SYS_READLINKAT, uintptr(processes()),
		uintptr(unsafe.Pointer(inProc(&name, pid, "/exe"))), uintptr(unsafe.Pointer(&buf)), pathMax, 0, 0)
	if errno != 0 {
		return ""
	}
	return filepath.Base(string(buf[:n]))
}
