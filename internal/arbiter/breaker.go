package arbiter

import (
	"fmt"
	"time"
)

// MaxMisses bounds BreakerConfig.Misses.
const MaxMisses = 16

// BreakerConfig holds the numbers of a breaker.
type BreakerConfig struct {
	Misses int           // so many, 1 to MaxMisses, within Window open it
	Window time.Duration // of Misses

	Percent int           // so do more misses than this in a hundred votes within Long,
	Samples int           // once there are so many votes in it
	Long    time.Duration // it slides by twelfths, so that it holds between eleven twelfths and all of it

	FirstWait time.Duration // from opening to the first probe; doubles with each further one
	MaxWait   time.Duration
	Stable    time.Duration // of being closed, after which the wait starts small again

	ProbeEvery time.Duration // of the copies that are sent while it is half open
	Probes     int           // good answers in a row that close it

	Stuck time.Duration // without being closed, after which somebody must be told
}

// DefaultBreaker returns the documented numbers; docs/protocol.md and SPECIFICATION.md name them.
func DefaultBreaker() BreakerConfig {
	return BreakerConfig{
		Misses: 3, Window: 10 * time.Second, Percent: 1, Samples: 300, Long: time.Minute,
		FirstWait: time.Second, MaxWait: time.Minute, Stable: time.Minute,
		ProbeEvery: 100 * time.Millisecond, Probes: 5, Stuck: time.Minute,
	}
}

// BreakerState is where a breaker stands.
type BreakerState uint8

// The states. The zero value is Closed.
const (
	Closed   BreakerState = iota // the provider is asked and waited for
	Open                         // it is not asked
	HalfOpen                     // it is sent copies, to see whether it is well again
)

// String returns "closed", "open" or "half-open".
func (s BreakerState) String() string {
	switch s {
	case Open:
		return "open"
	case HalfOpen:
		return "half-open"
	default:
		return "closed"
	}
}

// MarshalText renders the word.
func (s BreakerState) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText is the inverse of MarshalText.
func (s *BreakerState) UnmarshalText(b []byte) error {
	for _, known := range []BreakerState{Closed, Open, HalfOpen} {
		if known.String() == string(b) {
			*s = known
			return nil
		}
	}
	return fmt.Errorf("unknown state of a breaker %q", b)
}

// Route says what to do with one event for one provider.
type Route uint8

// The routes.
const (
	Ask   Route = iota // send it and wait for the vote
	Probe              // send a copy, and wait for nothing
	Skip               // send nothing
)

// Turn is a change that somebody must hear of. The zero value is none.
type Turn uint8

// The turns.
const (
	Opened   Turn = iota + 1 // it was closed and is open
	Restored                 // it is closed again
	Stuck                    // it has not been closed for BreakerConfig.Stuck; once until it is closed again
)

// Breaker keeps a provider that misses its deadlines for one type of events from delaying everybody: three misses
// cost three waits, and then nobody waits until it has shown on copies that it is well again. The zero value is
// closed. Times are on a clock that has any origin; one that goes back stands still. It is not safe for concurrent
// use.
type Breaker struct {
	state  BreakerState
	now    time.Duration
	since  time.Duration // of the state
	down   time.Duration // since when it has not been closed
	until  time.Duration // while open: of the first probe
	wait   time.Duration // of the last opening; 0: it was never open
	probe  time.Duration // while half open: when the next copy may go out
	good   int           // answers in a row while half open
	stuck  bool          // said so
	recent [MaxMisses]time.Duration
	fresh  int // misses since it was closed
	long   share

	misses, bypassed, openings uint64
}

// clock moves the time on, and never back.
func (b *Breaker) clock(now time.Duration) time.Duration {
	b.now = max(b.now, now)
	return b.now
}

// Ask says what to do with an event that the provider would be asked about.
func (b *Breaker) Ask(c BreakerConfig, now time.Duration) (Route, Turn) {
	if b.state == Closed {
		return Ask, 0
	}
	now = b.clock(now)
	b.bypassed++
	turn := b.complain(c, now)
	if b.state == Open && now >= b.until {
		b.enter(HalfOpen, now)
		b.good, b.probe = 0, now
	}
	if b.state == Open || now < b.probe {
		return Skip, turn
	}
	b.probe = now + c.ProbeEvery
	return Probe, turn
}

// Answered counts a vote that came in its budget.
func (b *Breaker) Answered(c BreakerConfig, now time.Duration) Turn {
	now = b.clock(now)
	switch b.state {
	case Closed:
		b.long.add(c.Long, now, false)
	case HalfOpen:
		if b.good++; b.good >= c.Probes {
			b.close(now)
			return Restored
		}
	case Open: // to a copy that went out before another one was missed
	}
	return 0
}

// Missed counts a vote that did not come in its budget, could not be asked for, or could not be understood.
func (b *Breaker) Missed(c BreakerConfig, now time.Duration) Turn {
	now = b.clock(now)
	b.misses++
	switch b.state {
	case Closed:
		b.recent[b.fresh%MaxMisses] = now
		b.fresh++
		b.long.add(c.Long, now, true)
		if b.tooMany(c, now) {
			b.down, b.stuck = now, false
			if now-b.since >= c.Stable {
				b.wait = 0
			}
			b.reopen(c, now)
			return Opened
		}
	case HalfOpen:
		b.reopen(c, now)
		return b.complain(c, now)
	case Open:
		return b.complain(c, now)
	}
	return 0
}

// tooMany reports whether the misses open a closed breaker.
func (b *Breaker) tooMany(c BreakerConfig, now time.Duration) bool {
	if n := min(max(c.Misses, 1), MaxMisses); b.fresh >= n && now-b.recent[(b.fresh-n)%MaxMisses] <= c.Window {
		return true
	}
	all, hits := b.long.sum(c.Long, now)
	return all >= c.Samples && hits*100 > all*c.Percent
}

// reopen opens the breaker for longer than the last time.
func (b *Breaker) reopen(c BreakerConfig, now time.Duration) {
	b.wait = min(max(2*b.wait, c.FirstWait), c.MaxWait)
	b.enter(Open, now)
	b.until = now + b.wait
	b.openings++
}

func (b *Breaker) close(now time.Duration) {
	b.enter(Closed, now)
	b.fresh, b.long, b.stuck = 0, share{}, false
}

func (b *Breaker) enter(s BreakerState, now time.Duration) { b.state, b.since = s, now }

// complain says once that the breaker has not been closed for too long.
func (b *Breaker) complain(c BreakerConfig, now time.Duration) Turn {
	if b.stuck || now-b.down < c.Stuck {
		return 0
	}
	b.stuck = true
	return Stuck
}

// Hurry lets probes go out at once: the provider's process is a new one.
func (b *Breaker) Hurry(now time.Duration) {
	if b.state == Open {
		b.until = b.clock(now)
	}
}

// Reset closes the breaker, whatever it has seen, because somebody who knows better says so.
func (b *Breaker) Reset(now time.Duration) {
	b.wait = 0
	b.close(b.clock(now))
}

// BreakerView is a breaker as people see it. Times are on the clock of its inputs.
type BreakerView struct {
	State    BreakerState
	Since    time.Duration // of the state
	Until    time.Duration // of the first probe; only while open
	Down     time.Duration // since when it has not been closed; only while it is not
	Misses   uint64        // so far
	Bypassed uint64        // events that did not wait for the provider
	Openings uint64
}

// View returns how the breaker stands.
func (b *Breaker) View() BreakerView {
	return BreakerView{
		State: b.state, Since: b.since, Until: b.until, Down: b.down, Misses: b.misses, Bypassed: b.bypassed,
		Openings: b.openings,
	}
}
