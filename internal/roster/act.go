package roster

import (
	"github.com/keepout-security/keepout/internal/config"
	"github.com/keepout-security/keepout/internal/docket"
	"github.com/keepout-security/keepout/internal/rollback"
)

// act does what was decided, in order.
func (l *lineage) act(todo []rollback.Effect) {
	for _, e := range todo {
		if l.caution.any() && (e.Act == rollback.Check || e.Act == rollback.StartBeside) {
			continue // nothing new is run while the machine has trouble starting
		}
		switch e.Act {
		case rollback.Keep:
			l.keep()
		case rollback.Check:
			l.check(e.Part, e.Version)
		case rollback.StartBeside:
			l.startBeside(e.Part)
		case rollback.StopBeside:
			l.stopBeside()
		case rollback.Activate, rollback.RollBack:
			old := l.active
			if l.state.Runnable() {
				l.activate()
			}
			// What is gone back from does not vote any more, nor on what it was asked before, and only then is the
			// provider forgiven: a content that denies everything would do so a moment longer.
			if e.Act == rollback.RollBack && old != nil && old != l.active {
				old.silence()
			}
			l.standing.Renew(l.state.Generation)
		case rollback.Isolate:
			l.replace(nil)
		case rollback.Release:
			l.standing.Renew(l.state.Generation) // else it would soak though its votes do not count
			l.activate()
		case rollback.MarkLKG, rollback.Refuse, rollback.Notify:
		}
		l.report(e)
	}
	if len(todo) > 0 {
		l.r.changed()
	}
}

// keep puts the state on the disk. What it names stays in the store, also when the disk does not take the state.
func (l *lineage) keep() {
	before := l.pins
	l.pins = nil
	for _, d := range l.state.Digests() {
		l.pins = append(l.pins, l.r.c.Store.Pin(d))
	}
	if err := l.r.c.Store.Commit(l.state); err != nil {
		l.r.storeFailed(l.id, err)
	}
	for _, release := range before {
		release()
	}
	l.r.collect()
}

// compose is the configuration with certain versions in place of the administrator's files.
func (l *lineage) compose(engine, content rollback.Version) (config.Installed, error) {
	l.mu.Lock()
	in := l.configured
	l.mu.Unlock()
	dir, err := l.r.c.Store.Path(engine.Digest)
	if err != nil {
		return in, err
	}
	m, err := config.LoadPackaged(dir, l.id)
	if err != nil {
		return in, err
	}
	if in, err = in.Under(m); err != nil {
		return in, err
	}
	in.Content = ""
	if !content.None() {
		in.Content, err = l.r.c.Store.Path(content.Digest)
	}
	return in, err
}

// activate makes the active versions run. If they run beside already, that process takes over. Where they cannot run
// under this configuration, nothing does: what ran before is not active any more.
func (l *lineage) activate() {
	engine, content := l.wanted()
	want := [2]rollback.Digest{engine.Digest, content.Digest}
	if l.active != nil && l.active.runs == want { // both parts became active at once
		l.active.generation = l.state.Generation
		return
	}
	if m := l.beside; m != nil && m.runs == want {
		m.generation = l.state.Generation
		m.agreement.Store(nil)
		l.mu.Lock()
		l.beside = nil
		l.mu.Unlock()
		l.replace(m)
		l.mail.put(l.tick) // it serves already, and will not say so again
		return
	}
	in, err := l.compose(engine, content)
	l.misfits(err)
	if err != nil {
		l.replace(nil)
		return
	}
	if l.active != nil {
		l.stopBeside() // it was compared with what was active; its lane is needed
	}
	m := l.member(want)
	m.generation = l.state.Generation
	l.replace(m)
	m.configure(in, l.isOff())
}

// replace puts another member, or none, in the place of the active one.
func (l *lineage) replace(m *member) {
	l.mu.Lock()
	old := l.active
	l.active = m
	off := l.off
	l.mu.Unlock()
	l.r.changed() // the new one is asked, if it is ready, before the old one is not any more
	l.retire(old)
	if m != nil && off {
		m.enable(false)
	}
}

// retire ends a member.
func (l *lineage) retire(m *member) {
	if m == nil {
		return
	}
	l.mu.Lock()
	l.former = append(l.former, m)
	if m.agreement.Load() == nil {
		l.restarts += m.restarts()
	}
	l.mu.Unlock()
	m.stop()
	go func() {
		<-m.gone
		l.mail.put(func() { l.buried(m) })
	}()
}

// buried adds up what a member did that has ended.
func (l *lineage) buried(m *member) {
	defer l.r.collect()
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, f := range l.former {
		if f == m {
			l.former = append(l.former[:i:i], l.former[i+1:]...)
			if m.agreement.Load() == nil {
				l.past = l.past.Add(m.counters())
			}
			return
		}
	}
}

// member makes one in the lane that is free. It begins to live when the last one there has ended. Preconditions: there
// is no active one, or none beside.
func (l *lineage) member(runs [2]rollback.Digest) *member {
	lane := laneA
	for _, m := range []*member{l.active, l.beside} {
		if m != nil && m.lane == laneA {
			lane = laneB
		}
	}
	var before *member
	for _, f := range l.former {
		if f.lane == lane {
			before = f
		}
	}
	return newMember(l, lane, runs, before)
}

func (l *lineage) startBeside(p rollback.Part) {
	engine, content := l.onTrial(p)
	in, err := l.compose(engine, content)
	if err != nil {
		t := l.state.Trial
		go l.mail.put(func() {
			l.step(rollback.Input{Kind: rollback.BesideEnded, Part: t.Part, Digest: t.Digest, Cause: err.Error()})
		})
		return
	}
	l.stopBeside() // there is none
	m := l.member([2]rollback.Digest{engine.Digest, content.Digest})
	m.agreement.Store(&docket.Agreement{With: l.id})
	l.mu.Lock()
	l.beside = m
	l.mu.Unlock()
	m.configure(in, l.isOff())
}

// onTrial are the versions with which a candidate of a part is tried.
func (l *lineage) onTrial(p rollback.Part) (engine, content rollback.Version) {
	engine, content = l.state.Engine.Active, l.state.Content.Active
	if p == rollback.Engine {
		return l.state.Engine.Candidate, content
	}
	return engine, l.state.Content.Candidate
}

func (l *lineage) stopBeside() {
	l.mu.Lock()
	m := l.beside
	l.beside = nil
	l.mu.Unlock()
	l.retire(m)
}
