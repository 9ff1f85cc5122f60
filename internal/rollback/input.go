package rollback

import (
	"time"

	"github.com/keepout-security/keepout/internal/health"
)

// Kind says what happened.
type Kind uint8

// The inputs. Those of a trial name the part and digest that they are about, and change nothing when that is not
// on trial (any more).
const (
	Installed Kind = iota + 1 // Part, Version: came with the installation, or is what the administrator's file names
	Offered                   // Part, Version: somebody wants it to become active
	Withdrawn                 // Part, Digest: and no longer does

	Checked     // Part, Digest, OK, Cause: looked at without running it beside (schema, load in a throw-away cage)
	Loaded      // Part, Digest: it runs beside the active version and is ready to judge
	SelfTested  // Part, Digest, OK, Cause
	Measured    // Part, Digest, OK, Cause: whether it answers within its budget
	Compared    // Part, Digest, Samples, Differing: votes so far, in all of this trial
	BesideEnded // Part, Digest, Cause: its process ended by itself

	Crashed       // Cause: the active version's process ended by itself, or never came up
	BreakerOpened // the active version is bypassed
	BreakerClosed
	DenyStorm // Cause: it denies what was allowed and popular, or belongs to the distribution
	Lost      // Part, Digest, Cause: the package is not on the disk as it should be

	Tick // Serving: time passes; at least once a second while a trial or a breaker is on

	RollBackNow // Part, or "" for what changed last: an operator wants it; with Part, Version: to this one, verified
	Allow       // Part, Digest: an operator takes a refusal back
	Promote     // Part: an operator does not want to wait for the candidate's agreement and time

	Restarted // the platform has just started; the first input of its life
	Stopping  // the platform ends in order; the last one
	Removed   // the provider is no longer configured
)

// Input is one thing that happened.
type Input struct {
	Kind               Kind
	Part               Part
	Digest             Digest
	Version            Version
	OK                 bool
	Cause              string
	Samples, Differing uint64
	Serving            bool // with Tick: the active version answers, and its answers count as far as its mode lets them
	// Generation, unless it is 0, says in which generation the process was started that a Crashed, BreakerOpened
	// or DenyStorm is about; what an earlier one did is nobody's fault any more.
	Generation uint64
}

// Act says what is to be done.
type Act uint8

// The effects, in the order in which they come out of one step.
const (
	// Keep: put the new state on the disk before anything else is done. If that fails, do the rest nevertheless:
	// a full disk must not keep a bad version running.
	Keep        Act = iota + 1
	Check           // Part, Version: look at it without running it beside; Checked follows
	StartBeside     // Part, Version: with the active version of the other part, its votes counting nothing
	StopBeside      // end the process that was started beside, unless Activate has just made it the active one
	Activate        // Part, Version, From: replace the active version's process, if the state is Runnable
	MarkLKG         // Part, Version: nothing to do, the slot says it
	RollBack        // Part, From, Version, Cause: as Activate
	Refuse          // Part, Version, Cause: tell whoever offered it
	Isolate         // Cause: end the provider's process; do not start it before Release
	Release         // start it
	Notify          // Problem: tell an operator
)

// Effect is one thing to do.
type Effect struct {
	Act     Act
	Part    Part
	Version Version
	From    Version
	Cause   string
	Problem health.Problem
}

// Due says how much time may pass before the next Tick, so that nobody has to tick in vain: ok is false while
// nothing changes by time alone.
func (s *State) Due(c Config) (in time.Duration, ok bool) {
	soon := func(at time.Duration) {
		if left := max(at-s.Clock, 0); !ok || left < in {
			in, ok = left, true
		}
	}
	if s.Breaker && s.Runnable() {
		soon(s.BreakerAt + c.BreakerHold)
	}
	if s.Quarantine != (Quarantine{}) && s.whole() {
		soon(s.Quarantine.Until)
	}
	if s.Trial.Digest != "" {
		soon(s.Clock + time.Second)
	}
	if s.Serving && !s.Breaker {
		soon(s.Clock + c.Gap)
		for _, p := range Parts() {
			if sl := s.Slots(p); !sl.Active.None() && sl.Active.Digest != sl.LKG.Digest {
				soon(s.Clock + c.Soak - sl.Soaked)
			}
		}
	}
	return in, ok
}
