package roster

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/keepout-security/keepout/internal/config"
	"github.com/keepout-security/keepout/internal/docket"
	"github.com/keepout-security/keepout/internal/health"
	"github.com/keepout-security/keepout/internal/rollback"
	"github.com/keepout-security/keepout/internal/session"
)

// Lanes of a provider: two processes may run side by side, and a third one tries a new version. Each lane has a user
// and a state folder of its own, because what runs in one may be about to be refused.
const (
	laneA = iota
	laneB
	laneTrial
	lanes
)

// laneKey names a lane's user; the first keeps the provider's own name.
func laneKey(id string, lane int) string { return id + [lanes]string{"", ".b", ".trial"}[lane] }

// candidateID is what a candidate is called on the panel and in records.
func candidateID(id string) string { return id + ".candidate" }

// lineage is one configured provider: its versions, the process that runs the active ones, and one that may run a
// candidate beside it. Its goroutine feeds what happens to the pure decision in internal/rollback and does what that
// says; the goroutine alone changes what mu guards.
type lineage struct {
	r        *Roster
	id       string
	slots    [lanes]int
	latency  *docket.Latency // of the active version, whichever it was
	standing *docket.Standing
	mail     *mailbox
	gone     chan struct{} // closed when the goroutine has ended

	mu         sync.Mutex
	configured config.Installed // the administrator's files; the zero value before the first
	state      rollback.State
	resumed    bool
	offered    rollback.Versions        // what is configured, as the store knows it
	accepted   map[rollback.Digest]bool // contents that an operator wants, whatever they deny
	off        bool                     // an administrator switched it off, until it is configured anew
	refused    error                    // why what is configured was not even offered
	misfit     error                    // why what is active does not run under what is configured
	active     *member
	beside     *member
	former     []*member        // that may not have ended
	past       session.Counters // of members that have ended
	trial      *trial
	stopping   bool
	caution    Caution // of this boot; Off ends when somebody enables the provider
	lastCause  string  // how the last process of the active version ended
	restarts   int     // of members that were active
	memory     memory

	pins []func() // let go of the packages that the state names; the goroutine's own
}

// newLineage makes a lineage that begins to live when its predecessor of the same id, if there is one, has ended.
func newLineage(r *Roster, id string, slots [lanes]int, predecessor *lineage) *lineage {
	l := &lineage{
		r: r, id: id, slots: slots, latency: docket.NewLatency(), mail: newMailbox(), gone: make(chan struct{}),
	}
	l.standing = docket.NewStanding(docket.Watch{
		ID: id, Numbers: docket.DefaultNumbers(), Owned: r.c.Owned, Tell: l.heard,
	})
	l.caution = r.caution(id)
	l.off = l.caution.Off
	go func() {
		if predecessor != nil {
			<-predecessor.gone
		}
		l.live()
	}()
	return l
}

// live is the goroutine.
func (l *lineage) live() {
	defer close(l.gone)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		wait := time.Hour
		l.mu.Lock()
		if due, ok := l.state.Due(l.r.rules()); ok && l.resumed {
			wait = max(due, time.Millisecond)
		}
		over := l.stopping && l.active == nil && l.beside == nil
		former := l.former
		l.mu.Unlock()
		if over {
			for _, m := range former {
				<-m.gone
			}
			for _, release := range l.pins {
				release()
			}
			return
		}
		timer.Reset(wait)
		select {
		case <-l.mail.full:
			for do := l.mail.take(); do != nil; do = l.mail.take() {
				do()
			}
		case <-timer.C:
			l.tick()
		}
	}
}

// configure takes what the configuration says, and offers the versions that it names.
func (l *lineage) configure(in config.Installed) {
	l.mail.put(func() {
		l.mu.Lock()
		l.configured, l.off = in, l.caution.Off
		l.mu.Unlock()
		if l.beside != nil {
			_ = l.reconfigure(l.beside, in) // it says so itself when it becomes active
		}
		switch {
		case l.active != nil:
			l.misfits(l.reconfigure(l.active, in))
		case l.resumed && !l.stopping && l.state.Runnable():
			l.activate() // it did not fit before
		}
		l.r.changed() // a mode or a failure policy
		go l.offer(in)
	})
}

// reconfigure runs a member's versions under another configuration: limits, settings, rights, mode. On an error, which
// may end when another engine becomes active, it goes on as it is.
func (l *lineage) reconfigure(m *member, in config.Installed) error {
	old := m.config()
	again, err := in.Under(old.Manifest)
	if err == nil {
		again.Content = old.Content
		m.configure(again, l.isOff())
	}
	if !l.isOff() {
		m.enable(true)
	}
	return err
}

// misfits remembers why what is active does not run as it is configured; nil means that it does.
func (l *lineage) misfits(err error) {
	l.mu.Lock()
	l.misfit = err
	l.mu.Unlock()
	if err != nil {
		l.r.noteRefusal(l.id, err)
	}
}

func (l *lineage) isOff() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.off
}

// offer brings the configured files into the store. Hashing them may take seconds, so it is not the goroutine's work.
func (l *lineage) offer(in config.Installed) {
	v, err := l.r.take(in)
	if st, known := l.r.c.Store.State(l.id); err == nil && (!known || st.Content.Active.None()) {
		err = l.r.first(in, v)
	}
	l.mail.put(func() {
		l.mu.Lock()
		newest := l.configured.Manifest == in.Manifest && l.configured.Content == in.Content
		l.mu.Unlock()
		if !newest || l.stopping {
			l.r.release(v)
			return
		}
		l.refuse(err)
		if err == nil {
			l.take(v)
			return
		}
		l.r.release(v)
		if _, known := l.r.c.Store.State(l.id); known && !l.resumed {
			l.resume(rollback.Versions{}) // with what was kept
		}
		l.r.changed()
	})
}

// refuse remembers why what is configured is not offered; nil means that it is.
func (l *lineage) refuse(err error) {
	l.mu.Lock()
	l.refused = err
	l.mu.Unlock()
	if err != nil {
		l.r.noteRefusal(l.id, err)
	}
}

// take offers versions that are in the store.
func (l *lineage) take(v rollback.Versions) {
	if !l.resumed {
		l.resume(v)
	}
	l.mu.Lock()
	l.offered = v
	l.mu.Unlock()
	for i, version := range []rollback.Version{v.Engine, v.Content} {
		in := rollback.Input{Kind: rollback.Offered, Part: rollback.Parts()[i], Version: version}
		if l.state.Slots(in.Part).Active.None() {
			in.Kind = rollback.Installed
		} else if l.caution.any() || l.settled(in.Part) {
			continue // nothing new while the machine has trouble starting, or where packages bring it
		}
		if !version.None() {
			l.step(in)
		}
	}
	l.r.release(v) // what was taken is in a slot by now
}

// resume begins the provider's life with what the store knows of it; installed is for a provider that it does not know.
func (l *lineage) resume(installed rollback.Versions) {
	if _, known := l.r.c.Store.State(l.id); known {
		installed = rollback.Versions{}
	}
	st, todo, err := l.r.c.Store.Resume(l.id, installed)
	if err != nil {
		l.r.storeFailed(l.id, err)
	}
	l.mu.Lock()
	l.state, l.resumed = st, true
	l.mu.Unlock()
	l.standing.Renew(st.Generation) // so that news about it is not taken for news about the next
	begun := false
	for _, e := range todo {
		begun = begun || e.Act == rollback.Activate || e.Act == rollback.RollBack
	}
	if !begun && st.Runnable() {
		l.activate()
	}
	l.act(todo)
}

// step feeds one input to the decision and does what it says.
func (l *lineage) step(in rollback.Input) {
	if !l.resumed || l.idle(in.Kind) {
		return
	}
	l.mu.Lock()
	st, todo := l.state.Next(l.r.rules(), time.Now(), in)
	l.state = st
	l.mu.Unlock()
	l.act(todo)
}

// tick lets time pass, and tells what the candidate has shown since.
func (l *lineage) tick() {
	l.mu.Lock()
	serving := l.active != nil && l.active.votes()
	beside, t := l.beside, l.state.Trial
	l.mu.Unlock()
	if l.isOff() {
		return // nobody is compared, and no time passes for a trial or a quarantine
	}
	if beside != nil && t.Beside {
		l.measure(beside, t)
	}
	l.step(rollback.Input{Kind: rollback.Tick, Serving: serving && !l.caution.Pinned})
}

// minMeasured is how many votes are enough to say that a candidate does not meet its budget, and badPercent how many
// of them must be missing.
const (
	minMeasured = 20
	badPercent  = 1
)

// measure tells how a candidate does beside the active version.
func (l *lineage) measure(m *member, t rollback.Trial) {
	about := rollback.Input{Part: t.Part, Digest: t.Digest}
	samples, differing := m.agreement.Load().Count()
	about.Kind, about.Samples, about.Differing = rollback.Compared, samples, differing
	l.step(about)
	c := m.counters()
	missed := c.Late + c.Bypassed + c.Dropped
	if asked := c.Delivered + c.Dropped; asked >= minMeasured && 100*missed > badPercent*asked {
		l.step(rollback.Input{
			Kind: rollback.Measured, Part: t.Part, Digest: t.Digest,
			Cause: fmt.Sprintf("%d of %d votes were not given in time", missed, asked),
		})
	}
}

// ended hears of the end of a member's process, or that it could not be started.
func (l *lineage) ended(m *member, cause string) {
	l.mail.put(func() {
		switch t := l.state.Trial; m {
		case l.beside:
			l.step(rollback.Input{Kind: rollback.BesideEnded, Part: t.Part, Digest: t.Digest, Cause: cause})
		case l.active:
			l.mu.Lock()
			l.lastCause = cause
			l.mu.Unlock()
			l.step(rollback.Input{Kind: rollback.Crashed, Cause: cause, Generation: m.generation})
		}
	})
}

// ready hears that a member votes.
func (l *lineage) ready(m *member) {
	l.mail.put(func() {
		t := l.state.Trial
		l.starting(m.runs, true)
		if m == l.active {
			l.tick() // from now on it serves, which is what makes it last-known-good
		}
		if m != l.beside || !t.Beside {
			return
		}
		about := rollback.Input{Part: t.Part, Digest: t.Digest, OK: true}
		// The self-test and the first votes were asked for in the throw-away cage; from now on what it does on live
		// events counts.
		for _, k := range []rollback.Kind{rollback.Loaded, rollback.SelfTested, rollback.Measured} {
			about.Kind = k
			l.step(about)
		}
	})
}

// allow takes the refusal of a version back and offers what is configured again. digest is the beginning of one.
func (l *lineage) allow(digest string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, part := range rollback.Parts() {
		for _, r := range l.state.Slots(part).Refused {
			d := r.Version.Digest
			if digest == "" || !strings.HasPrefix(string(d), digest) {
				continue
			}
			in := l.configured
			l.mail.put(func() {
				l.mu.Lock()
				if l.accepted == nil {
					l.accepted = map[rollback.Digest]bool{}
				}
				l.accepted[d] = true
				l.mu.Unlock()
				l.step(rollback.Input{Kind: rollback.Allow, Part: part, Digest: d})
				go l.offer(in)
			})
			return nil
		}
	}
	return fmt.Errorf("%w: %s has no refused version that begins with %q", ErrUnknown, l.id, digest)
}

// enable starts or ends the provider at an administrator's word.
func (l *lineage) enable(on bool) {
	if on {
		l.standing.Accept()
	}
	l.mail.put(func() {
		l.mu.Lock()
		l.off = !on
		l.caution.Off = l.caution.Off && !on
		members := []*member{l.active, l.beside}
		l.mu.Unlock()
		for _, m := range members {
			if m != nil {
				m.enable(on)
			}
		}
		l.r.changed() // what it may want is awaited, or no longer
	})
}

// stop ends the provider; gone is closed when it has.
func (l *lineage) stop() {
	l.mail.put(func() {
		l.step(rollback.Input{Kind: rollback.Stopping})
		l.mu.Lock()
		l.stopping = true
		t := l.trial
		l.mu.Unlock()
		if t != nil {
			t.cancel()
		}
		l.stopBeside()
		l.replace(nil)
	})
}

// problems lists what a person must know about the versions.
func (l *lineage) problems() []health.Problem {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := l.state.Problems()
	if p, on := l.onTrialProblem(); on {
		out = append(out, p)
	}
	for i, v := range []rollback.Version{l.offered.Engine, l.offered.Content} {
		part := rollback.Parts()[i]
		if r, refused := l.state.Slots(part).Refusal(v.Digest); refused && l.resumed {
			out = append(out, health.Problem{
				Code: rollback.CodeRefused, Severity: health.Warning, Provider: l.id,
				Title: fmt.Sprintf("%s: the configured %s %s is refused, %s goes on: %s", l.id, part, v,
					l.state.Slots(part).Active, r.Cause),
				Fix: fmt.Sprintf("correct it and reload; if it must be: keepout provider promote %s "+
					"after keepout provider allow %s %s", l.id, l.id, v.Digest.Short()),
			})
		}
	}
	out = append(out, l.unused(l.refused, "what was active before goes on")...)
	out = append(out, l.unused(l.misfit, "the version that is active cannot run under it")...)
	if l.resumed && l.configured.Manifest != nil && l.configured.Content == "" && !l.state.Content.Active.None() {
		out = append(out, l.unused(fmt.Errorf("no content is configured, content %s stays until another takes its place",
			l.state.Content.Active), "name the content that it shall use")...)
	}
	return out
}

// onTrialProblem tells what is not in force yet. Preconditions: mu is held.
func (l *lineage) onTrialProblem() (health.Problem, bool) {
	t := l.state.Trial
	if !l.resumed || t.Digest == "" {
		return health.Problem{}, false
	}
	c := l.r.rules()
	what := "is being checked"
	if t.Beside {
		what = fmt.Sprintf("runs in audit beside %s: %d events judged by both, %d objects differ; "+
			"it needs %d events and %v, or %v", l.state.Slots(t.Part).Active, t.Samples, t.Differing, c.Samples,
			c.TrialMin, c.TrialIdle)
	}
	return health.Problem{
		Code: "KO-1710", Severity: health.Info, Provider: l.id,
		Title: fmt.Sprintf("%s: the new %s %s is not in force yet, it %s", l.id, t.Part,
			l.state.Slots(t.Part).Candidate, what),
		Fix: "wait, or: keepout provider promote " + l.id,
	}, true
}

// unused is the problem of a configuration that is not in force.
func (l *lineage) unused(why error, fix string) []health.Problem {
	var p health.Problem
	switch {
	case why == nil:
		return nil
	case errors.As(why, &p):
		p.Provider = l.id
		return []health.Problem{p}
	}
	return []health.Problem{{
		Code: "KO-1709", Severity: health.Warning, Provider: l.id,
		Title: fmt.Sprintf("what is configured for %s is not used: %v", l.id, why), Fix: "correct it and reload; " + fix,
	}}
}
