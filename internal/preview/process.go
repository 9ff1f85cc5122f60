package preview

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
	"github.com/keepout-security/keepout/internal/playground"
)

// process is a process of the fleet in a network namespace. It ends with us, whatever ends us.
type process struct {
	name   string
	cmd    *exec.Cmd
	exited <-chan struct{}
	log    string
}

// start starts a program; what it says goes to a file.
func start(where *netlab.Namespace, log, program string, args ...string) (*process, error) {
	p := &process{name: filepath.Base(program), log: log}
	f, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("log of %s: %w", p.name, err)
	}
	defer func() { _ = f.Close() }() // the child has its own
	// Not bound to a context: it is stopped in order.
	p.cmd = exec.Command(program, args...) //nolint:noctx // see above
	p.cmd.Stdout, p.cmd.Stderr, p.cmd.Dir, p.cmd.Env = f, f, "/", environment()
	if p.exited, err = playground.Spawn(where.Enter, p.cmd); err != nil {
		return nil, fmt.Errorf("start %s: %w", p.name, err)
	}
	return p, nil
}

// stop ends it in order, or by force.
func (p *process) stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop %s: %w", p.name, err)
	}
	select {
	case <-p.exited:
		return nil
	case <-time.After(stopTime):
	}
	p.kill()
	return fmt.Errorf("%s did not stop and was killed", p.name)
}

// kill ends it at once, and waits for that.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.exited
}

// logEnd are the last lines that it said.
func (p *process) logEnd() string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	lines := strings.SplitAfter(strings.TrimRight(string(text), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-8):], "") + "\n"
}
