package drill

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/keepout-security/keepout/internal/health"
	"github.com/keepout-security/keepout/internal/playground"
)

// Options say what to run and where to tell it.
type Options struct {
	Exe     string // the keepout command itself; keepoutd, providers/ and hostile/ lie beside it
	Version string
	Names   []string      // drills or groups; empty: all
	For     time.Duration // how long each fault lasts at least, DefaultFor to MaxFor
	Report  string        // HTML file to write; empty: none
	JSON    bool          // print the report as JSON instead of text

	RunDir   string // Live: of the daemon
	Provider string // Live: which one is hit; empty: the first audit provider that runs, or else the first one
	Yes      bool   // Live: protection may be interrupted

	Out *os.File

	// Paint puts a colour, an SGR code such as "31;1", around a text, or does not.
	Paint func(code, text string) string
}

// Bounds of a drill.
const (
	DefaultFor = 3 * time.Second
	MaxFor     = 10 * time.Minute

	warmUp    = 1500 * time.Millisecond // of the openers, before the fault; longer than the soak of the first content
	patience  = 15 * time.Second        // for what must be seen after the fault, on a busy machine
	readyTime = 30 * time.Second        // for all three providers to vote
	overtime  = 30 * time.Second        // after which the watchdog ends a drill
)

// homePattern begins the names of the drills' folders.
const homePattern = "keepout-drill-"

// ErrFailed is returned when a drill failed; the report says which.
var ErrFailed = playground.ErrTold

// Run runs the drills in a second process (Perform), waits until every process of it is gone, and removes its folder.
// It returns nil when all passed, ErrFailed when one did not, and a health.Problem when something is missing. args
// are this process's command line, which the second one gets as well. Ending ctx ends it in order.
func Run(ctx context.Context, opt Options, args []string) error {
	hostile := []string{"hostile/faulty/keepout-faulty", "hostile/channel291/keepout-channel291"}
	if err := playground.Missing(opt.Exe, "drill", hostile...); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGHUP, syscall.SIGPIPE)
	defer stop()
	playground.Sweep(os.TempDir(), homePattern)
	h, err := playground.Claim(os.TempDir(), homePattern)
	if err != nil {
		return err
	}
	err = h.Enact(ctx, opt.Exe, append(args, "--"+playground.StageFlag+"="+h.Dir), opt.Out)
	if traces := h.Leave(); len(traces) > 0 {
		return errors.Join(err, fmt.Errorf("left behind: %s", strings.Join(traces, "; ")))
	}
	return err
}

// Select finds the drills that names stand for, each once, in the order of the catalogue.
func Select(names []string) ([]Drill, error) {
	wanted := map[string]bool{}
	for _, name := range names {
		found := Find(name)
		if len(found) == 0 {
			return nil, health.Problem{
				Code: "KO-2012", Title: fmt.Sprintf("there is no drill %q", name), Severity: health.Failure, Fix: "keepout drill",
			}
		}
		for _, d := range found {
			wanted[d.Name] = true
		}
	}
	var out []Drill
	for _, d := range Catalogue() {
		if len(names) == 0 || wanted[d.Name] {
			out = append(out, d)
		}
	}
	return out, nil
}

// Perform runs the drills in the folder that Run made, tells them, and leaves the folder as it found it. Run starts it
// as a process with a mount namespace of its own; anywhere else it refuses.
func Perform(ctx context.Context, opt Options, dir string) (err error) {
	if err := playground.Entrusted(dir, "keepout drill"); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGHUP, syscall.SIGPIPE)
	defer stop()
	drills, err := Select(opt.Names)
	if err != nil {
		return err
	}
	watched := filepath.Join(dir, playgroundDir)
	if err := playground.Mount(watched); err != nil {
		return err
	}
	// The first process removes the folder, too, unless it was killed.
	defer func() { err = errors.Join(err, playground.Unmount(watched), os.RemoveAll(dir)) }()
	if err := errors.Join(playground.ProbeMark(watched), furnishPlayground(watched)); err != nil {
		return err
	}
	return perform(ctx, opt, &Report{}, drills, func(d *Drill) Result {
		s := &scene{bin: filepath.Dir(opt.Exe), dir: filepath.Join(dir, d.Name), playground: watched, drill: d}
		return s.run(ctx, opt.For)
	})
}

// perform runs drills one after the other, tells them, and says how it went.
func perform(ctx context.Context, opt Options, report *Report, drills []Drill, run func(*Drill) Result) error {
	report.Version, report.Began = opt.Version, time.Now()
	for i := range drills {
		r := run(&drills[i])
		if ctx.Err() != nil {
			return fmt.Errorf("interrupted in the drill %s", r.Name)
		}
		if !opt.JSON {
			tell(opt, i+1, &r)
		}
		if report.Drills = append(report.Drills, r); r.Passed {
			report.Passed++
		} else {
			report.Failed++
		}
	}
	report.Seconds = time.Since(report.Began).Seconds()
	return finish(opt, report)
}

// finish writes the report and says how it went.
func finish(opt Options, report *Report) error {
	if opt.JSON {
		if err := writeJSON(opt.Out, report); err != nil {
			return err
		}
	} else {
		conclude(opt, report)
	}
	if opt.Report != "" {
		if err := WriteHTML(opt.Report, report); err != nil {
			return err
		}
	}
	if report.Failed > 0 {
		return ErrFailed
	}
	return nil
}
