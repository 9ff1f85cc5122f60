package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/arbiter"
)

// due is how long anybody waits for a vote.
const due = budget * arbiter.HeadroomPercent / 100

// burst is callers who come at about the same time, until nobody waits any more. What it does with the arbiter and
// the standings is what internal/docket does, in the same order.
type burst struct {
	h         *Host
	now       time.Duration
	moves     []move
	questions []*question
	err       error // the first broken promise
}

// move is one thing that will happen: a caller comes, or something becomes of his question.
type move struct {
	at   time.Duration
	q    *question // nil: a caller comes
	in   arbiter.Input
	dies bool
}

// question is one caller.
type question struct {
	c                *arbiter.Case
	at               time.Duration
	object           object
	seats            []seat
	answered, closed int
	answeredAt       time.Duration
	denied           bool // by a vote that counts
}

// seat is one provider's part in a question.
type seat struct {
	g       *guest
	content uint32 // hash of the version that it is asked with
	route   arbiter.Route
	audit   bool // nobody waits for it
	over    bool // no vote is expected any more
}

// wrong notes a broken promise.
func (b *burst) wrong(err error) {
	if b.err == nil && err != nil {
		b.err = err
	}
}

func (b *burst) play() error {
	for len(b.moves) > 0 && b.err == nil {
		next := 0
		for i, m := range b.moves {
			if m.at < b.moves[next].at {
				next = i
			}
		}
		m := b.moves[next]
		b.moves = slices.Delete(b.moves, next, next+1)
		b.now = m.at
		switch {
		case m.q == nil:
			b.open()
		case m.dies:
			b.die(m.q.seats[m.in.Voter].g)
		default:
			b.vote(m.q, m.in)
		}
		b.judge()
	}
	for _, q := range b.questions {
		if q.answered != 1 || q.closed != 1 {
			b.wrong(fmt.Errorf("a question was answered %d and closed %d times", q.answered, q.closed))
		}
	}
	for _, g := range b.h.guests {
		if err := g.standing.books.reconcile(g.standing.breaker.View()); err != nil {
			b.wrong(fmt.Errorf("%s: %w", g.id, err))
		}
	}
	return b.err
}

// open puts a question to everybody who runs, and draws what they will do.
func (b *burst) open() {
	q := &question{at: b.now, object: b.h.object()}
	var voters []arbiter.Voter
	for _, g := range b.h.guests {
		if !g.asked() {
			continue
		}
		route, err := g.standing.ask(b.now)
		b.wrong(err)
		s := seat{g: g, route: route, audit: g.standing.audit(), content: g.run.hash}
		v := arbiter.Voter{
			Provider: g.id, Mode: event.Enforce, FailClosed: b.h.rng.IntN(8) == 0, Budget: budget,
			Bypassed: route != arbiter.Ask, Probed: route == arbiter.Probe,
		}
		if s.audit {
			v.Mode = event.Audit
		}
		if route != arbiter.Skip {
			m := b.h.vote(g, q.object)
			m.at, m.q, m.in.Voter = m.at+b.now, q, len(voters)
			b.moves = append(b.moves, m)
		}
		q.seats, voters = append(q.seats, s), append(voters, v)
	}
	b.moves = append(b.moves, move{at: b.now + due, q: q, in: arbiter.Input{Kind: arbiter.Tick}})
	b.questions = append(b.questions, q)
	var eff arbiter.Effects
	q.c, eff = arbiter.New(arbiter.Policy{Mode: event.Enforce}, voters)
	b.apply(q, eff)
}

// vote draws what a provider does, and after how long.
func (h *Host) vote(g *guest, o object) move {
	t := &g.run.traits
	m := move{
		at: time.Duration(1+h.rng.IntN(20)) * time.Millisecond,
		in: arbiter.Input{Kind: arbiter.Voted, Vote: event.Vote{Action: event.Allow, Confidence: event.Certain}},
	}
	switch {
	case t.slow || h.now.Before(g.stalled):
		m.at += budget
	case t.tardy || h.now.Before(h.busy):
		m.at += 15 * time.Millisecond
	}
	if o.bad || t.denies(o) {
		m.in.Vote.Action = event.Deny
	}
	m.dies = h.rng.Float64() < t.crash || h.now.Before(g.weather)
	return m
}

// die is the end of a provider's process: what it owes is lost.
func (b *burst) die(g *guest) {
	if g.dying {
		return
	}
	g.dying = true
	lost := arbiter.Input{Kind: arbiter.Lost, Reason: event.ReasonLost}
	b.each(g, lost, func(*question, int) bool { return true })
}

// vote counts a vote, or lets time pass. Who denies too much is found out before that has an effect.
func (b *burst) vote(q *question, in arbiter.Input) {
	if in.Kind == arbiter.Tick {
		b.step(q, in)
		return
	}
	i := in.Voter
	expected := q.c.Expects(i, b.now-q.at)
	if expected {
		b.rule(q, i, in.Vote)
	}
	s := &q.seats[i]
	counts := expected && s.route == arbiter.Ask && !s.audit && in.Vote.Action == event.Deny
	b.step(q, in)
	if !counts || q.denied || q.answeredAt < b.now {
		return // others have decided before
	}
	if q.c.Verdict().Allowed {
		b.wrong(fmt.Errorf("allowed what %s denied in time", s.g.id))
	}
}

// rule shows a vote to the deny-storm breaker.
func (b *burst) rule(q *question, i int, vote event.Vote) {
	s := &q.seats[i]
	denied := vote.Action == event.Deny
	if denied && (s.route != arbiter.Ask || s.g.standing.audit()) {
		return
	}
	stir, err := s.g.standing.ruled(b.now, arbiter.Ruling{
		Object: q.object.id, Content: s.content, Denied: denied, Owned: denied && q.object.owned,
	})
	b.wrong(err)
	b.follow(s.g, stir)
}

// step applies one input to a case and lets the standings hear what came of it.
func (b *burst) step(q *question, in arbiter.Input) {
	took := b.now - q.at
	eff := q.c.Step(took, in)
	for _, i := range eff.Missed {
		q.seats[i].over = true
	}
	if eff.Took {
		q.seats[in.Voter].over = true
	}
	b.apply(q, eff)
	for _, i := range eff.Missed {
		g := q.seats[i].g
		stir, err := g.standing.missed(b.now)
		b.wrong(err)
		b.follow(g, stir)
	}
	if !eff.Took {
		return
	}
	g := q.seats[in.Voter].g
	switch {
	case in.Kind == arbiter.Voted:
		stir, err := g.standing.answered(b.now, took)
		b.wrong(err)
		b.follow(g, stir)
	case in.Reason == event.ReasonBypassed:
		g.standing.books.bypassed++
	default:
		g.standing.books.lost++
	}
}

// follow does what a change of standing means for who waits.
func (b *burst) follow(g *guest, x stir) {
	if x.release {
		gone := arbiter.Input{Kind: arbiter.Lost, Reason: event.ReasonBypassed}
		b.h.Count.Released += b.each(g, gone, func(q *question, i int) bool {
			return q.seats[i].route == arbiter.Ask && q.c.Expects(i, 0)
		})
	}
	if x.relieve {
		b.h.Count.Relieved += b.each(g, arbiter.Input{Kind: arbiter.Relieved}, func(q *question, i int) bool {
			q.seats[i].audit = true
			return true
		})
	}
}

// each applies in to every open question in which a provider has a seat that is concerned, and says to how many.
func (b *burst) each(g *guest, in arbiter.Input, concerned func(q *question, i int) bool) (n int) {
	for _, q := range b.questions {
		for i := range q.seats {
			if q.closed == 0 && q.seats[i].g == g && concerned(q, i) {
				n++
				in.Voter = i
				b.step(q, in)
			}
		}
	}
	return n
}
