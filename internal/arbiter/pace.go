package arbiter

import "time"

// PaceConfig holds the numbers by which an engine is too slow to be waited for.
type PaceConfig struct {
	Percent int           // of the budget: a vote that takes longer is slow
	Window  time.Duration // more than one slow vote in a hundred within it is a slow window
	Slow    int           // and at least so many
	Calm    int           // votes in a window that is not slow, for it to count as good
	Good    int           // good windows in a row that let it enforce again; doubles each time, up to MaxGood
	MaxGood int
}

// DefaultPace returns the documented numbers: the 99th percentile of one minute above half of the budget.
func DefaultPace() PaceConfig {
	return PaceConfig{Percent: 50, Window: time.Minute, Slow: 10, Calm: 20, Good: 3, MaxGood: 60}
}

// PaceTurn is what a vote's time changed. The zero value is nothing.
type PaceTurn uint8

// The turns.
const (
	TooSlow PaceTurn = iota + 1
	FastAgain
)

// Pace watches how much of its budget a provider takes. One that takes too much for a whole window is not waited for
// until it has done better for several. The zero value is fast. It is not safe for concurrent use.
type Pace struct {
	slow  bool
	start time.Duration // of the window
	votes int
	late  int // slow ones of them
	good  int // windows in a row
	need  int // good windows; 0: never demoted
}

// Vote counts a vote that took so long of its budget; a missed deadline took all of it.
func (p *Pace) Vote(c PaceConfig, now, took, budget time.Duration) PaceTurn {
	turn := PaceTurn(0)
	if now-p.start >= c.Window {
		turn = p.judge(c)
		p.start, p.votes, p.late = now, 0, 0
	}
	p.votes++
	if took > budget*time.Duration(c.Percent)/100 {
		p.late++
	}
	return turn
}

// judge looks at a window that is over.
func (p *Pace) judge(c PaceConfig) PaceTurn {
	bad := p.late >= c.Slow && p.late*100 > p.votes
	switch {
	case bad && !p.slow:
		p.slow, p.good, p.need = true, 0, max(c.Good, min(2*p.need, c.MaxGood))
		return TooSlow
	case bad:
		p.good = 0
	case p.slow && p.votes >= c.Calm:
		if p.good++; p.good >= p.need {
			p.slow = false
			return FastAgain
		}
	}
	return 0
}

// Slow reports whether the provider is too slow to be waited for.
func (p *Pace) Slow() bool { return p.slow }

// Reset forgets everything, because an administrator says so or the engine is another one.
func (p *Pace) Reset(now time.Duration) { *p = Pace{start: now} }
