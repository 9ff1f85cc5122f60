package playground

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/internal/health"
)

// StageFlag is the hidden flag by which a command tells its second process the folder.
const StageFlag = "stage"

// lockFD is the descriptor of the folder's lock in the second process.
const lockFD = 3

// size bounds the tmpfs.
const size = "64m"

// ErrTold is returned when the second process ended with an error that it has told already.
var ErrTold = errors.New("the performance did not show what it should")

// Enact runs exe with args as a second process, in a mount namespace of its own. It is killed with us, everything that
// it starts is ours to wait for (Leave), and ending ctx ends it in order.
func (h *Home) Enact(ctx context.Context, exe string, args []string, out *os.File) error {
	// Orphans come to us instead of to init, so that reap sees whatever would be left behind (prctl(2)).
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become the reaper of the second process: %w", err)
	}
	// Pdeathsig is sent when the thread that started the child ends, so this one must stay.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(ctx, exe, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, out, os.Stderr
	cmd.ExtraFiles = []*os.File{h.lock} // the folder is in use until both of us are gone
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 2 * stopTime
	// With CLONE_NEWNS the runtime also makes every mount private in the child, before it executes anything.
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		return health.Problem{
			Code: "KO-1102", Title: "no mount namespace of its own: " + err.Error(), Severity: health.Failure,
			Fix: "make run on the host itself, or docker run --privileged",
		}
	}
	err := cmd.Wait()
	var exit *exec.ExitError
	switch {
	case cmd.ProcessState != nil && cmd.ProcessState.Success():
		return nil // also when it was asked to end: it did so in order
	case errors.As(err, &exit) && exit.Exited():
		return ErrTold
	default:
		return fmt.Errorf("the second process ended: %w", err)
	}
}

// Entrusted proves that Enact made this process for dir: it holds the lock in it, and has a mount namespace that it
// does not share with its parent. Nothing may be mounted or removed before that is known. start is the command that
// a person is told to use instead.
func Entrusted(dir, start string) error {
	var held, there unix.Stat_t
	if err := unix.Fstat(lockFD, &held); err != nil {
		return fmt.Errorf("the folder's lock: %w; start it with: %s", err, start)
	}
	if err := unix.Lstat(filepath.Join(dir, LockName), &there); err != nil {
		return fmt.Errorf("the folder's lock: %w; start it with: %s", err, start)
	}
	if held.Dev != there.Dev || held.Ino != there.Ino {
		return errors.New("the folder belongs to another; start it with: " + start)
	}
	ours, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return fmt.Errorf("read the mount namespace: %w", err)
	}
	theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", os.Getppid()))
	if err != nil {
		return fmt.Errorf("read the mount namespace: %w", err)
	}
	if ours == theirs {
		return errors.New("not in a mount namespace of its own; start it with: " + start)
	}
	unix.CloseOnExec(lockFD) // only the two of us hold the folder
	return nil
}

// Mount makes a folder and mounts a tmpfs on it. Preconditions: the process is Entrusted with the folder above.
func Mount(path string) error {
	if err := os.Mkdir(path, 0o755); err != nil {
		return fmt.Errorf("playground: %w", err)
	}
	flags := uintptr(unix.MS_NOSUID | unix.MS_NODEV)
	if err := unix.Mount("playground", path, "tmpfs", flags, "mode=0755,size="+size); err != nil {
		return fmt.Errorf("mount the playground: %w", err)
	}
	return nil
}

// Unmount takes it away even while a program has a file of it open.
func Unmount(path string) error {
	err := unix.Unmount(path, unix.MNT_DETACH)
	if err != nil && !errors.Is(err, unix.EINVAL) { // EINVAL: it was never mounted
		return fmt.Errorf("unmount the playground: %w", err)
	}
	return nil
}
