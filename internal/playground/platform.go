package playground

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
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
	p := &Platform{Daemon: Daemon{Run: filepath.Join(dir, RunDir), Exited: exited}, Dir: dir, cmd: cmd}
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
