package arbiter

import "time"

// PaceConfig holds the numbers by which an engine is too slow to be waited for.
type PaceConfig struct {
	Percent int           // of the budget: a vote that takes longer is slow
	Window  time.Duration // more than one slow vote in a hundred within it is a slow window
	Slow    int           // and at least so many
	Spread  time.Duration // from the first of them to the last: what comes at one time is one stall of the host
	Soon    time.Duration // a part of the window; if over half of the votes in it are slow, nobody waits for its end
	Calm    int           // votes in a window that is not slow, for it to count as good; it goes on until then
	Good    int           // good windows in a row that let it enforce again; doubles each time, up to MaxGood
	MaxGood int
}

// DefaultPace returns the documented numbers: the 99th percentile of one minute, or the median of ten seconds, above
// half of the budget.
func DefaultPace() PaceConfig {
	return PaceConfig{
		Percent: 50, Window: time.Minute, Slow: 10, Spread: 3 * time.Second, Soon: 10 * time.Second,
		Calm: 20, Good: 3, MaxGood: 60,
	}
}

// PaceTurn is what a vote's time changed. The zero value is nothing.
type PaceTurn uint8

// The turns.
const (
	TooSlow     PaceTurn = iota + 1 // more than one vote in a hundred for a window
	MuchTooSlow                     // more than every second one for the part of it
	FastAgain
)

// Pace watches how much of its budget a provider takes. One that takes too much for a whole window is not waited for
// until it has done better for several. The zero value is fast. It is not safe for concurrent use.
type Pace struct {
	slow   bool
	window span
	soon   span // the part of it
	good   int  // windows in a row
	need   int  // good windows; 0: never demoted
}

// span counts votes from a moment on.
type span struct {
	start       time.Duration
	votes       int
	late        int           // slow ones of them
	first, last time.Duration // when they came
}

func (s *span) count(now time.Duration, late bool) {
	s.votes++
	if !late {
		return
	}
	if s.late == 0 {
		s.first = now
	}
	s.late++
	s.last = now
}

// tells reports whether it has enough slow votes to say something of the provider.
func (s *span) tells(c PaceConfig) bool { return s.late >= c.Slow && s.last-s.first >= c.Spread }

// Vote counts a vote that took so long of its budget; a missed deadline took all of it.
func (p *Pace) Vote(c PaceConfig, now, took, budget time.Duration) PaceTurn {
	turn := PaceTurn(0)
	// A provider in audit is judged once it can be: on a quiet host no minute has enough votes.
	if w := &p.window; now-w.start >= c.Window && (!p.slow || w.votes >= c.Calm || w.tells(c)) {
		turn = p.judge(c)
		p.window = span{start: now}
	}
	if now-p.soon.start >= c.Soon {
		if s := &p.soon; !p.slow && turn == 0 && s.tells(c) && 2*s.late > s.votes {
			turn = p.demote(c, MuchTooSlow)
		}
		p.soon = span{start: now}
	}
	late := took > budget*time.Duration(c.Percent)/100
	p.window.count(now, late)
	p.soon.count(now, late)
	return turn
}

// judge looks at a window that is over.
func (p *Pace) judge(c PaceConfig) PaceTurn {
	bad := p.window.tells(c) && p.window.late*100 > p.window.votes
	switch {
	case bad && !p.slow:
		return p.demote(c, TooSlow)
	case bad:
		p.good = 0
	case p.slow && p.window.votes >= c.Calm:
		if p.good++; p.good >= p.need {
			p.slow = false
			return FastAgain
		}
	}
	return 0
}

func (p *Pace) demote(c PaceConfig, turn PaceTurn) PaceTurn {
	p.slow, p.good, p.need = true, 0, max(c.Good, min(2*p.need, c.MaxGood))
	return turn
}

// Slow reports whether the provider is too slow to be waited for.
func (p *Pace) Slow() bool { return p.slow }

// Reset forgets everything, because an administrator says so or the engine is another one.
func (p *Pace) Reset(now time.Duration) { *p = Pace{window: span{start: now}, soon: span{start: now}} }
