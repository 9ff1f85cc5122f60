package arbiter

import "time"

// StormConfig holds the numbers of the deny-storm breaker. Objects are counted once, however often they are denied.
type StormConfig struct {
	Window time.Duration // of all numbers below

	Objects int // denied objects that are popular or owned by packages

	Known   int // denied objects that it had allowed, popular or not,
	Percent int // when the denials are this share of its votes on objects that it had allowed

	Owned int // denials of package-owned objects that it had allowed, repeated ones included

	Popular int // times that an object was allowed, to be popular
}

// DefaultStorm returns the documented numbers; SPECIFICATION.md names them.
func DefaultStorm() StormConfig {
	return StormConfig{Window: 10 * time.Second, Objects: 5, Known: 10, Percent: 20, Owned: 20, Popular: 3}
}

// Sizes of a Storm's memory, 64 KiB in all.
const (
	stormSets = 1024
	stormWays = 4
	suspects  = 32
)

// Ruling is one vote that came in time, as the deny-storm breaker sees it.
type Ruling struct {
	Object  uint64 // hash of the object's version and of the type it was asked as
	Content uint32 // hash of the content version that answered
	Denied  bool   // and with effect; false: it let the object pass
	Owned   bool   // with Denied: the distribution's packages own the object
	ByActor bool   // its votes depend on who acts: under one content it may allow one and deny another
}

// Finding is what tripped a Storm.
type Finding struct {
	Objects int           // different ones denied within the window
	Known   int           // of those, what it had allowed
	Owned   int           // of those, what packages own
	Repeats int           // denials of owned objects that it had allowed, if it was these that were too many
	Took    time.Duration // from the first of these denials to the last
}

// Storm notices that a provider begins to deny what it had allowed, or what the distribution owns, so that a bad
// content denies no more than a handful of objects. What it remembers has a fixed size: of about four thousand
// objects that the provider let pass, the most popular ones. The zero value is calm. Times are on a clock with any
// origin. It is not safe for concurrent use.
type Storm struct {
	seen   [stormSets][stormWays]pass
	chance uint32

	denied  [suspects]suspect
	count   int   // of denied
	known   share // votes on objects that it had allowed; hits are denials
	repeats share // denials of owned objects that it had allowed

	tripped  bool
	accepted bool   // with content: an administrator wants it to deny
	content  uint32 // that tripped, or is accepted

	heard     uint32 // content of the last heartbeat
	heardThen uint32 // the same when it tripped
	confirmed bool   // a heartbeat has named the content that tripped
}

// pass is one object that the provider let pass.
type pass struct {
	object  uint64
	hits    uint32
	content uint32 // under which it last did
}

// suspect is one object that it should perhaps not have denied.
type suspect struct {
	object                uint64
	first, last           time.Duration
	known, popular, owned bool
}

// Tripped reports whether the provider's denials shall have no effect.
func (s *Storm) Tripped() bool { return s.tripped }

// Vote takes one vote before it has an effect, and reports whether it tripped the breaker: then this one and all
// that follow shall have none.
func (s *Storm) Vote(c StormConfig, now time.Duration, r Ruling) (Finding, bool) {
	before := s.find(r.Object)
	// Who denies what it allowed has changed its mind, whatever it says of its content; only where the caller counts,
	// both may be right under one content.
	changed := before != nil && (!r.ByActor || before.content != r.Content)
	if !r.Denied {
		if changed {
			s.known.add(c.Window, now, false)
		}
		s.pass(before, r)
		return Finding{}, false
	}
	if s.tripped || s.accepted && s.content == r.Content {
		return Finding{}, false
	}
	if before != nil && !changed || before == nil && !r.Owned {
		return Finding{}, false
	}
	d := suspect{object: r.Object, first: now, last: now, known: changed, owned: r.Owned}
	if changed {
		d.popular = int(before.hits) >= c.Popular
		s.known.add(c.Window, now, true)
		if r.Owned {
			s.repeats.add(c.Window, now, true)
		}
	}
	s.forget(now - c.Window)
	s.suspect(d)
	f, bad := s.judge(c, now)
	if bad {
		s.tripped, s.accepted, s.content = true, false, r.Content
		s.heardThen, s.confirmed = s.heard, s.heard == r.Content
	}
	return f, bad
}

// judge compares the suspects with the numbers.
func (s *Storm) judge(c StormConfig, now time.Duration) (Finding, bool) {
	f := Finding{Objects: s.count}
	grave, first := 0, now
	for _, d := range s.denied[:s.count] {
		if d.popular || d.owned {
			grave++
		}
		if d.known {
			f.Known++
		}
		if d.owned {
			f.Owned++
		}
		first = min(first, d.first)
	}
	f.Took = now - first
	all, hits := s.known.sum(c.Window, now)
	_, repeats := s.repeats.sum(c.Window, now)
	if grave >= c.Objects || f.Known >= c.Known && hits*100 >= all*c.Percent {
		return f, true
	}
	f.Repeats = repeats
	return f, repeats >= c.Owned
}

// suspect notes a denied object, in the place of the oldest when there are too many.
func (s *Storm) suspect(d suspect) {
	oldest := 0
	for i := range s.denied[:s.count] {
		if was := &s.denied[i]; was.object == d.object {
			d.first = was.first
			d.known, d.popular, d.owned = d.known || was.known, d.popular || was.popular, d.owned || was.owned
			*was = d
			return
		}
		if s.denied[i].last < s.denied[oldest].last {
			oldest = i
		}
	}
	if s.count < suspects {
		oldest = s.count
		s.count++
	}
	s.denied[oldest] = d
}

// forget drops the objects that were last denied before then.
func (s *Storm) forget(then time.Duration) {
	kept := 0
	for _, d := range s.denied[:s.count] {
		if d.last >= then {
			s.denied[kept] = d
			kept++
		}
	}
	s.count = kept
}

// find returns what is remembered of an object, or nil.
func (s *Storm) find(object uint64) *pass {
	set := &s.seen[object%stormSets]
	for i := range set {
		if set[i].hits > 0 && set[i].object == object {
			return &set[i]
		}
	}
	return nil
}

// pass remembers that an object passed. A new one takes the place of the least popular of its set, and each newcomer
// costs the others a little, so that what was popular long ago goes, too.
func (s *Storm) pass(p *pass, r Ruling) {
	if p == nil {
		set := &s.seen[r.Object%stormSets]
		// Among equals chance decides: a rule could hit the last newcomer every time.
		s.chance = s.chance*1664525 + 1013904223
		p = &set[s.chance>>16%stormWays]
		for i := range set {
			if set[i].hits < p.hits {
				p = &set[i]
			}
		}
		if p.hits > 0 {
			for i := range set {
				set[i].hits = max(set[i].hits-1, 1)
			}
		}
		*p = pass{object: r.Object}
	}
	p.content = r.Content
	if p.hits < 1<<20 {
		p.hits++
	}
}

// Content takes the content version that a heartbeat names, as a hash, and reports whether the provider may enforce
// again: its content is another one than that which tripped. A heartbeat that was under way when the content was
// loaded, and still names the old one, does not count.
func (s *Storm) Content(content uint32) (over bool) {
	s.heard = content
	switch {
	case !s.tripped:
	case content == s.content:
		s.confirmed = true
	case s.confirmed || content != s.heardThen:
		s.calm()
		return true
	}
	return false
}

// Renew lets the provider enforce again, because its content or its engine was replaced. It reports whether it did not.
func (s *Storm) Renew() bool {
	was := s.tripped
	s.calm()
	return was
}

// Accept lets the provider enforce again although it has the content that tripped, because an administrator wants it
// to. It does not trip again until the content changes. It reports whether it had tripped.
func (s *Storm) Accept() bool {
	was, content := s.tripped, s.content
	s.calm()
	if was {
		s.accepted, s.content = true, content
	}
	return was
}

func (s *Storm) calm() {
	s.tripped, s.accepted, s.confirmed, s.count = false, false, false, 0
	s.known, s.repeats = share{}, share{}
}
