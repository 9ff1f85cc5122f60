package demo

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
	pollEvery = 20 * time.Millisecond
	readyTime = 30 * time.Second // for the platform and all its engines
	askTime   = 5 * time.Second  // for one answer of the daemon
	logLines  = 12               // of the daemon, shown when a step fails
)

// platform is a running keepoutd.
type platform struct {
	dir    string
	cmd    *exec.Cmd
	exited chan struct{}
}

// startPlatform starts keepoutd from the folder bin on what furnish wrote in dir. It is killed with this
// process.
func startPlatform(bin, dir string) (*platform, error) {
	log, err := os.Create(filepath.Join(dir, logFile))
	if err != nil {
		return nil, fmt.Errorf("log of keepoutd: %w", err)
	}
	defer func() { _ = log.Close() }() // the child has its own
	// Not bound to a context: it must be stopped in order.
	cmd := exec.Command(filepath.Join(bin, "keepoutd"), //nolint:noctx // see above
		"--config", filepath.Join(dir, configFile), "--state-dir", filepath.Join(dir, stateDir),
		"--run-dir", filepath.Join(dir, runDir), "--providers-dir", filepath.Join(bin, "providers"))
	cmd.Stderr, cmd.Dir = log, "/"
	// A group of its own: Ctrl-C on the terminal is for us, who then stop it in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	p := &platform{dir: dir, cmd: cmd, exited: make(chan struct{})}
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
		close(p.exited)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start keepoutd: %w", err)
	}
	return p, nil
}

// stop ends keepoutd in order, or by force after stopTime.
func (p *platform) stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !ended(err) {
		return fmt.Errorf("stop keepoutd: %w", err)
	}
	select {
	case <-p.exited:
		return nil
	case <-time.After(stopTime / 2):
	}
	err := p.cmd.Process.Kill()
	<-p.exited
	return errors.Join(errors.New("keepoutd did not stop and was killed"), err)
}

// lastLog returns the end of keepoutd's log.
func (p *platform) lastLog() string {
	text, err := os.ReadFile(filepath.Join(p.dir, logFile))
	if err != nil {
		return err.Error()
	}
	lines := strings.SplitAfter(strings.TrimRight(string(text), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-logLines):], "") + "\n"
}

// ask sends one request and returns its last reply.
func (p *platform) ask(ctx context.Context, req control.Request) (last control.Reply, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	c, err := control.Dial(ctx, filepath.Join(p.dir, runDir))
	if err != nil {
		return last, err
	}
	err = c.Do(ctx, req, func(r control.Reply) error { last = r; return nil })
	return last, errors.Join(err, ctx.Err(), c.Close())
}

func (p *platform) status(ctx context.Context) (*control.Status, error) {
	r, err := p.ask(ctx, control.Request{Do: "status"})
	if err == nil && r.Status == nil {
		err = errors.New("the daemon sent no status")
	}
	return r.Status, err
}

// until polls the status until good accepts it, and returns it. last says what was wrong in the end.
func (p *platform) until(
	ctx context.Context, what string, good func(*control.Status) error,
) (*control.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, readyTime)
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		s, err := p.status(ctx)
		if err == nil {
			err = good(s)
		}
		if err == nil {
			return s, nil
		}
		select {
		case <-p.exited:
			return nil, fmt.Errorf("wait until %s: keepoutd has ended", what)
		case <-ctx.Done():
			return nil, fmt.Errorf("wait until %s: %w: %w", what, ctx.Err(), err)
		case <-tick.C:
		}
	}
}

// denied waits until the daemon knows a denial of an act on path: the kernel is answered before it is written
// down.
func (p *platform) denied(ctx context.Context, path string, act event.Type) error {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	for {
		found := false
		err := p.each(ctx, control.Request{Do: "events", Denied: true}, func(rec *event.Record) {
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

func (p *platform) each(ctx context.Context, req control.Request, see func(*event.Record)) error {
	c, err := control.Dial(ctx, filepath.Join(p.dir, runDir))
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

// find returns one provider of a status, or nil.
func find(s *control.Status, id string) *roster.Status {
	for i := range s.Providers {
		if s.Providers[i].ID == id {
			return &s.Providers[i]
		}
	}
	return nil
}
