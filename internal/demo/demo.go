package demo

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/keepout-security/keepout/internal/playground"
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
var ErrTold = playground.ErrTold

// homePattern begins the names of demonstrations' folders.
const homePattern = "keepout-demo-"

// Run shows everything: it checks what is there, has the story told by a second process in a mount namespace
// of its own (Perform), waits until every process of it is gone, and removes its folder. It returns nil when
// the story held, and a health.Problem when something is missing. Ending ctx ends it in order.
func Run(ctx context.Context, opt Options) error {
	if err := playground.Missing(opt.Exe, "demo"); err != nil {
		return err
	}
	// A closed terminal or pipe must end it in order too; a caught SIGPIPE is reset in what is started.
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGHUP, syscall.SIGPIPE)
	defer stop()
	playground.Sweep(os.TempDir(), homePattern)
	h, err := playground.Claim(os.TempDir(), homePattern)
	if err != nil {
		return err
	}
	t := newTeller(opt)
	args := []string{"demo", "--" + playground.StageFlag, h.Dir}
	if opt.Once {
		args = append(args, "--once")
	}
	err = h.Enact(ctx, opt.Exe, args, opt.Out)
	traces := h.Leave()
	if len(traces) > 0 {
		t.bad("left behind: %s", strings.Join(traces, "; "))
		return ErrTold
	}
	if err == nil || errors.Is(err, ErrTold) {
		t.good("nothing left behind: no process, no mount, no mark, no file")
	}
	return err
}
