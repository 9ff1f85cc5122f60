package guard

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/internal/guard/link"
	"github.com/keepout-security/keepout/internal/memexec"
)

// program is the core's program. It is executed from memory: this thread waits for the start and could not answer an
// event that the start raises.
type program struct {
	image *os.File
	argv  []string
	attr  syscall.ProcAttr
}

// load copies the core into memory and prepares everything that a start needs.
func load(path string, args []string, group int, page *os.File) (*program, error) {
	path, err := filepath.Abs(path) // the core looks for its providers beside its name
	if err != nil {
		return nil, fmt.Errorf("path of the core: %w", err)
	}
	image, err := memexec.Load("keepout-core", path)
	if err != nil {
		return nil, err
	}
	files := []uintptr{0, 1, 2, link.GroupFD: uintptr(group), link.PulseFD: page.Fd(), link.NextFD - 1: 0}
	return &program{image: image, argv: append([]string{path}, args...), attr: syscall.ProcAttr{
		Env: os.Environ(), Files: files,
		// Ctrl-C is for the guard; and without a guard the core ends, in order.
		Sys: &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM},
	}}, nil
}

// core is a running one.
type core struct {
	pid, pidfd int
	sock       int  // what it says
	silent     bool // it says nothing any more
	dead       bool // it has ended, and somebody else (a debugger) holds on to it
}

// start starts a core, which lives at most as long as the calling thread.
func (p *program) start() (*core, error) {
	ours, theirs, err := link.Pair()
	if err != nil {
		return nil, err
	}
	c := &core{sock: ours}
	p.attr.Sys.PidFD, p.attr.Files[link.NextFD-1] = &c.pidfd, uintptr(theirs)
	c.pid, err = syscall.ForkExec(fmt.Sprintf("/proc/self/fd/%d", p.image.Fd()), p.argv, &p.attr)
	_ = unix.Close(theirs) // the core has its own
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start the core: %w", err), unix.Close(ours))
	}
	return c, nil
}

// signal passes a signal on. An error means that the core has ended.
func (c *core) signal(s syscall.Signal) { _ = unix.Kill(c.pid, s) }

// halted reports whether a signal has stopped the core.
func (c *core) halted() bool {
	var info unix.Siginfo
	// WNOWAIT leaves the state as it is, so that it can be asked for again; waitid(2).
	err := unix.Waitid(unix.P_PID, c.pid, &info, unix.WSTOPPED|unix.WNOHANG|unix.WNOWAIT, nil)
	return err == nil && info.Signo == int32(unix.SIGCHLD)
}

// reap collects a core that has ended, with the last of its threads.
func (c *core) reap() (status unix.WaitStatus, ended bool) {
	pid, err := unix.Wait4(c.pid, &status, unix.WNOHANG, nil)
	if !errors.Is(err, unix.ECHILD) && (err != nil || pid != c.pid) { // no child: its status is lost, but it is gone
		return status, false
	}
	_, _ = unix.Close(c.sock), unix.Close(c.pidfd)
	return status, true
}
