package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/internal/memexec"
	"github.com/keepout-security/keepout/wire"
)

// sendBuffer is the room for events that a provider has not read yet, in bytes; the session's credit is used up
// first.
const sendBuffer = 4 << 20

// maxLog bounds what is kept of a provider's standard error, in bytes.
const maxLog = 16 << 10

// Process is a running provider. Its methods may be called concurrently.
type Process struct {
	PID           int
	Auth, Control *wire.Conn
	Confinement   Confinement

	cmd  *exec.Cmd
	log  tail
	done chan struct{}
	err  error
}

// Start starts the provider whose program is open in file, which stays the caller's.
func Start(spec Spec, program *os.File) (*Process, error) {
	if spec.Slot < 0 || spec.Slot >= MaxProviders {
		return nil, fmt.Errorf("slot %d, want 0 to %d", spec.Slot, MaxProviders-1)
	}
	l := launch{Program: spec.Program, Limits: spec.Limits}
	p := &Process{done: make(chan struct{}), Confinement: Confinement{NoNew: true, Reduced: true}}
	if os.Geteuid() == 0 {
		l.UID = FirstUID + uint32(spec.Slot)
		p.Confinement = Confinement{User: true, PIDs: true, NoNew: true}
	}
	if err := makeStateDir(spec.StateDir, int(l.UID)); err != nil {
		return nil, err
	}
	if err := p.start(l, program); err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", spec.Program, err), p.closeConns())
	}
	return p, nil
}

// makeStateDir makes the one directory that a provider may write to.
func makeStateDir(dir string, uid int) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	if uid == 0 {
		return nil
	}
	if err := os.Lchown(dir, uid, uid); err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	return nil
}

func (p *Process) start(l launch, program *os.File) error {
	auth, theirAuth, err := wire.Pair(sendBuffer)
	if err != nil {
		return err
	}
	p.Auth = auth
	defer closeFile(theirAuth)
	control, theirControl, err := wire.Pair(sendBuffer)
	if err != nil {
		return err
	}
	p.Control = control
	defer closeFile(theirControl)
	instructions, err := instructionFile(l)
	if err != nil {
		return err
	}
	defer closeFile(instructions)

	p.cmd = &exec.Cmd{
		Path: image(), Args: []string{launcherName}, Env: []string{"GOMAXPROCS=1"}, Stderr: &p.log,
		ExtraFiles:  []*os.File{theirAuth, theirControl, program, instructions},
		SysProcAttr: &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL},
		WaitDelay:   time.Second, // for a grandchild that holds standard error open
	}
	if p.Confinement.PIDs {
		p.cmd.SysProcAttr.Cloneflags = unix.CLONE_NEWPID
	}
	return p.run()
}

// image is what the launcher is executed from: a copy of this program in memory, which is on no file system that can
// be watched. Go forks with CLONE_VFORK: the forking thread keeps its processor slot and waits for the child's exec. If
// that exec raised a permission event, and the collector wanted to stop the world just then, the readers that must
// answer the event would be stopped, for a thread that waits for the answer.
var image = sync.OnceValue(func() string {
	const self = "/proc/self/exe"
	if to, err := os.Readlink(self); err == nil && strings.HasPrefix(to, "/memfd:") {
		return self // the guard has done it
	}
	memory, err := memexec.Load("keepout-core", self)
	if err != nil {
		return self // with vm.memfd_noexec=2 nothing helps
	}
	return memory
})

// run starts the command on a thread that waits for it: the parent death signal is sent when the thread that
// started a child ends, not when the process does (prctl(2)).
func (p *Process) run() error {
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		err := p.cmd.Start()
		started <- err
		if err != nil {
			return
		}
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	if err := <-started; err != nil {
		return err
	}
	p.PID = p.cmd.Process.Pid
	return nil
}

// instructionFile makes a pipe's reading end that holds the instructions; they are far smaller than a pipe.
func instructionFile(l launch) (*os.File, error) {
	b, err := json.Marshal(l)
	if err != nil {
		return nil, fmt.Errorf("encode instructions: %w", err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("pipe: %w", err)
	}
	_, err = w.Write(b)
	if err := errors.Join(err, w.Close()); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// Kill ends the provider, and with its pid namespace everything that it started.
func (p *Process) Kill() {
	// An error means that it has ended already.
	_ = p.cmd.Process.Kill()
	if !p.Confinement.PIDs {
		_ = unix.Kill(-p.PID, unix.SIGKILL) // it leads a session, hence a process group, of its own
	}
}

// Done is closed when the process has ended and been waited for.
func (p *Process) Done() <-chan struct{} { return p.done }

// Cause says in one line why the process ended. Preconditions: Done is closed.
func (p *Process) Cause() string {
	last := p.log.lastLine()
	switch {
	case p.err == nil && last == "":
		return "exited"
	case p.err == nil:
		return "exited: " + last
	case last == "":
		return p.err.Error()
	default:
		return p.err.Error() + ": " + last
	}
}

// Log returns the last part of what the provider wrote to standard error.
func (p *Process) Log() string { return p.log.String() }

// Close releases the sockets. Preconditions: nothing uses them any more.
func (p *Process) Close() error { return p.closeConns() }

func (p *Process) closeConns() error {
	var errs []error
	for _, c := range []*wire.Conn{p.Auth, p.Control} {
		if c != nil {
			errs = append(errs, c.Close())
		}
	}
	return errors.Join(errs...)
}

func closeFile(f *os.File) {
	_ = f.Close() // the child has its own
}

// tail keeps the last maxLog bytes written to it.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, b[max(0, len(b)-maxLog):]...)
	if extra := len(t.buf) - maxLog; extra > 0 {
		t.buf = append(t.buf[:0], t.buf[extra:]...)
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.buf)
}

// lastLine returns the last line that is not empty, fit for a terminal.
func (t *tail) lastLine() string {
	lines := strings.Split(strings.TrimSpace(t.String()), "\n")
	return wire.Clip(lines[len(lines)-1])
}
