package sim

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/keepout-security/keepout/internal/arbiter"
	"github.com/keepout-security/keepout/internal/rollback"
	"github.com/keepout-security/keepout/internal/store"
	"github.com/keepout-security/keepout/internal/supervisor"
)

// stepped holds one step of rollback against the rules.
func stepped(was, is *rollback.State, in rollback.Input, todo []rollback.Effect) error {
	if err := is.Check(); err != nil {
		return fmt.Errorf("after input %d: %w", in.Kind, err)
	}
	for _, e := range todo {
		if (e.Act == rollback.RollBack || e.Act == rollback.Isolate || e.Act == rollback.Refuse) && e.Cause == "" {
			return fmt.Errorf("effect %+v names no cause", e)
		}
	}
	if in.Kind == rollback.DenyStorm {
		if err := blamed(was, is, in, todo); err != nil {
			return err
		}
	}
	for _, p := range rollback.Parts() {
		a, b := was.Slots(p), is.Slots(p)
		if a.Active.Digest == b.Active.Digest {
			continue
		}
		if _, refused := a.Refusal(b.Active.Digest); refused {
			return fmt.Errorf("%s: %s became active though it was refused", p, b.Active)
		}
		switch b.Active.Digest {
		case a.LKG.Digest, a.Factory.Digest:
		case a.Former.Digest:
			if in.Kind != rollback.RollBackNow {
				return fmt.Errorf("%s: %s became active and nobody ordered it", p, b.Active)
			}
		case a.Candidate.Digest:
			if !was.Trial.Beside {
				return fmt.Errorf("%s: %s became active without a trial", p, b.Active)
			}
		default:
			return fmt.Errorf("%s: %s became active out of nowhere", p, b.Active)
		}
	}
	return nil
}

// blamed holds the step that takes a deny storm against the rules: the versions that run go, with the storm as the
// cause wherever a person looks; and what earlier versions did is nobody's fault any more.
func blamed(was, is *rollback.State, in rollback.Input, todo []rollback.Effect) error {
	cause := "deny storm: " + in.Cause
	named := 0
	for _, e := range todo {
		switch {
		case e.Act == rollback.Notify && strings.HasSuffix(e.Problem.Title, cause),
			(e.Act == rollback.RollBack || e.Act == rollback.Isolate) && e.Cause == cause:
			named++
		}
	}
	if !was.Runnable() || in.Generation != was.Generation {
		if named > 0 {
			return fmt.Errorf("%q is laid on versions that did not do it: %+v", cause, todo)
		}
		return nil
	}
	said := func(p problem) bool { return strings.HasSuffix(p.Title, cause) }
	next := func(e rollback.Effect) bool { return e.Act == rollback.Activate } // its trial was over just now
	if named < 2 || !slices.ContainsFunc(is.Problems(), said) && !slices.ContainsFunc(todo, next) {
		return fmt.Errorf("%q has no consequence that names it: %+v, problems %+v", cause, todo, is.Problems())
	}
	if is.Last.Cause == cause {
		slots := is.Slots(is.Last.Part)
		if r, refused := slots.Refusal(is.Last.From.Digest); !refused || r.Cause != cause {
			return fmt.Errorf("%s is not refused for %q", is.Last.From, cause)
		}
	}
	return nil
}

// judge holds the host as it is against the rules.
func (h *Host) judge() error {
	for _, g := range h.guests {
		if err := h.judgeOne(g); err != nil {
			return wrong(fmt.Errorf("%s: %w", g.id, err))
		}
	}
	return nil
}

func (h *Host) judgeOne(g *guest) error {
	st := &g.st
	if st.Engine.Active.None() || st.Content.Active.None() {
		return errors.New("nothing is active, though nothing was damaged")
	}
	if r := g.run; r != nil {
		switch {
		case !st.Runnable():
			return fmt.Errorf("it runs in quarantine: %s", st.Quarantine.Cause)
		case r.engine != st.Engine.Active.Digest || r.content != st.Content.Active.Digest:
			return errors.New("what runs is not what is active")
		case r.generation != st.Generation:
			return fmt.Errorf("it runs in generation %d, the state says %d", r.generation, st.Generation)
		}
	}
	if (g.beside != nil) != st.Trial.Beside {
		return fmt.Errorf("beside: runs %v, the state says %v", g.beside != nil, st.Trial.Beside)
	}
	if open := g.standing.breaker.View().State != arbiter.Closed; st.Breaker && !open && len(g.standing.news) == 0 {
		return errors.New("rollback takes it for bypassed, and it is not")
	}
	if g.rollbacks > g.promotions {
		return fmt.Errorf("%d rollbacks of %d promotions", g.rollbacks, g.promotions)
	}
	return nil
}

// Rest lets a host be for a while with nothing new, and says who does not serve in the end though nothing is left
// that could keep it from that: the installation's versions are good.
func (h *Host) Rest() error {
	h.disk.CutAt(0)
	h.disk.Revive()
	for range 3 * 3600 {
		if err := h.pass(time.Second); err != nil {
			return err
		}
		if err := h.judge(); err != nil {
			return err
		}
	}
	if _, err := h.store.Collect(); err != nil {
		return err
	}
	for _, g := range h.guests {
		if g.run == nil || g.sup.State != supervisor.Running {
			return wrong(fmt.Errorf("%s does not come back: %s, quarantine %+v", g.id, g.sup.State, g.st.Quarantine))
		}
		for _, d := range g.st.Digests() {
			if err := h.store.Verify(d); err != nil {
				return wrong(err)
			}
		}
	}
	for _, p := range h.store.Problems() {
		if p.Code == store.CodeTorn || p.Code == store.CodeForgotten || p.Code == rollback.CodeLost {
			return wrong(p) // a power cut alone damages nothing
		}
	}
	return h.recover()
}

// recover lets callers come, and says who answers well and is bypassed all the same.
func (h *Host) recover() error {
	processes := map[*guest]*process{}
	for _, g := range h.guests {
		processes[g] = g.run
	}
	c := h.numbers.breaker
	for range (c.MaxWait + time.Duration(c.Probes+1)*c.ProbeEvery) / budget {
		h.now = h.now.Add(budget)
		if err := h.event(); err != nil {
			return err
		}
	}
	for _, g := range h.guests {
		if v := g.standing.breaker.View(); g.run != nil && g.run == processes[g] && !g.run.traits.slow &&
			v.State != arbiter.Closed {
			return wrong(fmt.Errorf("%s answers well, and its breaker is not closed: %+v", g.id, v))
		}
	}
	return h.judge()
}
