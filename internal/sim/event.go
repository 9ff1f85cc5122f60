package sim

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/arbiter"
	"github.com/keepout-security/keepout/internal/rollback"
	"github.com/keepout-security/keepout/internal/supervisor"
)

// budget is every provider's.
const budget = 50 * time.Millisecond

// answer is what one provider does with one event.
type answer struct {
	at   time.Duration
	in   arbiter.Input
	of   *guest
	dies bool
}

// event puts one question to everybody who runs, and lets what comes of it have its consequences.
func (h *Host) event() error {
	h.Count.Events++
	bad := h.rng.IntN(50) == 0 // malware
	var voters []arbiter.Voter
	var answers []answer
	for _, g := range h.guests {
		if g.run == nil || g.sup.State != supervisor.Running || g.breaker.open {
			continue
		}
		a := h.vote(g, bad)
		a.in.Voter = len(voters)
		voters = append(voters, arbiter.Voter{
			Provider: g.id, Mode: event.Enforce, FailClosed: h.rng.IntN(8) == 0, Budget: budget,
		})
		answers = append(answers, a)
	}
	missed, err := decide(voters, answers)
	if err != nil {
		return wrong(err)
	}
	for i, a := range answers {
		if err := h.follow(a, slices.Contains(missed, i), bad); err != nil {
			return err
		}
	}
	return nil
}

// vote draws what a provider does.
func (h *Host) vote(g *guest, bad bool) answer {
	t := g.run.traits
	a := answer{of: g, at: time.Duration(1+h.rng.IntN(20)) * time.Millisecond, in: arbiter.Input{Kind: arbiter.Voted}}
	if t.slow {
		a.at += budget
	}
	a.in.Vote = event.Vote{Action: event.Allow, Confidence: event.Certain}
	if bad || h.rng.Float64() < t.deny {
		a.in.Vote.Action = event.Deny
	}
	if h.rng.Float64() < t.crash || h.now.Before(g.weather) {
		a.dies, a.in = true, arbiter.Input{Kind: arbiter.Lost, Reason: event.ReasonLost}
	}
	return a
}

// decide plays one question and holds the arbiter to its promises.
func decide(voters []arbiter.Voter, answers []answer) (missed []int, err error) {
	c, eff := arbiter.New(arbiter.Policy{Mode: event.Enforce}, voters)
	answered, closed := count(eff.Answer), count(eff.Closed)
	denied := false
	inOrder := slices.Clone(answers)
	slices.SortStableFunc(inOrder, func(a, b answer) int { return cmp.Compare(a.at, b.at) })
	take := func(eff arbiter.Effects) {
		answered, closed = answered+count(eff.Answer), closed+count(eff.Closed)
		missed = append(missed, eff.Missed...)
	}
	for _, a := range inOrder {
		inTime := a.at < budget*arbiter.HeadroomPercent/100
		if answered == 0 && inTime && a.in.Kind == arbiter.Voted && a.in.Vote.Action == event.Deny {
			denied = true
		}
		take(c.Step(a.at, a.in))
	}
	take(c.Step(time.Second, arbiter.Input{Kind: arbiter.Tick}))
	switch {
	case answered != 1 || closed != 1:
		return nil, fmt.Errorf("a question was answered %d and closed %d times", answered, closed)
	case denied && c.Verdict().Allowed:
		return nil, errors.New("allowed what an enforcing provider denied in time")
	}
	return missed, nil
}

func count(yes bool) int {
	if yes {
		return 1
	}
	return 0
}

// follow is what an answer means for its provider.
func (h *Host) follow(a answer, missed, bad bool) error {
	g := a.of
	if g.run == nil { // gone by what followed from another's answer: nothing here can do that
		return nil
	}
	generation := g.run.generation
	switch {
	case a.dies:
		return h.crash(g, "signal 11")
	case missed && g.breaker.missed(h.now):
		h.Count.Breakers++
		return h.feed(g, rollback.Input{Kind: rollback.BreakerOpened, Generation: generation})
	case !missed && !bad && a.in.Vote.Action == event.Deny:
		h.Count.Denied++
		if g.storm.denied(h.now) {
			h.Count.Storms++
			in := rollback.Input{Kind: rollback.DenyStorm, Cause: "20 good files in 10s", Generation: generation}
			if err := h.feed(g, in); err != nil {
				return err
			}
			if g.run != nil && g.run.generation == generation {
				return wrong(fmt.Errorf("%s: after a deny storm the same versions run", g.id))
			}
		}
	}
	return nil
}
