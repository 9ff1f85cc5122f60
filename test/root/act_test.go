package root

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/internal/sensor/fanotify"
)

// actVariable makes this test binary a process that does one thing, so that a test can have an opener or a
// reader that is killed, limited or watched from outside.
const actVariable = "KEEPOUT_ROOT_ACT"

// perform does one act and returns the exit code: 0, or 13 for EPERM, or 1.
func perform(act string, args []string) int {
	var err error
	switch act {
	case "open":
		err = open(args[0])
	case "open-together":
		err = openTogether(args)
	case "exec":
		err = unix.Exec(args[0], args, os.Environ())
	case "fexec":
		err = executeFromMemory(args[0])
	case "small-table":
		err = readWithSmallTable(args[0])
	default:
		err = fmt.Errorf("unknown act %q", act)
	}
	switch {
	case err == nil:
		return 0
	case errors.Is(err, unix.EPERM):
		return exitEPERM
	default:
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
}

const exitEPERM = 13

// actor prepares a process that performs an act.
func actor(t testing.TB, act string, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	cmd := exec.CommandContext(t.Context(), self, args...)
	cmd.Env = append(os.Environ(), actVariable+"="+act)
	cmd.Stderr = os.Stderr
	return cmd
}

// openTogether opens every path at the same time and fails if one open does.
func openTogether(paths []string) error {
	done := together(paths)
	var errs []error
	for range paths {
		errs = append(errs, <-done)
	}
	return errors.Join(errs...)
}

// executeFromMemory runs a copy of a program that is in no file system that can be marked.
func executeFromMemory(program string) error {
	b, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	fd, err := unix.MemfdCreate("copy", 0)
	if err != nil {
		return fmt.Errorf("memfd: %w", err)
	}
	if _, err := unix.Write(fd, b); err != nil {
		return fmt.Errorf("write memfd: %w", err)
	}
	cmd := exec.Command(fmt.Sprintf("/proc/self/fd/%d", fd))
	cmd.Args = []string{"true"}
	return cmd.Run()
}

// readWithSmallTable listens to a file system with no descriptor left for the event, says so on standard
// output, and ends well when the kernel reports that. Its standard input ends it.
func readWithSmallTable(dir string) error {
	g, err := fanotify.NewPermission()
	if err != nil {
		return err
	}
	if err := g.MarkFilesystem(dir, fanotify.OpenPerm); err != nil {
		return err
	}
	go func() { // whatever happens, nobody waits for this process longer than its parent lives
		_, _ = os.Stdin.Read(make([]byte, 1))
		os.Exit(3)
	}()
	lowest, err := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, 0) // the table is full below this number
	if err != nil {
		return err
	}
	_ = unix.Close(lowest)
	limit := &unix.Rlimit{Cur: uint64(lowest), Max: uint64(lowest)}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, limit); err != nil {
		return fmt.Errorf("setrlimit: %w", err)
	}
	fmt.Println("ready")
	_, err = g.ReadBlocking(make([]byte, 4096))
	if !errors.Is(err, unix.EMFILE) {
		return fmt.Errorf("read said %w, want EMFILE", err)
	}
	return nil
}
