package roster

import (
	"path/filepath"
	"time"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/config"
	"github.com/keepout-security/keepout/internal/sandbox"
	"github.com/keepout-security/keepout/internal/session"
	"github.com/keepout-security/keepout/internal/supervisor"
)

// Credit is how many auth events a provider may owe a vote for at one time.
const Credit = 1024

// start starts a process and its session. What goes wrong is the end of a process that never was.
func (m *member) start() {
	m.mu.Lock()
	in := m.installed
	m.mu.Unlock()
	key := laneKey(m.id, m.lane)
	m.of.starting(m.runs, false)
	proc, err := m.r.spawn(in, key, m.of.slots[m.lane])
	if err != nil {
		m.take(happening{Input: supervisor.Input{Kind: supervisor.Ended, Cause: err.Error()}})
		return
	}
	m.mu.Lock()
	m.proc = proc
	m.current = session.Start(session.Config{
		Provider: m.id, Auth: proc.Auth, Control: proc.Control, Allowed: grantOf(in.Manifest),
		Sink:    &link{m: m, proc: proc},
		Welcome: welcome(in, m.r.stateDir(key)),
	})
	s := m.current
	m.mu.Unlock()
	if m.agreement.Load() == nil {
		m.of.standing.Restarted()
	}
	go m.await(proc, s)
}

// spawn starts the program that the manifest names and whose digest it states, in a lane of its own.
func (r *Roster) spawn(in config.Installed, key string, slot int) (*sandbox.Process, error) {
	program, err := in.Manifest.OpenExecutable()
	if err != nil {
		return nil, err
	}
	defer func() { _ = program.Close() }() // only read
	log := newLog(filepath.Join(r.c.StateDir, logDir, key), int64(in.Limits.Log))
	proc, err := sandbox.Start(sandbox.Spec{
		Program: program.Name(), Slot: slot, StateDir: r.stateDir(key), Content: in.Content,
		Mounts: in.Rights.Mounts, Sockets: in.Rights.Sockets, Network: in.Rights.Network,
		Limits: sandbox.Limits{
			Memory: uint64(in.Limits.Memory), CPU: uint64(in.Limits.CPU), Processes: in.Limits.Processes,
			Files: in.Limits.Files, State: uint64(in.Limits.State),
		},
		Groups: r.groups, Log: log,
	}, program)
	if err != nil {
		log.close()
		return nil, hostError{err}
	}
	r.diners.seat(in.ID, proc)
	go func() { <-proc.Done(); r.diners.leave(proc); log.close() }()
	return proc, nil
}

// hostError is what the host does not give: no process, no room. It says nothing about the version that was to run.
type hostError struct{ error }

// Unwrap returns what was missing.
func (e hostError) Unwrap() error { return e.error }

func grantOf(manifest *config.Manifest) session.Grant {
	g := session.Grant{Types: map[event.Type]bool{}}
	for _, e := range manifest.Events {
		if t, err := event.ParseType(e.Type); err == nil {
			g.Types[t] = true
		}
		g.Descriptor = g.Descriptor || e.Content == "descriptor"
		g.Digest = g.Digest || e.Content == "digest"
	}
	return g
}

// await reports the end of a process, after everything that it sent has been received.
func (m *member) await(proc *sandbox.Process, s *session.Session) {
	<-proc.Done()
	s.End(nil)
	s.Wait()
	_ = proc.Close() // nothing uses the sockets any more
	m.in <- happening{about: proc, Input: supervisor.Input{Kind: supervisor.Ended, Cause: proc.Cause()}}
}

func (m *member) kill() {
	m.mu.Lock()
	proc := m.proc
	m.mu.Unlock()
	if proc != nil {
		proc.Kill()
	}
}

// drain asks the process to finish and ends it if it takes too long. It is no longer asked from now on.
func (m *member) drain() {
	m.mu.Lock()
	proc, s := m.proc, m.current
	m.voting = false
	m.mu.Unlock()
	if proc == nil {
		return
	}
	if s.Drain() != nil {
		proc.Kill()
		return
	}
	go func() {
		select {
		case <-proc.Done():
		case <-time.After(drainTime):
			proc.Kill()
		}
	}()
}

// link is what one session reports to.
type link struct {
	m    *member
	proc *sandbox.Process
}

func (l *link) send(in supervisor.Input) { l.m.in <- happening{about: l.proc, Input: in} }

// Hello implements session.Sink.
func (l *link) Hello(_ *session.Session, engine string) {
	l.m.mu.Lock()
	l.m.engine = engine
	l.m.mu.Unlock()
	l.send(supervisor.Input{Kind: supervisor.Hello})
}

// Subscribed implements session.Sink.
func (l *link) Subscribed(s *session.Session) {
	l.m.mu.Lock()
	if l.m.current == s {
		l.m.voting = true
	}
	l.m.mu.Unlock()
	if m := l.m.of.remembered(s); m != nil {
		l.m.r.c.Court.Forget(m) // it has subscribed anew
	}
	l.send(supervisor.Input{Kind: supervisor.Subscribed})
	l.m.r.changed() // here, because a provider may also subscribe anew
}

// Voted implements session.Sink.
func (l *link) Voted(s *session.Session, id uint64, vote event.Vote, reason event.Reason) {
	l.m.r.c.Court.Voted(s, id, vote, reason)
}

// Beat implements session.Sink. The provider's goroutine is woken only by news; otherwise it looks when the silence
// would become suspicious, so that a heartbeat on an idle host costs as little as it can.
func (l *link) Beat(s *session.Session, b session.Beat) {
	l.m.mu.Lock()
	news := l.m.beatAt.IsZero() || l.m.beat.Degraded != b.Degraded
	l.m.beat, l.m.beatAt = b, time.Now()
	l.m.mu.Unlock()
	if l.m.agreement.Load() == nil {
		l.m.of.standing.Heartbeat(b.Content)
	}
	if m := l.m.of.remembered(s); m != nil {
		l.m.r.c.Court.Heard(m, b.Content)
	}
	if news {
		l.send(supervisor.Input{Kind: supervisor.Beat, Degraded: b.Degraded})
	}
}

// Ended implements session.Sink.
func (l *link) Ended(s *session.Session, err error) {
	l.m.mu.Lock()
	if l.m.current == s {
		l.m.voting = false
	}
	l.m.mu.Unlock()
	l.m.r.c.Court.Ended(s)
	cause := "closed its sockets without ending"
	wait := exitTime
	if err != nil {
		cause, wait = err.Error(), 0
	}
	go func() {
		select {
		case <-l.proc.Done():
			if err == nil {
				return // the normal end, which await reports
			}
		case <-time.After(wait):
		}
		l.send(supervisor.Input{Kind: supervisor.Broke, Cause: cause})
	}()
}
