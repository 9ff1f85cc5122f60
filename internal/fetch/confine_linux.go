package fetch

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"github.com/landlock-lsm/go-landlock/landlock"
	"golang.org/x/sys/unix"
)

// giveUp makes the fetcher's own folders, and becomes this program again as a user without any capability, who can get
// none back. It returns only with an error.
func giveUp(o *Options, user int, tokenFile string, args []string) error {
	for _, dir := range []struct {
		path string
		mode os.FileMode
	}{{o.own(), 0o700}, {o.Staging, 0o750}} {
		if err := os.MkdirAll(dir.path, dir.mode); err != nil {
			return fmt.Errorf("its folder: %w", err)
		}
		if err := os.Lchown(dir.path, user, user); err != nil {
			return fmt.Errorf("its folder: %w", err)
		}
	}
	if err := o.prepareOutbox(user); err != nil {
		o.Log.Warn("diagnostics may stay in the outbox", slog.Any("error", err))
	}
	// This thread alone gives up its rights: execve(2) ends all others.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// Whoever wants it to end with them is still obeyed: a change of user forgets that (prctl(2)). Precondition: this is
	// the first thread, of which alone that is known.
	var ends int32
	if err := unix.Prctl(unix.PR_GET_PDEATHSIG, uintptr(unsafe.Pointer(&ends)), 0, 0, 0); err != nil {
		return fmt.Errorf("ask with whom to end: %w", err)
	}
	if err := errors.Join(syscall.Setgroups(nil), syscall.Setresgid(user, user, user), syscall.Setresuid(user, user, user),
		unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(ends), 0, 0, 0),
	); err != nil {
		return fmt.Errorf("give up rights: %w", err)
	}
	if tokenFile != "" && o.Token != "" {
		if err := o.copyToken(); err != nil {
			return fmt.Errorf("hand over the token: %w", err)
		}
	}
	argv := append([]string{os.Args[0], "-confined"}, args...)
	return fmt.Errorf("begin anew: %w", syscall.Exec("/proc/self/exe", argv, os.Environ()))
}

// restrict leaves only what it needs of the file system, where the kernel has Landlock.
func (o *Options) restrict() {
	paths := []landlock.Rule{
		landlock.RWDirs(o.own(), o.Staging).IgnoreIfMissing(),
		landlock.RODirs(o.report(), o.outbox(), "/etc", "/usr", "/lib", "/run/systemd/resolve").IgnoreIfMissing(),
		landlock.ROFiles("/proc/sys/kernel/random/boot_id").IgnoreIfMissing(),
		landlock.RWFiles("/dev/null").IgnoreIfMissing(),
	}
	if o.From != "" {
		paths = append(paths, landlock.RODirs(o.From).IgnoreIfMissing())
	}
	if err := landlock.V5.BestEffort().RestrictPaths(paths...); err != nil {
		o.Log.Warn("without Landlock", slog.Any("error", err))
	}
}
