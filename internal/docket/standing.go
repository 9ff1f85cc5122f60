package docket

import (
	"fmt"
	"hash/fnv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/arbiter"
)

// Numbers are what a standing is judged by.
type Numbers struct {
	Breaker arbiter.BreakerConfig
	Pace    arbiter.PaceConfig
	Storm   arbiter.StormConfig
}

// DefaultNumbers are the documented numbers.
func DefaultNumbers() Numbers {
	return Numbers{Breaker: arbiter.DefaultBreaker(), Pace: arbiter.DefaultPace(), Storm: arbiter.DefaultStorm()}
}

// What became of a standing.
const (
	Bypassed  = "bypassed"   // a breaker opened: the provider is not waited for
	Restored  = "restored"   // it is asked and waited for again
	Stuck     = "stuck"      // it has been bypassed for too long
	Slow      = "slow"       // it is in audit because it takes too much of its budget
	FastAgain = "fast-again" // it is not any more
	DenyStorm = "deny-storm" // it is in audit because it denies what it should not
	Calm      = "calm"       // it is not any more
)

// Change is news about a provider's standing.
type Change struct {
	What    string     // one of the words above
	Type    event.Type // with Bypassed, Restored and Stuck
	Content string     // the content version concerned, the provider's own words; may be empty
	Cause   string     // one sentence that begins with the provider's id

	Generation uint64 // of the versions that did it, as Renew said
}

// Watch says whose standing it is and who hears of it.
type Watch struct {
	ID      string
	Numbers Numbers
	Owned   func(path string) bool // whether the distribution's packages own a path; may be nil. It must not block
	Tell    func(Change)           // on a goroutine of its own, after the kernel has its answer; may be nil
}

// Standing is what one provider has done to earn being waited for: a breaker for each type of auth events, its pace,
// and the deny-storm breaker. It outlives sessions and changes of the panel, and is safe for concurrent use. Its
// lock is never held across a call to anybody.
type Standing struct {
	w     Watch
	base  time.Time
	audit atomic.Bool // it enforces nothing, whatever its mode is

	mu       sync.Mutex
	breakers [2]arbiter.Breaker // by type: Open, Exec
	pace     arbiter.Pace
	storm    arbiter.Storm
	content  string // of the last heartbeat

	generation uint64 // of the last Renew

	said     string // content of the last vote, and its hash, because it is mostly the same
	saidHash uint32
	demoted  [2]Demotion // by reason: slow, deny-storm
}

// NewStanding makes the standing of a provider that has done nothing yet.
func NewStanding(w Watch) *Standing { return &Standing{w: w, base: time.Now()} }

// stir is what one input did to a standing.
type stir struct {
	changes []Change
	release bool // nobody shall wait any longer for what is pending of this type
	relieve bool // it enforces no more, also not in what is pending
}

func (s *Standing) at(now time.Time) time.Duration { return now.Sub(s.base) }

func (s *Standing) breaker(t event.Type) *arbiter.Breaker {
	if t == event.Exec {
		return &s.breakers[1]
	}
	return &s.breakers[0]
}

// route says what to do with an event of type t.
func (s *Standing) route(t event.Type, now time.Time) (arbiter.Route, []Change) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, turn := s.breaker(t).Ask(s.w.Numbers.Breaker, s.at(now))
	return r, s.turned(t, turn)
}

// sound reports whether the provider is waited for in events of type t.
func (s *Standing) sound(t event.Type) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.breaker(t).View().State == arbiter.Closed
}

// answered counts a vote in time.
func (s *Standing) answered(t event.Type, now time.Time, took, budget time.Duration) stir {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := stir{changes: s.turned(t, s.breaker(t).Answered(s.w.Numbers.Breaker, s.at(now)))}
	s.paced(&x, now, took, budget)
	return x
}

// missed counts a vote that is missing: at its deadline, or for another reason.
func (s *Standing) missed(t event.Type, now time.Time, budget time.Duration, deadline bool) stir {
	s.mu.Lock()
	defer s.mu.Unlock()
	turn := s.breaker(t).Missed(s.w.Numbers.Breaker, s.at(now))
	x := stir{changes: s.turned(t, turn), release: deadline && turn == arbiter.Opened}
	if deadline {
		s.paced(&x, now, budget, budget)
	}
	return x
}

// paced counts how long a vote took. Preconditions: mu is held.
func (s *Standing) paced(x *stir, now time.Time, took, budget time.Duration) {
	c := s.w.Numbers.Pace
	turn := s.pace.Vote(c, s.at(now), took, budget)
	switch turn {
	case arbiter.TooSlow, arbiter.MuchTooSlow:
		many, long := "one vote in a hundred", c.Window
		if turn == arbiter.MuchTooSlow {
			many, long = "every second vote", c.Soon
		}
		cause := fmt.Sprintf("%s: more than %s took over %d %% of its budget of %v for %v",
			s.w.ID, many, c.Percent, budget, long)
		s.demote(0, Slow, now, cause)
		x.relieve = true
		x.changes = append(x.changes, Change{What: Slow, Content: s.content, Cause: cause, Generation: s.generation})
	case arbiter.FastAgain:
		x.changes = append(x.changes, s.promote(0, FastAgain))
	}
}

// ruled shows a vote to the deny-storm breaker before it has an effect.
func (s *Standing) ruled(r arbiter.Ruling, content string, now time.Time) stir {
	s.mu.Lock()
	defer s.mu.Unlock()
	if content == "" {
		content = s.content
	}
	if content != s.said || s.saidHash == 0 {
		s.said, s.saidHash = content, hashOf(content)
	}
	r.Content = s.saidHash
	f, tripped := s.storm.Vote(s.w.Numbers.Storm, s.at(now), r)
	if !tripped {
		return stir{}
	}
	cause := s.w.ID + ": " + describe(f)
	s.demote(1, DenyStorm, now, cause)
	return stir{relieve: true, changes: []Change{{
		What: DenyStorm, Content: content, Cause: cause, Generation: s.generation,
	}}}
}

func hashOf(content string) uint32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(content)) // it cannot fail
	return max(h.Sum32(), 1)
}

// describe says what a content has done.
func describe(f arbiter.Finding) string {
	in := fmt.Sprintf("%.1fs", f.Took.Seconds())
	if f.Repeats > 0 {
		return fmt.Sprintf("content denied what it had allowed and packages own %d times in %s (%d objects)",
			f.Repeats, in, f.Owned)
	}
	switch f.Known {
	case f.Objects:
		return fmt.Sprintf("content denied %d objects that it had allowed, %d of them owned by packages, in %s",
			f.Objects, f.Owned, in)
	case 0:
		return fmt.Sprintf("content denied %d objects, %d of them owned by packages, in %s", f.Objects, f.Owned, in)
	}
	return fmt.Sprintf("content denied %d objects, %d that it had allowed and %d owned by packages, in %s",
		f.Objects, f.Known, f.Owned, in)
}

// turned turns a breaker's turn into news. Preconditions: mu is held.
func (s *Standing) turned(t event.Type, turn arbiter.Turn) []Change {
	if turn == 0 {
		return nil
	}
	v := s.breaker(t).View()
	c := Change{Type: t, Content: s.content, Generation: s.generation}
	switch turn {
	case arbiter.Opened:
		c.What = Bypassed
		c.Cause = fmt.Sprintf("%s: too many votes on %s missing (%d so far): it is not waited for, and tried in %v",
			s.w.ID, t, v.Misses, v.Until-v.Since)
	case arbiter.Restored:
		c.What = Restored
		c.Cause = fmt.Sprintf("%s: votes on %s come in time again", s.w.ID, t)
	case arbiter.Stuck:
		c.What = Stuck
		c.Cause = fmt.Sprintf("%s: votes on %s have been missing for %v (%d so far)", s.w.ID, t,
			s.w.Numbers.Breaker.Stuck, v.Misses)
	}
	return []Change{c}
}

// demote and promote: preconditions: mu is held.
func (s *Standing) demote(i int, why string, now time.Time, cause string) {
	s.demoted[i] = Demotion{Why: why, Since: now, Cause: cause}
	s.audit.Store(true)
}

func (s *Standing) promote(i int, what string) Change {
	s.demoted[i] = Demotion{}
	s.audit.Store(s.demoted[0].Why != "" || s.demoted[1].Why != "")
	return Change{What: what, Content: s.content, Cause: s.w.ID + ": enforces again", Generation: s.generation}
}

// Heartbeat takes the content version that the provider says is in force. Another one than that which started a
// deny-storm ends it.
func (s *Standing) Heartbeat(content string) {
	s.mu.Lock()
	if content == "" || content == s.content {
		s.mu.Unlock()
		return
	}
	s.content = content
	var news []Change
	if s.storm.Content(hashOf(content)) {
		news = []Change{s.promote(1, Calm)}
	}
	s.mu.Unlock()
	s.tell(news)
}

// Restarted says that the provider's process is a new one: if it is bypassed, it is tried at once.
func (s *Standing) Restarted() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.breakers {
		s.breakers[i].Hurry(s.at(time.Now()))
	}
}

// Renew gives the provider a new start, because its engine or its content was replaced; generation counts these. What
// it had allowed is remembered.
func (s *Standing) Renew(generation uint64) {
	s.restart(s.storm.Renew)
	s.mu.Lock()
	s.generation = generation
	s.mu.Unlock()
}

// Accept gives the provider a new start because an administrator says so: what it has tripped over with this content
// does not trip it again.
func (s *Standing) Accept() { s.restart(s.storm.Accept) }

func (s *Standing) restart(storm func() bool) {
	s.mu.Lock()
	now := s.at(time.Now())
	var news []Change
	if storm() {
		news = append(news, s.promote(1, Calm))
	}
	if s.pace.Slow() {
		news = append(news, s.promote(0, FastAgain))
	}
	s.pace.Reset(now)
	for i, t := range []event.Type{event.Open, event.Exec} {
		if s.breakers[i].View().State != arbiter.Closed {
			news = append(news, s.turned(t, arbiter.Restored)...)
		}
		s.breakers[i].Reset(now)
	}
	s.mu.Unlock()
	s.tell(news)
}

func (s *Standing) tell(news []Change) {
	if s.w.Tell == nil {
		return
	}
	for _, c := range news {
		s.w.Tell(c)
	}
}

// owns reports whether the distribution's packages own a file. A file that others than root can change is nobody's.
func (s *Standing) owns(f *event.File) bool {
	return s.w.Owned != nil && ownedBy(s.w.Owned, f)
}

func ownedBy(owned func(path string) bool, f *event.File) bool {
	return !f.PathUnsure && f.UID == 0 && f.Mode&0o022 == 0 && owned(f.Path)
}

// Demotion says why a provider that is configured to enforce does not.
type Demotion struct {
	Why   string    `json:"why"` // "slow" or "deny-storm"
	Since time.Time `json:"since"`
	Cause string    `json:"cause"`
}

// BreakerStatus is how one breaker stands.
type BreakerStatus struct {
	Type     event.Type           `json:"type"`
	State    arbiter.BreakerState `json:"state"`
	Since    time.Time            `json:"since"`           // of the state
	Until    *time.Time           `json:"until,omitempty"` // while open: of the first copy
	Misses   uint64               `json:"misses"`          // votes that were missing, late or garbage
	Bypassed uint64               `json:"bypassed"`        // events for which the provider was not waited for
	Openings uint64               `json:"openings"`
}

// Status returns the breakers, and why the provider is demoted, if it is.
func (s *Standing) Status() (breakers []BreakerStatus, demoted *Demotion) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, t := range []event.Type{event.Open, event.Exec} {
		v := s.breakers[i].View()
		b := BreakerStatus{
			Type: t, State: v.State, Since: s.base.Add(v.Since), Misses: v.Misses, Bypassed: v.Bypassed,
			Openings: v.Openings,
		}
		if v.State == arbiter.Open {
			until := s.base.Add(v.Until)
			b.Until = &until
		}
		breakers = append(breakers, b)
	}
	for _, d := range s.demoted {
		if d.Why != "" {
			demoted = &d // of two, the deny-storm is graver
		}
	}
	return breakers, demoted
}
