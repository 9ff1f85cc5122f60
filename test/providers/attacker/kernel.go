package main

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// closing turns the result of a call that makes a descriptor into an error, and closes the descriptor.
func closing(fd uintptr, errno unix.Errno) error {
	if errno != 0 {
		return errno
	}
	return unix.Close(int(fd))
}

func ioURing(Orders, int) error {
	var params [120]byte // struct io_uring_params
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&params[0])), 0)
	return closing(fd, errno)
}

func keyctl(Orders, int) error {
	_, err := unix.KeyctlGetKeyringID(unix.KEY_SPEC_USER_KEYRING, false)
	return err
}

func addKey(Orders, int) error {
	_, err := unix.AddKey("user", "keepout-attack", []byte("x"), unix.KEY_SPEC_PROCESS_KEYRING)
	return err
}

// bpfMap makes the smallest map; loading a program would be the next step.
func bpfMap(Orders, int) error {
	const create, array = 0, 2 // BPF_MAP_CREATE, BPF_MAP_TYPE_ARRAY
	attr := struct{ kind, key, value, entries uint32 }{array, 4, 4, 1}
	fd, _, errno := unix.Syscall(unix.SYS_BPF, create, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	return closing(fd, errno)
}

func perfEvent(Orders, int) error {
	attr := unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_CPU_CLOCK}
	attr.Size = uint32(unsafe.Sizeof(attr))
	fd, err := unix.PerfEventOpen(&attr, 0, -1, -1, 0)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

func userfaultfd(Orders, int) error {
	fd, _, errno := unix.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC, 0, 0)
	return closing(fd, errno)
}

func unshareMounts(Orders, int) error { return unix.Unshare(unix.CLONE_NEWNS) }

// newUserNamespace makes a process that is root in a namespace of its own: the start of most escapes.
func newUserNamespace(Orders, int) error {
	pid, _, errno := unix.RawSyscall6(unix.SYS_CLONE, unix.CLONE_NEWUSER|uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 {
		return errno
	}
	if pid == 0 {
		_, _, _ = unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
	}
	_, err := unix.Wait4(int(pid), nil, 0, nil)
	return err
}

func enterNamespace(o Orders, _ int) error {
	fd, err := victimNamespace(o, "uts")
	if err != nil {
		return err
	}
	return unix.Setns(fd, unix.CLONE_NEWUTS)
}

func mountTmpfs(o Orders, _ int) error {
	if err := unix.Mount("attack", o.State, "tmpfs", 0, "size=4k"); err != nil {
		return err
	}
	return unix.Unmount(o.State, unix.MNT_DETACH)
}

func changeRoot(o Orders, _ int) error { return unix.Chroot(o.State) }

const (
	forks       = 200
	memoryBytes = 128 << 20
	descriptors = 1000
)

// survive succeeds when nobody ends us for what we did, in the time that the test gives the platform to notice.
func survive(o Orders) error {
	time.Sleep(time.Duration(o.Hold) * time.Millisecond)
	runtime.KeepAlive(kept)
	return nil
}

// forkBomb makes children that only wait, and that end with this process. It is bounded.
func forkBomb(Orders, int) error {
	for range forks {
		pid, _, errno := unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
		if errno != 0 {
			return errno
		}
		if pid == 0 {
			_, _, _ = unix.RawSyscall(unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0)
			for {
				_, _, _ = unix.RawSyscall(unix.SYS_PPOLL, 0, 0, 0)
			}
		}
	}
	return nil
}

func touch(flags int) error {
	b, err := unix.Mmap(-1, 0, memoryBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANONYMOUS|flags)
	if err != nil {
		return err
	}
	for i := 0; i < len(b); i += os.Getpagesize() {
		b[i] = 1
	}
	return unix.Munmap(b)
}

func takeMemory(Orders, int) error { return touch(unix.MAP_PRIVATE) }

func takeShared(Orders, int) error { return touch(unix.MAP_SHARED) }

func takeDescriptors(o Orders, _ int) error {
	if err := os.WriteFile(filepath.Join(o.State, "one"), nil, 0o600); err != nil {
		return err
	}
	for range descriptors {
		fd, err := unix.Open(filepath.Join(o.State, "one"), unix.O_RDONLY, 0)
		if err != nil {
			return err
		}
		if fd < 0 {
			return errors.New("no descriptor")
		}
	}
	return nil
}
