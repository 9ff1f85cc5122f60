package sim

import (
	"math/rand/v2"
	"slices"
	"time"

	"github.com/keepout-security/keepout/internal/rollback"
)

// traits is what a version is really like. The platform never sees it; it sees what follows from it.
type traits struct {
	crash    float64 // for each event
	deny     float64 // of each good file
	differ   float64 // from the other versions, for each event on trial
	slow     bool    // misses its budget
	sudden   bool    // slow, but not while it was on trial
	unloaded bool    // crashes while it loads
	untested bool    // fails its self-test
}

// draw makes a version: most are good, the others bad in one of the ways that versions are.
func draw(rng *rand.Rand) (t traits) {
	if rng.IntN(100) < 55 {
		t.differ = 0.001 * rng.Float64()
		return t
	}
	switch rng.IntN(8) {
	case 0:
		t.crash = 1
	case 1:
		t.crash = 0.002 * rng.Float64() // shows itself long after its trial
	case 2:
		t.deny, t.differ = 1, 1
	case 3:
		t.deny = 1 // and its trial saw nothing of it
	case 4:
		t.slow = true
	case 5:
		t.unloaded = true
	case 6:
		t.untested = true
	case 7:
		t.slow, t.sudden = true, true
	}
	return t
}

// with is how an engine with a content is.
func (t traits) with(o traits) traits {
	return traits{
		crash: max(t.crash, o.crash), deny: max(t.deny, o.deny), differ: max(t.differ, o.differ),
		slow: t.slow || o.slow, sudden: t.sudden || o.sudden,
		unloaded: t.unloaded || o.unloaded, untested: t.untested || o.untested,
	}
}

// process is a running provider.
type process struct {
	traits     traits
	engine     rollback.Digest
	content    rollback.Digest
	generation uint64
	ready      time.Time // when it has loaded
	// On trial beside the active one:
	part    rollback.Part
	samples uint64
	differs uint64
}

// ring remembers the last few moments of something.
type ring struct{ at []time.Time }

// count notes a moment and returns how many there were in the window before it.
func (r *ring) count(now time.Time, window time.Duration) int {
	r.at = slices.DeleteFunc(r.at, func(t time.Time) bool { return now.Sub(t) >= window })
	r.at = append(r.at, now)
	return len(r.at)
}
