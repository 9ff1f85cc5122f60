package playground

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/keepout-security/keepout/internal/netlab"
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
	Daemon
	Dir string

	cmd *exec.Cmd
}

// Start starts keepoutd from the folder bin, on the configuration in dir, with the providers in another folder. It is
// killed with this process.
func Start(bin, dir, providers string) (*Platform, error) { return StartIn(nil, bin, dir, providers) }

// StartIn is Start on a thread that enter has prepared, for example by entering a network namespace; nil prepares
// nothing.
func StartIn(enter func() error, bin, dir, providers string) (*Platform, error) {
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
	exited, err := Spawn(enter, cmd)
	if err != nil {
		return nil, fmt.Errorf("start keepoutd: %w", err)
	}
	return &Platform{Daemon: Daemon{Run: filepath.Join(dir, RunDir), Exited: exited}, Dir: dir, cmd: cmd}, nil
}

// Spawn starts cmd on a thread of its own, which enter prepares first unless it is nil, and closes exited when it has
// ended. It is killed with this process, and Ctrl-C on the terminal does not reach it: whoever started it stops it.
func Spawn(enter func() error, cmd *exec.Cmd) (exited <-chan struct{}, err error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	over, started := make(chan struct{}), make(chan error, 1)
	go func() {
		defer close(over)
		// Pdeathsig is sent when the starting thread ends, so it waits here.
		_ = netlab.OnThread(func() error {
			var err error
			if enter != nil {
				err = enter()
			}
			if err == nil {
				err = cmd.Start()
			}
			started <- err
			if err == nil {
				_ = cmd.Wait() // how it ended is in its log
			}
			return nil
		})
	}()
	return over, <-started
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
