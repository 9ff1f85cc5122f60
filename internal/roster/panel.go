package roster

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/config"
	"github.com/keepout-security/keepout/internal/docket"
	"github.com/keepout-security/keepout/internal/rollback"
	"github.com/keepout-security/keepout/internal/supervisor"
)

// panel is who of a provider can be asked: its active version, and a candidate that is only compared with it.
func (l *lineage) panel(b config.Budgets) (out []*docket.Member) {
	l.mu.Lock()
	defer l.mu.Unlock()
	base := docket.Member{
		ID: l.id, Mode: l.configured.Mode, FailClosed: l.configured.OnFailure == "deny",
		Metadata: time.Duration(b.Metadata), Content: time.Duration(b.Content), Owned: l.r.c.Owned,
	}
	active := base
	active.Latency, active.Standing, active.Absent = l.latency, l.standing, l.absent()
	if l.active != nil {
		active.Session, active.Tally = l.active.ready(), &l.active.tally
	}
	if active.Session != nil {
		active.Memory = l.memory.about(active.Session)
	}
	if active.Session != nil || active.Absent != nil {
		out = append(out, &active)
	}
	if l.beside == nil {
		return out
	}
	if s := l.beside.ready(); s != nil {
		candidate := base
		candidate.ID, candidate.Session, candidate.Mode = candidateID(l.id), s, event.Audit
		candidate.Latency, candidate.Beside = l.beside.latency, l.beside.agreement.Load()
		candidate.Tally = &l.beside.tally
		out = append(out, &candidate)
	}
	return out
}

// awaited returns the types of events that a provider may ask for which is not up and shall be: all that its manifest
// names.
func (l *lineage) awaited() []event.Type {
	l.mu.Lock()
	defer l.mu.Unlock()
	up := l.active != nil && l.active.votes()
	if up || l.off || l.stopping || l.configured.Manifest == nil {
		return nil
	}
	return slices.Collect(maps.Keys(grantOf(l.configured.Manifest).Types))
}

// absent returns what this provider's failure policy denies while it is down: all that its manifest lets it ask for,
// because what it would have subscribed to is not known. It is nil for a provider that is up, that fails open, or
// that an administrator switched off. Preconditions: mu is held.
func (l *lineage) absent() map[event.Type]bool {
	in := l.configured
	up := l.active != nil && l.active.votes()
	if up || l.off || l.stopping || in.Manifest == nil || in.OnFailure != "deny" || in.Mode != event.Enforce {
		return nil
	}
	return grantOf(in.Manifest).Types
}

// status is what is known of the provider.
func (l *lineage) status() Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := Status{
		ID: l.id, State: supervisor.Starting, Mode: l.configured.Mode, Latency: l.latency.Quantiles(), Counters: l.past,
		Recalled: l.memory.recalled(),
	}
	s.Breaker, s.Demoted = l.standing.Status()
	switch {
	case l.active != nil:
		l.active.tell(&s)
		s.Counters = s.Counters.Add(l.active.counters())
	case l.state.Quarantine != (rollback.Quarantine{}):
		s.State, s.Cause = supervisor.Backoff, "quarantined: "+l.state.Quarantine.Cause+l.why()
		passed := min(max(time.Since(l.state.Seen), 0), l.r.rules().Gap) // since the state last heard of the time
		s.RetryMS = max(l.state.Quarantine.Until-l.state.Clock-passed, 0).Milliseconds()
	case l.refused != nil:
		s.State, s.Cause = supervisor.Backoff, oneLine(l.refused)
	}
	for _, m := range l.former {
		if m.agreement.Load() == nil {
			s.Counters = s.Counters.Add(m.counters())
		}
	}
	s.Restarts += l.restarts
	if s.State == "" {
		s.State = supervisor.Starting
	}
	if l.off || l.stopping {
		s.State = supervisor.Disabled
	}
	s.Versions = l.versions()
	return s
}

// would reports whether an input would have an effect now.
func (l *lineage) would(in rollback.Input, act rollback.Act) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.resumed {
		return false
	}
	_, todo := l.state.Next(l.r.rules(), time.Now(), in)
	return slices.ContainsFunc(todo, func(e rollback.Effect) bool { return e.Act == act })
}

// trying returns the part of which a candidate is on trial.
func (l *lineage) trying() (part rollback.Part, on bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state.Trial.Part, l.state.Trial.Digest != ""
}

// why is how the last process of the active version ended. Preconditions: mu is held.
func (l *lineage) why() string {
	if l.lastCause == "" {
		return ""
	}
	return "; the last: " + l.lastCause
}

// versions tells the slots. Preconditions: mu is held.
func (l *lineage) versions() *Versions {
	if !l.resumed {
		return nil
	}
	st := &l.state
	v := &Versions{Engine: slotsOf(&st.Engine), Content: slotsOf(&st.Content), Quarantine: st.Quarantine.Cause}
	if st.Last.What != "" {
		v.Rollback = rollback.Describe(l.id, st.Last)
	}
	if t := st.Trial; t.Digest != "" {
		what := "is being checked"
		if t.Beside {
			what = fmt.Sprintf("runs beside, %d events judged by both, %d objects differ", t.Samples, t.Differing)
		}
		v.Trial = fmt.Sprintf("%s %s %s", t.Part, st.Slots(t.Part).Candidate, what)
	}
	return v
}

func slotsOf(s *rollback.Slots) Slots {
	name := func(v rollback.Version) string {
		if v.None() {
			return ""
		}
		return v.String()
	}
	return Slots{
		Active: name(s.Active), Candidate: name(s.Candidate), LKG: name(s.LKG), Former: name(s.Former),
		Factory: name(s.Factory),
	}
}
