package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// IsLauncher reports whether this process was started by Start to become a provider. A program whose package
// daemon starts providers calls it, and then Launch, before anything else.
func IsLauncher() bool { return len(os.Args) > 0 && os.Args[0] == launcherName }

// Launch confines this process and becomes the provider. It returns only on an error, which it has written to
// standard error.
func Launch() int {
	runtime.LockOSThread() // what follows is per thread, and execve(2) keeps this one
	err := becomeProvider()
	fmt.Fprintln(os.Stderr, "launch:", err)
	return 1
}

func becomeProvider() error {
	var l launch
	if err := json.NewDecoder(io.LimitReader(os.NewFile(launchFD, "launch"), 64<<10)).Decode(&l); err != nil {
		return fmt.Errorf("read instructions: %w", err)
	}
	if l.UID == 0 {
		l.Limits.Processes = 0 // the kernel counts all processes of the user, whom this provider shares with others
	}
	if err := limit(l.Limits); err != nil {
		return err
	}
	if err := giveUp(l.UID); err != nil {
		return err
	}
	unix.Umask(0o077)
	if err := unix.Chdir("/"); err != nil {
		return fmt.Errorf("chdir: %w", err)
	}
	// A change of user clears it, so it is set last; if the core is gone already, its sockets are closed and
	// the provider ends by itself.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("set parent death signal: %w", err)
	}
	if err := unix.CloseRange(programFD+1, ^uint(0), unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("close descriptors: %w", err)
	}
	return execute(l.Program)
}

// environment is all that a provider inherits: enough to find its own tools, and a crash that is short.
func environment() []string {
	return []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "GOTRACEBACK=single", "HOME=/", "LANG=C.UTF-8"}
}

// execute runs the program by the descriptor whose digest was checked, not by a path that may have changed, and
// that the provider's user may not even be able to reach.
func execute(program string) error {
	argv, err := syscall.SlicePtrFromStrings([]string{program})
	if err != nil {
		return fmt.Errorf("argv: %w", err)
	}
	envv, err := syscall.SlicePtrFromStrings(environment())
	if err != nil {
		return fmt.Errorf("environment: %w", err)
	}
	// A script is opened again by its interpreter under /dev/fd, so only there the descriptor must stay open.
	var magic [2]byte
	if n, err := unix.Pread(programFD, magic[:], 0); err != nil || n < 2 || string(magic[:]) != "#!" {
		unix.CloseOnExec(programFD)
	}
	empty := [1]byte{}
	_, _, errno := unix.RawSyscall6(unix.SYS_EXECVEAT, programFD, uintptr(unsafe.Pointer(&empty[0])),
		uintptr(unsafe.Pointer(&argv[0])), uintptr(unsafe.Pointer(&envv[0])), unix.AT_EMPTY_PATH, 0)
	return fmt.Errorf("execute %s: %w", program, errno)
}

func limit(l Limits) error {
	for _, r := range []struct {
		name     string
		resource int
		value    uint64
	}{
		{"core size", unix.RLIMIT_CORE, 0},
		{"memory", unix.RLIMIT_DATA, l.Memory},
		{"processes", unix.RLIMIT_NPROC, l.Processes},
		{"open files", unix.RLIMIT_NOFILE, l.Files},
	} {
		if r.value == 0 && r.resource != unix.RLIMIT_CORE {
			continue
		}
		if err := unix.Setrlimit(r.resource, &unix.Rlimit{Cur: r.value, Max: r.value}); err != nil {
			return fmt.Errorf("limit %s to %d: %w", r.name, r.value, err)
		}
	}
	return nil
}

// giveUp drops groups, user, capabilities and the way back to them. Raw system calls act on this thread only,
// which is the one that goes on.
func giveUp(uid uint32) error {
	// A new session keyring: the core's may hold keys, and possession is enough to use them; keyctl(2). A kernel
	// without keyrings has none to hide.
	_, _, _ = unix.RawSyscall(unix.SYS_KEYCTL, unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0)
	if uid != 0 {
		for capability := uintptr(0); ; capability++ {
			err := unix.Prctl(unix.PR_CAPBSET_DROP, capability, 0, 0, 0)
			if errors.Is(err, unix.EINVAL) {
				break // past the last capability of this kernel
			}
			if err != nil {
				return fmt.Errorf("drop capability %d: %w", capability, err)
			}
		}
		if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0); errno != 0 {
			return fmt.Errorf("setgroups: %w", errno)
		}
		id := uintptr(uid)
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESGID, id, id, id); errno != 0 {
			return fmt.Errorf("setresgid %d: %w", uid, errno)
		}
		// Leaving user 0 clears the permitted and effective capabilities; capabilities(7).
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, id, id, id); errno != 0 {
			return fmt.Errorf("setresuid %d: %w", uid, errno)
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	return nil
}
