package drill

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/internal/control"
	"github.com/keepout-security/keepout/internal/playground"
	"github.com/keepout-security/keepout/internal/supervisor"
)

// run plays one drill from the first file to the last process.
func (s *scene) run(ctx context.Context, length time.Duration) Result {
	r := Result{Name: s.drill.Name, Title: s.drill.Title, Provider: s.drill.Engine, Explanation: s.drill.Explanation}
	e, err := s.play(ctx, length)
	if err != nil {
		r.Error = err.Error()
	}
	r.FaultMS, r.LiftedMS = e.fault.Milliseconds(), e.lifted.Milliseconds()
	r.Host, r.Neighbours, r.Usage = e.host(s.drill.Stall), e.neighbours(good()), e.usage
	r.Timeline, r.Opens = s.drill.timeline(&e), e.buckets()
	for _, st := range e.states {
		r.States = append(r.States, State{AtMS: st.at.Milliseconds(), State: string(st.state)})
	}
	r.Passed = err == nil
	if err == nil {
		r.Checks = s.drill.judge(&e, notBuiltIn())
	}
	for _, c := range r.Checks {
		r.Passed = r.Passed && c.Passed
	}
	return r
}

// play runs the platform, the openers and the fault, and returns what was observed.
func (s *scene) play(ctx context.Context, length time.Duration) (e evidence, err error) {
	if err := s.furnish(); err != nil {
		return e, err
	}
	p, err := playground.Start(s.bin, s.dir, s.providers())
	if err != nil {
		return e, err
	}
	// Whatever goes wrong: with the platform ends every engine, and every open that waits.
	watchdog := time.AfterFunc(readyTime+length+patience+overtime, p.Kill)
	defer watchdog.Stop()
	if _, err := p.Until(ctx, "every provider votes", s.ready); err != nil {
		return e, errors.Join(err, fmt.Errorf("keepoutd said: %s", p.LastLog()), p.Stop())
	}
	began := time.Now()
	w := watch(ctx, p, s.drill.Engine, began)
	o := openAll(s.paths(goodFiles, goodFile), s.paths(badFiles, badFile), began)
	err = s.endure(ctx, p, w, length)
	w.say(func(e *evidence) { e.lifted = time.Since(began) })
	if s.drill.Core && s.victim > 1 && s.drill.Signal == unix.SIGSTOP {
		_ = unix.Kill(s.victim, unix.SIGCONT) // the guard may have ended it
	}
	opens := make(chan []opened, 1)
	go func() { opens <- o.stop() }()
	select {
	case found := <-opens:
		w.say(func(e *evidence) { e.opens = found })
	case <-time.After(overtime):
		p.Kill()
		err = errors.Join(err, errors.New("opens were never answered"))
		found := <-opens
		w.say(func(e *evidence) { e.opens = found })
	}
	w.end()
	stopped := p.Stop()
	if !s.drill.Core { // whose platform may be gone
		err = errors.Join(err, stopped)
	}
	w.read()
	return w.evidence(), err
}

// endure lets the openers run warm, commits the fault, and waits until all that must be seen has been seen.
func (s *scene) endure(ctx context.Context, p *playground.Platform, w *watcher, length time.Duration) error {
	if err := wait(ctx, warmUp); err != nil {
		return err
	}
	if err := s.prove(ctx, w); err != nil {
		return err
	}
	w.mark()
	if err := s.commit(ctx, p, w); err != nil {
		return err
	}
	// What must be over after a while is watched for longer than that.
	if err := wait(ctx, max(length, s.drill.DenyFor+time.Second, s.drill.OpenFor+time.Second)); err != nil {
		return err
	}
	for end := time.Now().Add(patience); time.Now().Before(end); {
		e := w.evidence()
		if s.drill.settled(&e, notBuiltIn()) {
			return nil
		}
		if err := wait(ctx, lookEvery); err != nil {
			return err
		}
	}
	return nil // the judgement says what was not seen
}

// prove waits for a while, where the platform keeps versions, for the first content to be proven: without an update in
// between it may never say so, and is what a rollback goes to all the same.
func (s *scene) prove(ctx context.Context, w *watcher) error {
	if s.updates() == "" {
		return nil
	}
	for end := time.Now().Add(proof); time.Now().Before(end); {
		e := w.evidence()
		proven := func(n noteSeen) bool {
			return n.note.Provider == s.drill.Engine && matches("last-known-good.* content ", noteText(n))
		}
		if slices.ContainsFunc(e.notes, proven) {
			return nil
		}
		if err := wait(ctx, lookEvery); err != nil {
			return err
		}
	}
	return nil
}

// commit commits the fault.
func (s *scene) commit(ctx context.Context, p *playground.Platform, w *watcher) error {
	if s.drill.Update == nil {
		return s.signal(ctx, p)
	}
	checked, err := s.update(ctx)
	if err != nil {
		return err
	}
	_, refused := p.Ask(ctx, control.Request{Do: "reload"})
	w.say(func(e *evidence) {
		e.checked = checked
		if refused != nil {
			e.refused = refused.Error()
		}
	})
	return nil
}

// signal sends the drill's signal to the hostile provider's process, or to the core's, and remembers to which.
func (s *scene) signal(ctx context.Context, p *playground.Platform) error {
	st, err := p.Status(ctx)
	if err != nil {
		return err
	}
	s.victim = st.PID
	if !s.drill.Core {
		s.victim = playground.Find(st, s.drill.Engine).PID
	}
	if s.victim <= 1 {
		return errors.New("there is no process to signal")
	}
	if err := unix.Kill(s.victim, s.drill.Signal); err != nil {
		return fmt.Errorf("signal %d: %w", s.victim, err)
	}
	return nil
}

// ready accepts a status in which all three vote.
func (s *scene) ready(st *control.Status) error {
	for _, id := range append(good(), s.drill.Engine) {
		p := playground.Find(st, id)
		if p == nil || p.State != supervisor.Running {
			return fmt.Errorf("%s does not vote", id)
		}
	}
	return nil
}

// wait lets time pass, or ends with ctx.
func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
