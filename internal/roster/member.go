package roster

import (
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keepout-security/keepout/internal/config"
	"github.com/keepout-security/keepout/internal/docket"
	"github.com/keepout-security/keepout/internal/rollback"
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

// member is one process of a provider, again and again, with certain versions of its engine and content. Its goroutine
// owns sup and proc; mu guards the rest.
type member struct {
	of   *lineage
	r    *Roster
	id   string // the provider's
	lane int
	runs [2]rollback.Digest // engine, content

	latency    *docket.Latency                  // while it is a candidate; after that it is the lineage's that counts
	agreement  atomic.Pointer[docket.Agreement] // while it is a candidate
	generation uint64                           // of the versions, when it became the active member; the lineage's own
	serial     uint64                           // tells it from all other members of this roster
	tally      docket.Tally                     // of what these versions deny

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
	used      sandbox.Usage    // by processes that have ended
}

// happening is one thing that happened to a provider.
type happening struct {
	supervisor.Input
	about *sandbox.Process // the process it is about, or nil
	stop  bool             // the goroutine shall end when the process has
	again bool             // a configuration that needs another process
}

// newMember makes a member that begins to live when its predecessor, if there is one, has ended: both have the same
// user and state folder.
func newMember(l *lineage, lane int, runs [2]rollback.Digest, predecessor *member) *member {
	m := &member{
		of: l, r: l.r, id: l.id, lane: lane, runs: runs, latency: docket.NewLatency(),
		in: make(chan happening, inbox), gone: make(chan struct{}), serial: l.r.members.Add(1),
	}
	letGo := []func(){l.r.c.Store.Pin(runs[0]), l.r.c.Store.Pin(runs[1])}
	go func() {
		defer close(m.gone)
		if predecessor != nil {
			<-predecessor.gone
		}
		m.live()
		for _, release := range letGo {
			release()
		}
	}()
	return m
}

// configure takes a new configuration and replaces the process where that is needed. The first one starts it, unless
// the provider is off.
func (m *member) configure(in config.Installed, off bool) {
	m.mu.Lock()
	first := m.installed.Manifest == nil
	again := !first && !sameProcess(m.installed, in)
	m.installed = in
	m.mu.Unlock()
	switch {
	case off:
	case first:
		m.enable(true)
	case again:
		m.in <- happening{again: true}
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
	if h.Kind == supervisor.Ended && after.State == supervisor.Backoff {
		m.of.ended(m, after.Cause)
	}
	if after.State == supervisor.Running && before.State == supervisor.Loading {
		m.of.ready(m)
	}
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
	if m.proc != nil {
		m.used = m.used.Add(m.proc.Usage()) // it has ended: nothing is read
	}
	m.proc, m.current, m.voting, m.engine, m.beat = nil, nil, false, "", session.Beat{}
	m.beatAt = time.Time{}
}

// ready returns the session if it can be asked, or nil.
func (m *member) ready() *session.Session {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.voting {
		return nil
	}
	return m.current
}

// config is how it is configured.
func (m *member) config() config.Installed {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.installed
}

// silence gives up every vote that it owes.
func (m *member) silence() {
	m.mu.Lock()
	s := m.current
	m.mu.Unlock()
	if s != nil {
		m.r.c.Court.Ended(s)
	}
}

func (m *member) restarts() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.sup.Restarts
}

// votes reports whether it can be asked.
func (m *member) votes() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.voting
}

// counters add up all that its processes did.
func (m *member) counters() session.Counters {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.current == nil {
		return m.past
	}
	return m.past.Add(m.current.Counters())
}

// usage adds up what its processes used.
func (m *member) usage() sandbox.Usage {
	m.mu.Lock()
	used, proc := m.used, m.proc
	m.mu.Unlock()
	if proc == nil {
		return used
	}
	return used.Add(proc.Usage())
}

// tell fills in what is known of the process.
func (m *member) tell(s *Status) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s.State, s.Mode, s.Engine, s.Content = m.sup.State, m.installed.Mode, m.engine, m.beat.Content
	s.Detail, s.Restarts, s.Cause, s.Processed = m.beat.Detail, m.sup.Restarts, m.sup.Cause, m.beat.Processed
	s.RetryMS = m.sup.RetryIn(time.Now()).Milliseconds()
	if m.proc != nil {
		s.PID, s.Confinement, s.Yields = m.proc.PID, m.proc.Confinement, m.proc.Yields()
		if m.proc.Confinement.User {
			s.UID = sandbox.FirstUID + uint32(m.of.slots[m.lane])
		}
	}
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

// stateDir is the folder that a lane may write to.
func (r *Roster) stateDir(key string) string { return filepath.Join(r.c.StateDir, "providers", key) }
