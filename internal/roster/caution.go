package roster

import (
	"github.com/keepout-security/keepout/internal/boot"
	"github.com/keepout-security/keepout/internal/rollback"
)

// Caution is what this boot wants of a provider, because the boots before it did not end well.
type Caution struct {
	Off    bool // it is not started until somebody enables it
	Pinned bool // it runs its last-known-good versions, and nothing newer is tried
}

// any reports whether anything is to be done otherwise.
func (c Caution) any() bool { return c.Off || c.Pinned }

func (r *Roster) caution(id string) Caution {
	if r.c.Caution == nil {
		return Caution{}
	}
	return r.c.Caution(id)
}

// starting leaves a crumb before a process is started with these versions: if the machine ends now, that is what it
// was doing.
func (l *lineage) starting(runs [2]rollback.Digest, ready bool) {
	if l.r.c.Crumb == nil {
		return
	}
	c := boot.Crumb{Provider: l.id, Ready: ready}
	l.mu.Lock()
	c.Engine, c.Content = label(&l.state.Engine, runs[0]), label(&l.state.Content, runs[1])
	l.mu.Unlock()
	l.r.c.Crumb(c)
}

// startingTrial is starting for what is on trial in the throw-away cage.
func (l *lineage) startingTrial() {
	l.mu.Lock()
	engine, content := l.onTrial(l.state.Trial.Part)
	l.mu.Unlock()
	l.starting([2]rollback.Digest{engine.Digest, content.Digest}, false)
}

// label is what a version is called.
func label(s *rollback.Slots, d rollback.Digest) string {
	for _, v := range []rollback.Version{s.Active, s.Candidate, s.LKG, s.Former, s.Factory} {
		if v.Digest == d && !v.None() {
			return v.String()
		}
	}
	return ""
}

// wanted are the versions that run: the active ones, or in a cautious boot the last-known-good. Where nothing was
// ever proven, that is what came with the installation.
func (l *lineage) wanted() (engine, content rollback.Version) {
	return l.choose(&l.state.Engine), l.choose(&l.state.Content)
}

func (l *lineage) choose(s *rollback.Slots) rollback.Version {
	if !l.caution.Pinned {
		return s.Active
	}
	for _, v := range []rollback.Version{s.LKG, s.Factory} {
		if _, refused := s.Refusal(v.Digest); !v.None() && !refused {
			return v
		}
	}
	return s.Active
}

// idle reports whether an input is not for the decision about versions while the boot is cautious: what runs is not
// what is active, so that nothing is learned about that.
func (l *lineage) idle(k rollback.Kind) bool {
	if !l.caution.Pinned {
		return false
	}
	switch k {
	case rollback.Crashed, rollback.BreakerOpened, rollback.BreakerClosed, rollback.DenyStorm:
		return true
	default:
		return false
	}
}
