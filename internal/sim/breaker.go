package sim

import "time"

// breaker and storm stand where the platform has its own (internal/arbiter): to simulate those, let these two call
// them. What matters to the rest is only when they open, close and trip.

// breaker bypasses a provider that misses its deadlines.
type breaker struct {
	misses ring
	open   bool
	since  time.Time
}

// The agreed numbers: three misses in ten seconds open it; a probe may close it again.
const (
	missLimit  = 3
	missWindow = 10 * time.Second
	probeAfter = 5 * time.Second
)

// missed notes a missed deadline and reports whether that opens it.
func (b *breaker) missed(now time.Time) bool {
	if b.misses.count(now, missWindow) < missLimit || b.open {
		return false
	}
	b.open, b.since = true, now
	return true
}

// probe reports whether a probe closes it: well says how the provider answers.
func (b *breaker) probe(now time.Time, well bool) bool {
	if !b.open || !well || now.Sub(b.since) < probeAfter {
		return false
	}
	*b = breaker{}
	return true
}

// storm notices a provider that denies what is known to be good.
type storm struct{ denials ring }

const (
	stormLimit  = 20
	stormWindow = 10 * time.Second
)

// denied notes a wrong denial and reports whether that is a storm.
func (s *storm) denied(now time.Time) bool {
	if s.denials.count(now, stormWindow) < stormLimit {
		return false
	}
	*s = storm{}
	return true
}
