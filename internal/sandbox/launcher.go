package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// IsLauncher reports whether this process was started by Start to become a provider. A program whose package
// daemon starts providers calls it, and then Launch, before anything else.
func IsLauncher() bool { return len(os.Args) > 0 && os.Args[0] == launcherName }

// Launch confines this process and becomes the provider. It returns only on an error, which it has written to
// standard error, or after a probe.
func Launch() int {
	runtime.LockOSThread() // what follows is per thread, and execve(2) keeps this one
	err := becomeProvider()
	if errors.Is(err, errProbed) {
		return 0
	}
	fmt.Fprintln(os.Stderr, "launch:", err)
	return 1
}

// errProbed ends a probe that went well.
var errProbed = errors.New("probed")

// slice is how long a provider's thread runs, in nanoseconds, before another one that has waited may take its place:
// the least that Linux 6.12 allows (__setparam_fair in kernel/sched/syscalls.c), while older ones have one for all. An
// engine that spins on every processor would otherwise make the others wait for ticks of 3 to 4 ms whenever they wake.
const slice = 100_000

func becomeProvider() error {
	var l launch
	if err := json.NewDecoder(io.LimitReader(os.NewFile(launchFD, "launch"), 64<<10)).Decode(&l); err != nil {
		return fmt.Errorf("read instructions: %w", err)
	}
	if err := enterNamespaces(l); err != nil {
		return err
	}
	if l.Probe {
		return errProbed
	}
	unix.Umask(0o077)
	// The core is served before others; a provider is not. Less is always allowed (setpriority(2)).
	share := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_NORMAL, Runtime: slice}
	if err := unix.SchedSetAttr(0, &share, 0); err != nil {
		return fmt.Errorf("set priority: %w", err)
	}
	if l.Layers.has(LayerLandlock) {
		if err := landlocked(l); err != nil {
			return err
		}
	}
	if err := unix.Chdir("/"); err != nil {
		return fmt.Errorf("chdir: %w", err)
	}
	if err := giveUp(l); err != nil {
		return err
	}
	// A change of user clears it, so it is set last; if the core is gone already, its sockets are closed and
	// the provider ends by itself.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("set parent death signal: %w", err)
	}
	if err := unix.CloseRange(programFD+1, ^uint(0), unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("close descriptors: %w", err)
	}
	return execute(l)
}

// enterNamespaces does what the namespaces that this process was born into are for.
func enterNamespaces(l launch) error {
	if l.Cgroup {
		if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
			return fmt.Errorf("cgroup namespace: %w", err)
		}
	}
	if l.Layers.has(LayerIPC) {
		if err := unix.Sethostname([]byte("provider")); err != nil {
			return fmt.Errorf("host name: %w", err)
		}
	}
	if l.Layers.has(LayerMount) {
		return newRoot(l)
	}
	return nil
}

// environment is all that a provider inherits: enough to find its own tools, and a crash that is short.
func environment(stateDir string) []string {
	return []string{
		"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "GOTRACEBACK=single", "HOME=/", "LANG=C.UTF-8", "TMPDIR=" + stateDir,
	}
}

// busyTries and busyWait bound the waiting for a program that is open for writing. Whoever wrote it into the store has
// closed it by now, but a child that was started meanwhile has what its parent had open until it executes
// (golang.org/issue/22315). Without waiting that were a crash of a provider that has done nothing.
const (
	busyTries = 100
	busyWait  = 10 * time.Millisecond
)

// execute runs the program by the descriptor whose digest was checked, not by a path that may have changed, and
// that the provider's user may not even be able to reach.
func execute(l launch) error {
	argv, err := syscall.SlicePtrFromStrings([]string{l.Program})
	if err != nil {
		return fmt.Errorf("argv: %w", err)
	}
	envv, err := syscall.SlicePtrFromStrings(environment(l.StateDir))
	if err != nil {
		return fmt.Errorf("environment: %w", err)
	}
	// A script is opened again by its interpreter under /dev/fd, so only there the descriptor must stay open.
	if !isScript() {
		unix.CloseOnExec(programFD)
	}
	if l.Layers.has(LayerSeccomp) {
		if err := filterCalls(l.Network); err != nil {
			return err
		}
	}
	// Last of all: they are for the provider, and may be too tight for our own runtime.
	if l.Layers.has(LayerLimits) {
		if err := limit(l); err != nil {
			return err
		}
	}
	errno := unix.ETXTBSY
	wait := unix.NsecToTimespec(int64(busyWait)) // which the kernel only reads
	for try := 0; errno == unix.ETXTBSY && try < busyTries; try++ {
		if try > 0 { // without the runtime, whose threads and poller the limits and the filter may not have room for
			_, _, _ = unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&wait)), 0, 0)
		}
		empty := [1]byte{}
		_, _, errno = unix.RawSyscall6(unix.SYS_EXECVEAT, programFD, uintptr(unsafe.Pointer(&empty[0])),
			uintptr(unsafe.Pointer(&argv[0])), uintptr(unsafe.Pointer(&envv[0])), unix.AT_EMPTY_PATH, 0)
	}
	if errno == unix.ENOENT { // the program is open, so it is not that
		return fmt.Errorf("execute %s: its interpreter or loader is not in the cage (%w): "+
			"ask for it under grants.mounts", l.Program, errno)
	}
	return fmt.Errorf("execute %s: %w", l.Program, errno)
}

// isScript reports whether the program needs an interpreter.
func isScript() bool {
	var magic [2]byte
	n, err := unix.Pread(programFD, magic[:], 0)
	return err == nil && n == len(magic) && string(magic[:]) == "#!"
}

// lockedMemory bounds what a provider can take away from the page cache for good, in bytes.
const lockedMemory = 64 << 10

func limit(l launch) error {
	if l.UID == 0 {
		l.Limits.Processes = 0 // the kernel counts all processes of the user, whom this provider shares with others
	}
	for _, r := range []struct {
		name     string
		resource int
		value    uint64
		always   bool
	}{
		{"core size", unix.RLIMIT_CORE, 0, true},
		{"locked memory", unix.RLIMIT_MEMLOCK, lockedMemory, true},
		{"message queues", unix.RLIMIT_MSGQUEUE, 0, true},
		{"real-time priority", unix.RLIMIT_RTPRIO, 0, true},
		{"memory", unix.RLIMIT_DATA, l.Limits.Memory, false},
		{"processes", unix.RLIMIT_NPROC, l.Limits.Processes, false},
		{"open files", unix.RLIMIT_NOFILE, l.Limits.Files, false},
		{"file size", unix.RLIMIT_FSIZE, l.Limits.State, false},
	} {
		if r.value == 0 && !r.always {
			continue
		}
		var now unix.Rlimit
		if err := unix.Getrlimit(r.resource, &now); err != nil {
			return fmt.Errorf("limit of %s: %w", r.name, err)
		}
		value := min(r.value, now.Max) // what bounds the core bounds its providers
		if err := unix.Setrlimit(r.resource, &unix.Rlimit{Cur: value, Max: value}); err != nil {
			return fmt.Errorf("limit %s to %d: %w", r.name, value, err)
		}
	}
	return nil
}

// giveUp drops groups, user, capabilities and the way back to them. Raw system calls act on this thread only,
// which is the one that goes on.
func giveUp(l launch) error {
	// A new session keyring: the core's may hold keys, and possession is enough to use them; keyctl(2). A kernel
	// without keyrings has none to hide.
	_, _, _ = unix.RawSyscall(unix.SYS_KEYCTL, unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0)
	if l.Layers.has(LayerCaps) {
		if err := dropBounds(); err != nil {
			return err
		}
	}
	if l.UID != 0 && !l.Userns {
		if err := changeUser(l.UID); err != nil {
			return err
		}
	}
	if l.Layers.has(LayerCaps) {
		if err := dropCapabilities(); err != nil {
			return err
		}
	}
	if l.Layers.has(LayerNoNew) {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("set no_new_privs: %w", err)
		}
	}
	return nil
}

// dropBounds takes every capability out of what a program file could ever give back. An ordinary user cannot, and need
// not: no_new_privs does it.
func dropBounds() error {
	for capability := uintptr(0); ; capability++ {
		err := unix.Prctl(unix.PR_CAPBSET_DROP, capability, 0, 0, 0)
		if errors.Is(err, unix.EINVAL) {
			return nil // past the last capability of this kernel
		}
		if err != nil {
			return fmt.Errorf("drop capability %d: %w", capability, err)
		}
	}
}

func changeUser(uid uint32) error {
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
	return nil
}

func dropCapabilities() error {
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("drop ambient capabilities: %w", err)
	}
	// Version 3 has two words of each set; capget(2).
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if err := unix.Capset(&header, &none[0]); err != nil {
		return fmt.Errorf("drop capabilities: %w", err)
	}
	return nil
}
