package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/wire"
)

// sendBuffer is the room for events that a provider has not read yet, in bytes; the session's credit is used up
// first.
const sendBuffer = 4 << 20

// Process is a running provider. Its methods may be called concurrently.
type Process struct {
	PID           int
	Auth, Control *wire.Conn
	Confinement   Confinement

	cmd   *exec.Cmd
	log   tail
	group *group
	done  chan struct{}
	err   error
	ended atomic.Pointer[string] // why we ended it, if we did
	begun time.Time
	used  atomic.Pointer[Usage] // in all, once it has ended

	effort effort
	yields atomic.Bool // as MakeWay said last
}

// Start starts the provider whose program is open in file, which stays the caller's.
func Start(spec Spec, program *os.File) (*Process, error) {
	if spec.Slot < 0 || spec.Slot >= MaxProviders {
		return nil, fmt.Errorf("slot %d, want 0 to %d", spec.Slot, MaxProviders-1)
	}
	l, why := plan(spec)
	p := &Process{done: make(chan struct{}), log: tail{also: spec.Log}, begun: time.Now()}
	if err := makeStateDir(spec.StateDir, int(l.UID)); err != nil {
		return nil, err
	}
	if l.Layers.has(LayerCgroup) && spec.Groups != nil {
		var err error
		if p.group, err = spec.Groups.create(spec.Slot, spec.Limits); err != nil {
			return nil, fmt.Errorf("start %s: %w", spec.Program, err)
		}
		l.Cgroup = !p.group.empty()
		why[LayerCgroup] = p.group.why
	}
	p.Confinement = confinement(l, why)
	if err := p.start(l, program); err != nil {
		p.group.remove()
		return nil, errors.Join(fmt.Errorf("start %s: %w", spec.Program, err), p.closeConns())
	}
	return p, nil
}

// plan decides which layers can be put on, and says why the others cannot.
func plan(spec Spec) (l launch, why map[Layers]string) {
	l = launch{
		Program: spec.Program, Layers: AllLayers, Limits: spec.Limits, StateDir: spec.StateDir, Content: spec.Content,
		Mounts: spec.Mounts, Sockets: spec.Sockets, Network: spec.Network,
	}
	why = map[Layers]string{}
	leave := func(layers Layers, reason string) {
		for one := Layers(1); one < layerEnd; one <<= 1 {
			if (l.Layers & layers).has(one) {
				why[one] = reason
			}
		}
		l.Layers &^= layers
	}
	if spec.Only != 0 {
		leave(AllLayers&^spec.Only, "left out")
	}
	if os.Geteuid() != 0 {
		leave(AllLayers&^unprivileged, "keepoutd is not root")
	}
	if _, err := landlockVersion(); err != nil {
		leave(LayerLandlock, err.Error())
	}
	if spec.Network {
		leave(LayerNet, granted)
	}
	if spec.Groups == nil && l.Layers.has(LayerCgroup) {
		leave(LayerCgroup, "left out")
	}
	if l.Layers.has(LayerUser) {
		l.UID = FirstUID + uint32(spec.Slot)
		if err := usernsProblem(); err != nil {
			why[LayerUser] = "no user namespace, only a user id: " + err.Error()
		} else {
			l.Userns = true
		}
	}
	return l, why
}

func confinement(l launch, why map[Layers]string) Confinement {
	c := Confinement{User: l.UID != 0, PIDs: l.Layers.has(LayerPID), NoNew: l.Layers.has(LayerNoNew)}
	for i, name := range layerNames {
		one := Layers(1) << i
		holds := l.Layers.has(one)
		if one == LayerCgroup {
			holds = l.Cgroup
		}
		c.Layers = append(c.Layers, Layer{Name: name, Holds: holds, Why: why[one]})
	}
	c.Reduced = len(c.Missing()) > 0
	return c
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
	instructions, tell, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("pipe: %w", err)
	}
	defer closeFile(instructions)
	path, memory := launcherPath()
	p.cmd = &exec.Cmd{
		Path: path, Args: []string{launcherName}, Env: []string{"GOMAXPROCS=1"}, Stderr: &p.log,
		ExtraFiles:  append([]*os.File{theirAuth, theirControl, program, instructions}, memory...),
		SysProcAttr: attributes(l),
		WaitDelay:   time.Second, // for a grandchild that holds standard error open
	}
	if err := p.run(l); err != nil {
		return errors.Join(err, tell.Close())
	}
	// The launcher waits for its instructions, so whatever it does is counted by the group.
	err = p.group.add(p.PID)
	if err == nil {
		err = json.NewEncoder(tell).Encode(l)
	}
	if err = errors.Join(err, tell.Close()); err != nil {
		p.Kill()
		<-p.done
		return fmt.Errorf("instruct the launcher: %w", err)
	}
	return nil
}

// attributes are the namespaces that a process must be born into. The cgroup namespace comes later: its root is the
// group that the process is in when it is made.
func attributes(l launch) *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	for _, n := range []struct {
		layer Layers
		flags uintptr
	}{
		{LayerMount, unix.CLONE_NEWNS},
		{LayerPID, unix.CLONE_NEWPID},
		{LayerNet, unix.CLONE_NEWNET},
		{LayerIPC, unix.CLONE_NEWIPC | unix.CLONE_NEWUTS},
	} {
		if l.Layers.has(n.layer) {
			a.Cloneflags |= n.flags
		}
	}
	if !l.Userns {
		return a
	}
	// The id is the same inside and outside. From its first instruction on the launcher is the provider's user, so
	// that the sensor knows whatever it does; in its own namespace it keeps what it needs to build the cage.
	a.Cloneflags |= unix.CLONE_NEWUSER
	id := []syscall.SysProcIDMap{{ContainerID: int(l.UID), HostID: int(l.UID), Size: 1}}
	a.UidMappings, a.GidMappings, a.GidMappingsEnableSetgroups = id, id, true
	a.Credential = &syscall.Credential{Uid: l.UID, Gid: l.UID}
	a.AmbientCaps = []uintptr{unix.CAP_SYS_ADMIN, unix.CAP_SETPCAP}
	return a
}

// run starts the command on a thread that waits for it: the parent death signal is sent when the thread that
// started a child ends, not when the process does (prctl(2)).
func (p *Process) run(l launch) error {
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		err := p.cmd.Start()
		started <- err
		if err != nil {
			return
		}
		stop := make(chan struct{})
		if l.Layers.has(LayerLimits) && l.Limits.State > 0 {
			go p.watchState(l.StateDir, l.Limits.State, p.cmd.Process.Pid, stop)
		}
		p.err = p.cmd.Wait()
		close(stop)
		p.settle()
		p.group.remove()
		close(p.done)
	}()
	if err := <-started; err != nil {
		return err
	}
	p.PID = p.cmd.Process.Pid
	return nil
}

// Kill ends the provider, and with its pid namespace everything that it started.
func (p *Process) Kill() {
	// An error means that it has ended already.
	_ = p.cmd.Process.Kill()
	if !p.Confinement.PIDs {
		_ = unix.Kill(-p.PID, unix.SIGKILL) // it leads a session, hence a process group, of its own
	}
}

// end is Kill with the reason, which Cause tells.
func (p *Process) end(reason string) {
	p.ended.CompareAndSwap(nil, &reason)
	p.Kill()
}

// Done is closed when the process has ended and been waited for.
func (p *Process) Done() <-chan struct{} { return p.done }

// Cause says in one line why the process ended. Preconditions: Done is closed.
func (p *Process) Cause() string {
	if reason := p.ended.Load(); reason != nil {
		return *reason
	}
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
