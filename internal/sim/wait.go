package sim

import (
	"fmt"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/arbiter"
)

// apply takes the arbiter's effects, and judges the answer when there is one.
func (b *burst) apply(q *question, eff arbiter.Effects) {
	for _, i := range eff.Cancel {
		q.seats[i].over = true
		q.seats[i].g.standing.books.cancelled++
	}
	if eff.Closed {
		q.closed++
	}
	if !eff.Answer {
		return
	}
	q.answered++
	q.answeredAt = b.now
	v := q.c.Verdict()
	if v.Latency > due {
		b.wrong(fmt.Errorf("a caller waited %v, the budget's part for that is %v", v.Latency, due))
	}
	if v.Allowed {
		return
	}
	for i := range q.seats {
		if s := &q.seats[i]; s.g.id == v.DecidedBy {
			b.blame(q, s, v)
			return
		}
	}
	b.wrong(fmt.Errorf("denied by %q, who was not asked", v.DecidedBy))
}

// blame judges a denial: whose effect it is must not be in audit, and the harm is bounded.
func (b *burst) blame(q *question, s *seat, v event.Verdict) {
	if s.audit || s.g.standing.audit() {
		b.wrong(fmt.Errorf("%s denies in audit: %s", s.g.id, v.Reason))
	}
	if v.Reason != event.ReasonDenied {
		return // its failure policy
	}
	q.denied = true
	if s.route != arbiter.Ask {
		b.wrong(fmt.Errorf("the vote of %s counts, though it is bypassed", s.g.id))
	}
	if !q.object.bad {
		b.h.Count.Denied++
	}
	if err := s.g.standing.toll.suffer(b.h.numbers.storm, b.now, q.object); err != nil {
		b.wrong(fmt.Errorf("%s: %w", s.g.id, err))
	}
}

// judge holds who waits against the rules: for somebody whose vote may still come in time and would count.
func (b *burst) judge() {
	for _, q := range b.questions {
		if q.answered > 0 {
			continue
		}
		waits := false
		for i := range q.seats {
			s := &q.seats[i]
			if s.over || s.audit || s.route != arbiter.Ask {
				continue
			}
			if s.g.dying || s.g.standing.books.down || s.g.standing.audit() {
				b.wrong(fmt.Errorf("a caller waits for %s: dead %v, bypassed %v, in audit %v",
					s.g.id, s.g.dying, s.g.standing.books.down, s.g.standing.audit()))
			}
			waits = true
		}
		if !waits || b.now > q.at+due {
			b.wrong(fmt.Errorf("a caller waits after %v for nobody: %+v", b.now-q.at, q.seats))
		}
	}
}
