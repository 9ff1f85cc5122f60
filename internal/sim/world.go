package sim

import (
	"hash/fnv"
	"math/rand/v2"
	"time"

	"github.com/keepout-security/keepout/internal/rollback"
)

// traits is what a version is really like. The platform never sees it; it sees what follows from it.
type traits struct {
	crash    float64 // for each event
	deny     float64 // this part of the good files
	salt     uint64  // and which
	bans     bool    // denies the most popular one, which packages own
	differ   float64 // from the other versions, for each event on trial
	slow     bool    // misses its budget
	tardy    bool    // meets it, and takes most of it
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
	t.salt = rng.Uint64()
	switch rng.IntN(10) {
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
	case 8:
		t.deny, t.bans = 0.2*rng.Float64(), rng.IntN(2) == 0
	case 9:
		t.tardy = true
	}
	return t
}

// with is how an engine with a content is.
func (t traits) with(o traits) traits {
	if t.deny < o.deny {
		t.deny, t.salt = o.deny, o.salt
	}
	return traits{
		crash: max(t.crash, o.crash), deny: t.deny, salt: t.salt, differ: max(t.differ, o.differ),
		bans: t.bans || o.bans, slow: t.slow || o.slow, sudden: t.sudden || o.sudden, tardy: t.tardy || o.tardy,
		unloaded: t.unloaded || o.unloaded, untested: t.untested || o.untested,
	}
}

// process is a running provider.
type process struct {
	traits     traits
	engine     rollback.Digest
	content    rollback.Digest
	hash       uint32 // of the content
	generation uint64
	ready      time.Time // when it has loaded
	// On trial beside the active one:
	part    rollback.Part
	samples uint64
	differs uint64
}

// object is a version of a file, as providers are asked about it.
type object struct {
	id    uint64
	bad   bool // malware
	owned bool // by the distribution's packages
}

// regulars are files that are opened again and again, the first ones most often.
const regulars = 400

// object draws what a caller wants. Files that are seen once have ids that share no set of the deny-storm breaker's
// memory with the regulars: what it has to remember of these is exact.
func (h *Host) object() object {
	n := h.rng.IntN(50)
	if n < 4 {
		h.strangers++
		const sets, half = 1024, 512
		return object{id: h.strangers/half*sets + half + h.strangers%half, bad: n == 0}
	}
	f := h.rng.Float64()
	id := uint64(f * f * f * regulars)
	return object{id: id, owned: id%4 == 0}
}

// denies reports whether a version denies a good file. It is the same ones each time.
func (t *traits) denies(o object) bool {
	if t.bans && o.id == 0 {
		return true
	}
	if t.deny == 0 {
		return false
	}
	x := (o.id ^ t.salt) * 0x9e3779b97f4a7c15
	x = (x ^ x>>29) * 0xbf58476d1ce4e5b9
	return float64(x>>11)/(1<<53) < t.deny
}

// hash is how the deny-storm breaker knows a content.
func hash(d rollback.Digest) uint32 {
	f := fnv.New32a()
	_, _ = f.Write([]byte(d)) // it cannot fail
	return f.Sum32()
}
