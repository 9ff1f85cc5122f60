package playground

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/control"
	"github.com/keepout-security/keepout/internal/roster"
)

const (
	stopTime  = 10 * time.Second // to end in order
	pollEvery = 20 * time.Millisecond
	readyTime = 30 * time.Second // for the platform and all its engines
	askTime   = 5 * time.Second  // for one answer of the daemon
	logLines  = 12               // of the daemon, shown when a step fails
)

// The names that a platform finds and makes below its folder.
const (
	ConfigFile = "keepout.yaml"
	StateDir   = "state"
	RunDir     = "run"
	LogFile    = "keepoutd.log"
)

// Platform is a running keepoutd. It is safe for concurrent use, but for Stop.
type Platform struct {
	Dir    string
	Exited <-chan struct{} // closed when it has ended, for whatever reason

	cmd *exec.Cmd
}

// Start starts keepoutd from the folder bin, on the configuration in dir, with the providers in another folder. It is
// killed with this process.
func Start(bin, dir, providers string) (*Platform, error) {
	log, err := os.Create(filepath.Join(dir, LogFile))
	if err != nil {
		return nil, fmt.Errorf("log of keepoutd: %w", err)
	}
	defer func() { _ = log.Close() }() // the child has its own
	// Not bound to a context: it must be stopped in order.
	cmd := exec.Command(filepath.Join(bin, "keepoutd"), //nolint:noctx // see above
		"--config", filepath.Join(dir, ConfigFile), "--state-dir", filepath.Join(dir, StateDir),
		"--run-dir", filepath.Join(dir, RunDir), "--providers-dir", providers)
	cmd.Stderr, cmd.Dir = log, "/"
	// A group of its own: Ctrl-C on the terminal is for us, who then stop it in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	exited := make(chan struct{})
	p := &Platform{Dir: dir, cmd: cmd, Exited: exited}
	started := make(chan error)
	go func() {
		// Pdeathsig is sent when the starting thread ends, so it waits here.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // how it ended is in its log
		}
		close(exited)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start keepoutd: %w", err)
	}
	return p, nil
}

// Stop ends keepoutd in order, or by force.
func (p *Platform) Stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !ended(err) {
		return fmt.Errorf("stop keepoutd: %w", err)
	}
	select {
	case <-p.Exited:
		return nil
	case <-time.After(stopTime):
	}
	err := p.cmd.Process.Kill()
	<-p.Exited
	return errors.Join(errors.New("keepoutd did not stop and was killed"), err)
}

// Kill ends keepoutd at once; the kernel then allows whatever waits for it. It may be called at any time.
func (p *Platform) Kill() { _ = p.cmd.Process.Kill() }

// LastLog returns the end of keepoutd's log.
func (p *Platform) LastLog() string {
	text, err := os.ReadFile(filepath.Join(p.Dir, LogFile))
	if err != nil {
		return err.Error()
	}
	lines := strings.SplitAfter(strings.TrimRight(string(text), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-logLines):], "") + "\n"
}

// Ask sends one request and returns its last reply.
func (p *Platform) Ask(ctx context.Context, req control.Request) (last control.Reply, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	c, err := control.Dial(ctx, filepath.Join(p.Dir, RunDir))
	if err != nil {
		return last, err
	}
	err = c.Do(ctx, req, func(r control.Reply) error { last = r; return nil })
	return last, errors.Join(err, ctx.Err(), c.Close())
}

// Status asks for the status.
func (p *Platform) Status(ctx context.Context) (*control.Status, error) {
	r, err := p.Ask(ctx, control.Request{Do: "status"})
	if err == nil && r.Status == nil {
		err = errors.New("the daemon sent no status")
	}
	return r.Status, err
}

// Until polls the status until good accepts it, and returns it. last says what was wrong in the end.
func (p *Platform) Until(
	ctx context.Context, what string, good func(*control.Status) error,
) (*control.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, readyTime)
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		s, err := p.Status(ctx)
		if err == nil {
			err = good(s)
		}
		if err == nil {
			return s, nil
		}
		select {
		case <-p.Exited:
			return nil, fmt.Errorf("wait until %s: keepoutd has ended", what)
		case <-ctx.Done():
			return nil, fmt.Errorf("wait until %s: %w: %w", what, ctx.Err(), err)
		case <-tick.C:
		}
	}
}

// Denied waits until the daemon knows a denial of an act on path: the kernel is answered before it is written
// down.
func (p *Platform) Denied(ctx context.Context, path string, act event.Type) error {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	for {
		found := false
		err := p.Each(ctx, control.Request{Do: "events", Denied: true}, func(rec *event.Record) {
			found = found || rec.Event.File.Path == path && rec.Event.Type == act
		})
		if found || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("no %s of %s is recorded as denied", act, path)
		case <-time.After(pollEvery):
		}
	}
}

// Each sends one request and shows see every record of the answer.
func (p *Platform) Each(ctx context.Context, req control.Request, see func(*event.Record)) error {
	c, err := control.Dial(ctx, filepath.Join(p.Dir, RunDir))
	if err != nil {
		return err
	}
	err = c.Do(ctx, req, func(r control.Reply) error {
		if r.Record != nil {
			see(r.Record)
		}
		return nil
	})
	return errors.Join(err, c.Close())
}

// Find returns one provider of a status, or nil.
func Find(s *control.Status, id string) *roster.Status {
	for i := range s.Providers {
		if s.Providers[i].ID == id {
			return &s.Providers[i]
		}
	}
	return nil
}
