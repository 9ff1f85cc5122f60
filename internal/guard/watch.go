package guard

import "time"

// sample is what the guard sees of the core at one moment.
type sample struct {
	queued                bool // events wait in the kernel that nobody has read
	taken, answered, beat uint64
	held                  bool // the core holds leases, for which a writer may wait unseen
	stopped               bool // the core was stopped by a signal
}

// verdict is what the guard makes of a sample.
type verdict uint8

const (
	fine    verdict = iota // someone waits, and the core works on it
	idle                   // nobody has waited for a while; the next event wakes the guard
	stalled                // the core has made no progress for too long
	stopped                // the same, because a signal stopped it
)

// The shares of the stall limit. An event may arrive just after a sample, and is seen to be stuck by the second sample
// after it; so the longest wait is patience plus two intervals, and what answering takes.
const (
	samplesPerLimit = 10 // one every 100 ms at a limit of 1 s
	patiencePercent = 70
	idleSamples     = 10
)

// watch judges whether the core makes progress. It is pure. The zero value has seen nothing.
type watch struct {
	last     sample
	at       time.Duration // of the last sample
	good     time.Duration // when a sample last showed progress, or that nothing was owed
	quiet    int           // samples in a row without anybody waiting
	begun    bool
	haltedAt time.Duration // when the core was first seen stopped
}

// step judges a sample taken at now, on any clock that goes forward.
func (w watch) step(limit, now time.Duration, s sample) (watch, verdict) {
	if !w.begun {
		w.begun, w.at, w.good = true, now, now
	}
	// Where the guard itself did not run (the host slept, or both were frozen), the core could not either, so that time
	// does not count; what two intervals are does, for on a busy host the guard may be late by that.
	if lost := now - w.at - 2*limit/samplesPerLimit; lost > 0 {
		w.good, w.haltedAt = w.good+lost, w.haltedAt+lost
	}
	w.at = now
	if s.stopped && !w.last.stopped {
		w.haltedAt = now
	}
	owed := s.taken != s.answered || s.held
	owes := s.queued || owed
	// The queue moves when events are taken; a debt moves when something is answered, or when the core has looked at
	// every deadline and every lease and found that there is time left.
	stuckQueue := s.queued && s.taken == w.last.taken
	stuckDebt := owed && s.answered == w.last.answered && s.beat == w.last.beat
	moved := !stuckQueue && !stuckDebt
	w.last = s
	patience := limit * patiencePercent / 100
	switch {
	case s.stopped && now-w.haltedAt >= patience:
		return w, stopped // also with nobody waiting here: it may hold groups of its own
	case owes && !moved && now-w.good >= patience:
		if s.stopped {
			return w, stopped
		}
		return w, stalled
	}
	if !owes || moved {
		w.good = now
	}
	if owes || s.stopped {
		w.quiet = 0
		return w, fine
	}
	if w.quiet++; w.quiet >= idleSamples {
		w.quiet = idleSamples
		return w, idle
	}
	return w, fine
}
