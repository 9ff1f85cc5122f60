package preview

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/internal/health"
	"github.com/keepout-security/keepout/internal/netlab"
	"github.com/keepout-security/keepout/internal/playground"
)

// The stories that can be told.
const (
	ChannelFile = "channel-file-291" // a good release, then signed content that ends its engine
	Silent      = "silent"           // a good release, then one whose hosts fall silent
	Healthy     = "healthy"          // a good release, and nothing else
)

// Scenarios lists them, the usual one first.
func Scenarios() []string { return []string{ChannelFile, Silent, Healthy} }

// Defaults of a preview.
const (
	DefaultHosts = 20
	speed        = 120             // of rollouts: half an hour of soaking is a quarter of a minute
	watchdog     = 8 * time.Minute // for the whole story, whatever hangs
	homePattern  = "keepout-preview-"
)

// Show says what to tell and where.
type Show struct {
	Exe      string   // the keepout command itself; everything else lies beside it
	Scenario string   // one of Scenarios
	Hosts    int      // MinHosts to MaxHosts
	JSON     bool     // print a Result on Result when it is over
	Out      *os.File // where the story is told
	Result   *os.File
	// Paint puts a colour, an SGR code such as "31;1", around a text, or does not.
	Paint func(code, text string) string
	// Width is the terminal's, in columns; 0: Out is not a terminal.
	Width int
}

func (o *Show) screen() *screen {
	return &screen{out: o.Out, paint: o.Paint, width: o.Width, began: time.Now()}
}

// Check says what is wrong with the options.
func (o *Show) Check() error {
	if !slices.Contains(Scenarios(), o.Scenario) {
		return fmt.Errorf("scenario %q is not known: %s", o.Scenario, strings.Join(Scenarios(), ", "))
	}
	if o.Hosts < MinHosts || o.Hosts > MaxHosts {
		return fmt.Errorf("--hosts %d: choose %d to %d", o.Hosts, MinHosts, MaxHosts)
	}
	return nil
}

// Run tells a story: it checks what is there, has it told by a second process in a mount namespace of its own
// (Perform), waits until every process of it is gone, and removes its folder. It returns nil when the story held, and a
// health.Problem when something is missing. Ending ctx ends it in order.
func Run(ctx context.Context, opt Show) error {
	if err := missing(opt.Exe); err != nil {
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
	args := []string{
		"fleet", "preview", "--" + playground.StageFlag, h.Dir, "--scenario", opt.Scenario,
		"--hosts", strconv.Itoa(opt.Hosts),
	}
	out := opt.Out
	if opt.JSON {
		args, out = append(args, "-o", "json"), opt.Result
	}
	err = h.Enact(ctx, opt.Exe, args, out)
	traces := h.Leave()
	s := opt.screen()
	if len(traces) > 0 {
		s.bad("left behind: %s", strings.Join(traces, "; "))
		return playground.ErrTold
	}
	if err == nil || errors.Is(err, playground.ErrTold) {
		s.good("nothing left behind: no process, no mount, no network namespace, no file")
	}
	return err
}

// missing says what the machine or the build lacks, or nil.
func missing(exe string) error {
	err := playground.Missing(exe, "fleet preview", "keepout-fetch", "keepout-fleet",
		filepath.Join("hostile", Provider, "keepout-"+Provider))
	if err != nil {
		return err
	}
	star, err := netlab.NewStar(1)
	if err != nil {
		return health.Problem{
			Code: "KO-1108", Title: "no network namespaces joined with veth pairs: " + err.Error(),
			Severity: health.Failure, Fix: "modprobe veth, or run it on the host itself, or docker run --privileged",
		}
	}
	return star.Close()
}

// Perform tells the story in the folder that Run made, and leaves it as it found it. Run starts it as a process with a
// mount namespace of its own; anywhere else it refuses. It returns playground.ErrTold when it has said itself what went
// wrong.
func Perform(ctx context.Context, opt Show, dir string) error {
	if err := playground.Entrusted(dir, "keepout fleet preview"); err != nil {
		return err
	}
	unix.Umask(0o022) // engines run as users of their own, and must reach their content
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGHUP, syscall.SIGPIPE)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, watchdog)
	defer cancel()
	s := &story{screen: opt.screen(), opt: opt, dir: dir}
	s.result.Scenario, s.result.Hosts = opt.Scenario, opt.Hosts
	err := s.tell(ctx)
	err = s.end(ctx, err)
	if opt.JSON {
		s.result.Held = err == nil
		return errors.Join(err, s.print(opt.Result))
	}
	return err
}

// end says how it went and takes everything down.
func (s *story) end(ctx context.Context, err error) error {
	s.line("")
	switch {
	case err == nil:
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		s.bad("%v; it may take %v at most", err, watchdog)
	case ctx.Err() != nil:
		s.note("interrupted before the end of the story")
	default:
		s.bad("%v", err)
		s.logs()
	}
	if s.fleet != nil {
		s.note("taking the fleet down")
	}
	down := []error{err}
	if s.fleet != nil {
		down = append(down, s.fleet.Close())
	}
	down = append(down, os.RemoveAll(s.dir))
	if untold := errors.Join(down[1:]...); untold != nil {
		s.bad("%v", untold)
	}
	if errors.Join(down...) != nil {
		return playground.ErrTold
	}
	return nil
}

// logs shows the ends of a few logs, for a story that failed.
func (s *story) logs() {
	if s.fleet == nil || s.fleet.plane == nil {
		return
	}
	s.note("keepout-fleet said:\n%s", s.fleet.PlaneLog())
	for _, h := range s.fleet.Hosts[:min(len(s.fleet.Hosts), 2)] {
		s.note("%s", h.Log())
	}
}

// Result is what a preview showed, as data. Field names are stable.
type Result struct {
	Scenario string    `json:"scenario"`
	Hosts    int       `json:"hosts"`
	Held     bool      `json:"held"` // everything was as the story says
	Seconds  float64   `json:"seconds"`
	Rollouts []Outcome `json:"rollouts"`
}

// Outcome is what became of one rollout.
type Outcome struct {
	Name     string          `json:"name"`
	Status   string          `json:"status"` // complete or halted
	Reason   string          `json:"reason,omitempty"`
	Evidence json.RawMessage `json:"evidence,omitempty"`
	Seconds  float64         `json:"seconds"`           // to the status
	BackIn   float64         `json:"back_in,omitempty"` // seconds from the halt until every host ran what it ran before
	Rings    []RingOutcome   `json:"rings"`
}

// RingOutcome is what became of one ring.
type RingOutcome struct {
	Ring      int      `json:"ring"`
	Role      string   `json:"role"` // ring or control
	Hosts     int      `json:"hosts"`
	Granted   int      `json:"granted"`
	Confirmed int      `json:"confirmed"`
	Activated []string `json:"activated"` // hosts that were seen to run the release, or their engine to end of it
}

// print writes the result.
func (s *story) print(w io.Writer) error {
	s.result.Seconds = time.Since(s.began).Seconds()
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	if err := e.Encode(&s.result); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}
