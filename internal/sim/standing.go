package sim

import (
	"fmt"
	"time"

	"github.com/keepout-security/keepout/internal/arbiter"
	"github.com/keepout-security/keepout/internal/rollback"
)

// numbers are what a standing is judged by: the documented ones.
type numbers struct {
	breaker arbiter.BreakerConfig
	pace    arbiter.PaceConfig
	storm   arbiter.StormConfig
}

func documented() *numbers {
	return &numbers{arbiter.DefaultBreaker(), arbiter.DefaultPace(), arbiter.DefaultStorm()}
}

// standing is what a provider has done to earn being waited for: the platform's own decisions, in the order in which
// internal/docket asks them. Beside each stand books that remember everything, to judge it by.
type standing struct {
	n       *numbers
	count   *Counts
	breaker arbiter.Breaker
	pace    arbiter.Pace
	storm   arbiter.Storm
	books   books
	tempo   tempo
	toll    toll

	content    uint32           // of the last heartbeat
	generation uint64           // of the versions that it is about
	news       []rollback.Input // what rollback was not told yet
}

func newStanding(n *numbers, count *Counts, generation uint64) *standing {
	s := &standing{n: n, count: count, generation: generation}
	s.toll = newToll()
	return s
}

// stir is what one input did to a standing.
type stir struct {
	release bool // nobody shall wait for it any longer
	relieve bool // it enforces no more, also not in what is pending
}

// audit reports whether it enforces nothing.
func (s *standing) audit() bool { return s.pace.Slow() || s.storm.Tripped() }

// serves reports whether its votes count.
func (s *standing) serves() bool {
	return s.breaker.View().State == arbiter.Closed && !s.storm.Tripped()
}

func (s *standing) ask(now time.Duration) (arbiter.Route, error) {
	route, turn := s.breaker.Ask(s.n.breaker, now)
	return route, s.books.ask(s.n.breaker, now, route, turn)
}

func (s *standing) answered(now, took time.Duration) (stir, error) {
	turn := s.breaker.Answered(s.n.breaker, now)
	s.turned(turn)
	if err := s.books.answer(s.n.breaker, now, turn); err != nil {
		return stir{}, err
	}
	return s.paced(now, took)
}

// missed counts a missed deadline.
func (s *standing) missed(now time.Duration) (stir, error) {
	turn := s.breaker.Missed(s.n.breaker, now)
	s.turned(turn)
	if err := s.books.miss(s.n.breaker, now, turn); err != nil {
		return stir{}, err
	}
	x, err := s.paced(now, budget)
	x.release = turn == arbiter.Opened
	return x, err
}

func (s *standing) turned(turn arbiter.Turn) {
	in := rollback.Input{Generation: s.generation}
	switch turn {
	case arbiter.Opened:
		s.count.Breakers++
		in.Kind = rollback.BreakerOpened
	case arbiter.Restored:
		s.count.Restored++
		in.Kind = rollback.BreakerClosed
	default:
		return
	}
	s.news = append(s.news, in)
}

func (s *standing) paced(now, took time.Duration) (stir, error) {
	turn := s.pace.Vote(s.n.pace, now, took, budget)
	switch turn {
	case arbiter.TooSlow, arbiter.MuchTooSlow:
		s.count.Slow++
	case arbiter.FastAgain:
		s.count.FastAgain++
	}
	slow := turn == arbiter.TooSlow || turn == arbiter.MuchTooSlow
	return stir{relieve: slow}, s.tempo.vote(s.n.pace, took, turn)
}

// ruled shows a vote to the deny-storm breaker before it has an effect.
func (s *standing) ruled(now time.Duration, r arbiter.Ruling) (stir, error) {
	mute := s.storm.Tripped()
	f, tripped := s.storm.Vote(s.n.storm, now, r)
	if err := s.toll.rule(s.n.storm, now, r, mute, tripped); err != nil {
		return stir{}, fmt.Errorf("%w: finding %+v", err, f)
	}
	if !tripped {
		return stir{}, nil
	}
	s.count.Storms++
	s.news = append(s.news, rollback.Input{
		Kind: rollback.DenyStorm, Generation: s.generation,
		Cause: fmt.Sprintf("storm %d: %d objects in %s", s.count.Storms, f.Objects, f.Took),
	})
	return stir{relieve: true}, nil
}

// beat takes a heartbeat.
func (s *standing) beat(content uint32) {
	if content == s.content {
		return
	}
	s.content = content
	if s.storm.Content(content) {
		s.toll.renew()
	}
}

// renew is a new start with other versions.
func (s *standing) renew(now time.Duration, generation uint64) {
	s.breaker.Reset(now)
	s.pace.Reset(now)
	s.storm.Renew()
	s.books.renew()
	s.tempo = tempo{}
	s.toll.renew()
	s.generation = generation
}

// hurry is a new process with the same versions.
func (s *standing) hurry(now time.Duration) {
	s.breaker.Hurry(now)
	s.books.hurried = true
}
