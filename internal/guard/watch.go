package guard

import "time"

// sample is what the guard sees of the core at one moment.
type sample struct {
	queued                bool // events wait in the kernel that nobody has read
	taken, answered, beat uint64
	held                  bool // the core holds leases, for which a writer may wait unseen
	stopped               bool // by a signal; it may hold groups of its own, so that somebody may wait unseen
}

// verdict is what the guard makes of a sample.
type verdict uint8

const (
	fine    verdict = iota // someone waits, and the core works on it
	idle                   // nobody has waited for a stall limit; the next event wakes the guard
	stalled                // the core has made no progress for too long
)

// The shares of the stall limit. An event may arrive just after a sample, and is seen to be stuck by the second sample
// after it; so the longest wait is patience plus two intervals, and what answering takes.
const (
	samplesPerLimit = 10 // one every 100 ms at a limit of 1 s
	patiencePercent = 70
)

// watch judges whether the core makes progress. It is pure, and begins with the time in each of its fields.
type watch struct {
	last sample
	at   time.Duration // of the last sample
	good time.Duration // when a sample last showed progress, or that nothing was owed
	owed time.Duration // when a sample last showed that somebody waits
}

// step judges a sample taken at now, on any clock that goes forward.
func (w watch) step(limit, now time.Duration, s sample) (watch, verdict) {
	// Where the guard itself did not run (the host slept, or both were frozen), the core could not either, so that time
	// does not count; what two intervals are does, for on a busy host the guard may be late by that.
	lost := max(now-w.at-2*limit/samplesPerLimit, 0)
	owed := s.taken != s.answered || s.held
	// The queue moves when events are taken; a debt moves when something is answered, or when the core has looked at
	// every deadline and every lease and found that there is time left.
	stuckQueue := s.queued && s.taken == w.last.taken
	stuckDebt := owed && s.answered == w.last.answered && s.beat == w.last.beat
	w.last, w.at, w.good, w.owed = s, now, w.good+lost, w.owed+lost
	if s.queued || owed || s.stopped {
		w.owed = now
	}
	if !stuckQueue && !stuckDebt && !s.stopped {
		w.good = now
	}
	switch {
	case now-w.good >= limit*patiencePercent/100:
		return w, stalled
	case now-w.owed >= limit:
		return w, idle
	}
	return w, fine
}
