package roster

import (
	"path/filepath"
	"sync"
	"time"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/config"
	"github.com/keepout-security/keepout/internal/docket"
	"github.com/keepout-security/keepout/internal/sandbox"
	"github.com/keepout-security/keepout/internal/session"
	"github.com/keepout-security/keepout/internal/supervisor"
)

// Times of a provider's end.
const (
	drainTime = 3 * time.Second // from Drain to Kill
	exitTime  = time.Second     // from closing its sockets to ending by itself
)

// inbox is room for what happens to one provider while its goroutine is busy.
const inbox = 64

// member is one provider. Its goroutine owns sup and proc; mu guards the rest.
type member struct {
	r        *Roster
	id       string
	slot     int
	latency  *docket.Latency
	standing *docket.Standing

	in   chan happening
	gone chan struct{} // closed when the goroutine has ended

	mu        sync.Mutex
	installed config.Installed
	sup       supervisor.Provider
	proc      *sandbox.Process
	current   *session.Session // set from start to end of a session
	voting    bool             // current has subscribed
	engine    string
	beat      session.Beat
	beatAt    time.Time        // of beat; zero before the first of a process
	past      session.Counters // of sessions that have ended
}

// happening is one thing that happened to a provider.
type happening struct {
	supervisor.Input
	about *sandbox.Process // the process it is about, or nil
	stop  bool             // the goroutine shall end when the process has
	again bool             // a configuration that needs another process
}

// newMember makes a provider that begins to live when its predecessor, if there is one, has ended: both have the
// same user and state folder.
func newMember(r *Roster, id string, slot int, predecessor *member) *member {
	m := &member{
		r: r, id: id, slot: slot, latency: docket.NewLatency(),
		in: make(chan happening, inbox), gone: make(chan struct{}),
	}
	m.standing = docket.NewStanding(docket.Watch{
		ID: id, Numbers: docket.DefaultNumbers(), Owned: r.c.Owned, Tell: m.heard,
	})
	go func() {
		if predecessor != nil {
			<-predecessor.gone
		}
		m.live()
	}()
	return m
}

// configure takes a new configuration and starts or replaces the process where that is needed.
func (m *member) configure(in config.Installed) {
	m.mu.Lock()
	first := m.installed.Manifest == nil
	again := !first && !sameProcess(m.installed, in)
	m.installed = in
	m.mu.Unlock()
	switch {
	case first:
		m.enable(true)
	case again:
		m.standing.Renew()
		m.in <- happening{again: true}
	}
}

// reload asks a running provider to read its content again. Its cage holds the file or folder that was there when it
// started: one that was put in its place is seen only by a new process.
func (m *member) reload() {
	s, _ := m.ready()
	m.mu.Lock()
	moved := m.proc != nil && m.proc.ContentMoved()
	m.mu.Unlock()
	switch {
	case s == nil:
	case moved:
		m.in <- happening{again: true}
	default:
		// A provider that cannot take it is ending, and reads its content when it starts again.
		_ = s.Reload()
	}
}

func (m *member) enable(on bool) {
	kind := supervisor.Enable
	if !on {
		kind = supervisor.Disable
	}
	m.in <- happening{Input: supervisor.Input{Kind: kind}}
}

func (m *member) stop() {
	m.in <- happening{Input: supervisor.Input{Kind: supervisor.Disable}, stop: true}
}

// live is the provider's goroutine.
func (m *member) live() {
	defer close(m.gone)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	stopping := false
	for {
		m.mu.Lock()
		due, ok := m.sup.Due(m.numbers())
		over := stopping && m.proc == nil
		m.mu.Unlock()
		if over {
			return
		}
		wait := time.Hour
		if ok {
			wait = max(time.Until(due), time.Millisecond)
		}
		timer.Reset(wait)
		h := happening{Input: supervisor.Input{Kind: supervisor.Tick}}
		select {
		case h = <-m.in:
		case <-timer.C:
		}
		stopping = stopping || h.stop
		m.take(h)
	}
}

// take feeds the supervisor and does what it says.
func (m *member) take(h happening) {
	if h.again {
		m.take(happening{Input: supervisor.Input{Kind: supervisor.Disable}})
		m.take(happening{Input: supervisor.Input{Kind: supervisor.Enable}})
		return
	}
	m.mu.Lock()
	if h.about != nil && h.about != m.proc {
		m.mu.Unlock()
		return // about an earlier process
	}
	before := m.sup
	if h.Kind == supervisor.Ended {
		m.forget()
	}
	var effects []supervisor.Effect
	if h.Kind == supervisor.Tick && !m.beatAt.IsZero() {
		// The heartbeats that nobody was woken for.
		m.sup, _ = m.sup.Next(m.numbers(), m.beatAt, supervisor.Input{
			Kind: supervisor.Beat, Degraded: m.beat.Degraded,
		})
	}
	m.sup, effects = m.sup.Next(m.numbers(), time.Now(), h.Input)
	after := m.sup
	m.mu.Unlock()
	m.report(before, after)
	for _, e := range effects {
		switch e {
		case supervisor.Start:
			m.start()
		case supervisor.Kill:
			m.kill()
		case supervisor.Drain:
			m.drain()
		}
	}
	if before.State != after.State {
		// On its own goroutine: whoever holds the roster's lock may be waiting for this one.
		go m.r.changed()
	}
}

// forget lets go of a process that has ended. Preconditions: mu is held.
func (m *member) forget() {
	if m.current != nil {
		m.past = m.past.Add(m.current.Counters())
	}
	m.proc, m.current, m.voting, m.engine, m.beat = nil, nil, false, "", session.Beat{}
	m.beatAt = time.Time{}
}

// ready returns the session, and how it is configured, if it can be asked.
func (m *member) ready() (*session.Session, config.Installed) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.voting {
		return nil, m.installed
	}
	return m.current, m.installed
}

// absent returns what this provider's failure policy denies while it is down: all that its manifest lets it ask for,
// because what it would have subscribed to is not known. It is nil for a provider that is up, that fails open, or
// that an administrator switched off.
func (m *member) absent() map[event.Type]bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	off := m.sup.State == supervisor.Disabled || m.sup.State == "" && m.installed.Manifest == nil
	if m.voting || off || m.installed.OnFailure != "deny" || m.installed.Mode != event.Enforce {
		return nil
	}
	return grantOf(m.installed.Manifest).Types
}

func (m *member) status() Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := Status{
		ID: m.id, State: m.sup.State, Mode: m.installed.Mode, Engine: m.engine, Content: m.beat.Content,
		Detail: m.beat.Detail, Restarts: m.sup.Restarts, RetryMS: m.sup.RetryIn(time.Now()).Milliseconds(),
		Processed: m.beat.Processed, Counters: m.past, Latency: m.latency.Quantiles(), Cause: m.sup.Cause,
	}
	s.Breaker, s.Demoted = m.standing.Status()
	if s.State == "" {
		s.State = supervisor.Disabled
	}
	if m.current != nil {
		s.Counters = s.Counters.Add(m.current.Counters())
	}
	if m.proc != nil {
		s.PID, s.Confinement = m.proc.PID, m.proc.Confinement
		if m.proc.Confinement.User {
			s.UID = sandbox.FirstUID + uint32(m.slot)
		}
	}
	return s
}

// missedBeats is how many heartbeats a provider may leave out.
const missedBeats = 3

// numbers are the supervisor's, with the silence that this provider's manifest makes suspicious. Preconditions: mu
// is held.
func (m *member) numbers() supervisor.Config {
	c := m.r.c.Supervisor
	if m.installed.Manifest != nil {
		c.Silence = missedBeats * time.Duration(m.installed.Manifest.Health.Heartbeat)
	}
	return c
}

func (m *member) stateDir() string {
	return filepath.Join(m.r.c.StateDir, "providers", m.id)
}
