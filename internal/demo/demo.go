package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/internal/health"
)

// Options say what to show and where.
type Options struct {
	Exe  string   // the keepout command itself; keepoutd and providers/ lie beside it
	Once bool     // end after the story, without the live view
	Out  *os.File // where the story is told

	// Paint puts a colour, an SGR code such as "31;1", around a text, or does not.
	Paint func(code, text string) string

	// Width is the terminal's, in columns; longer lines of programs are cut. 0: Out is not a terminal.
	Width int

	// Live shows the daemon at a run directory until ctx ends or the person has had enough. It is called only
	// when Out is a terminal.
	Live func(ctx context.Context, runDir string) error
}

// ErrTold is returned when the demonstration failed and has said so already.
var ErrTold = errors.New("the demonstration did not show what it should")

// stopTime is how long the stage may take to end in order once it is asked to.
const stopTime = 20 * time.Second

// Run shows everything: it checks what is there, has the story told by a second process in a mount namespace
// of its own (Perform), waits until every process of it is gone, and removes its folder. It returns nil when
// the story held, and a health.Problem when something is missing. Ending ctx ends it in order.
func Run(ctx context.Context, opt Options) error {
	if err := missing(opt.Exe); err != nil {
		return err
	}
	// A closed terminal or pipe must end it in order too; a caught SIGPIPE is reset in what is started.
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGHUP, syscall.SIGPIPE)
	defer stop()
	sweep(os.TempDir())
	h, err := claim(os.TempDir())
	if err != nil {
		return err
	}
	t := newTeller(opt)
	err = enact(ctx, opt, h)
	traces := append(h.reap(reapTime), h.remove()...)
	if len(traces) > 0 {
		t.bad("left behind: %s", strings.Join(traces, "; "))
		return ErrTold
	}
	if err == nil || errors.Is(err, ErrTold) {
		t.good("nothing left behind: no process, no mount, no mark, no file")
	}
	return err
}

// enact runs the second process. It is killed with us, and everything that it starts is ours to wait for.
func enact(ctx context.Context, opt Options, h *home) error {
	// Orphans come to us instead of to init, so that reap sees whatever would be left behind (prctl(2)).
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become the reaper of the demonstration: %w", err)
	}
	// Pdeathsig is sent when the thread that started the child ends, so this one must stay.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	args := []string{"demo", "--" + StageFlag, h.dir}
	if opt.Once {
		args = append(args, "--once")
	}
	cmd := exec.CommandContext(ctx, opt.Exe, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, opt.Out, os.Stderr
	cmd.ExtraFiles = []*os.File{h.lock} // the folder is in use until both of us are gone
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopTime
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
		return fmt.Errorf("the demonstration ended: %w", err)
	}
}
