package sim

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/keepout-security/keepout/internal/arbiter"
)

// toll is an account of what one provider has allowed and denied, and of the harm that this did. It forgets nothing
// that may count.
type toll struct {
	passed map[uint64]int // times that it let each object pass
	denied map[uint64]grievance
	votes  []ballot                 // on objects that it had let pass, of one window
	harm   map[uint64]time.Duration // popular or owned ones that callers did not get, and when last
}

// grievance is an object that it should perhaps not have denied.
type grievance struct {
	last           time.Duration
	popular, owned bool
}

// ballot is a vote on an object that it had let pass.
type ballot struct {
	at            time.Duration
	denied, owned bool
}

func newToll() toll {
	return toll{passed: map[uint64]int{}, denied: map[uint64]grievance{}, harm: map[uint64]time.Duration{}}
}

// renew is a new start; what it had allowed stays known.
func (t *toll) renew() {
	clear(t.denied)
	clear(t.harm)
	t.votes = t.votes[:0]
}

// rule judges whether a vote should have tripped the deny-storm breaker, and whether it did.
func (t *toll) rule(c arbiter.StormConfig, now time.Duration, r arbiter.Ruling, mute, tripped bool) error {
	before := t.passed[r.Object]
	if r.Denied && mute {
		if tripped {
			return errors.New("it tripped while it was tripped")
		}
		return nil
	}
	if before > 0 {
		t.votes = slices.DeleteFunc(t.votes, func(b ballot) bool { return now-b.at > 2*c.Window })
		t.votes = append(t.votes, ballot{now, r.Denied, r.Owned})
	}
	if !r.Denied {
		t.passed[r.Object]++
		return nil
	}
	want := false
	if before > 0 || r.Owned {
		was := t.denied[r.Object]
		t.denied[r.Object] = grievance{now, was.popular || before >= c.Popular, was.owned || r.Owned}
		want = t.enough(c, now)
	}
	if want != tripped {
		return fmt.Errorf("that it tripped is %v, and %+v", tripped, t.denied)
	}
	return nil
}

// enough says from the whole memory whether a denial trips the breaker.
func (t *toll) enough(c arbiter.StormConfig, now time.Duration) bool {
	grave, known := 0, 0
	for object, d := range t.denied {
		if now-d.last > c.Window {
			delete(t.denied, object)
			continue
		}
		if d.popular || d.owned {
			grave++
		}
		if t.passed[object] > 0 {
			known++
		}
	}
	all, hits, repeats := 0, 0, 0
	for _, b := range t.votes {
		if !slides(c.Window, b.at, now) {
			continue
		}
		all++
		if b.denied {
			hits++
			if b.owned {
				repeats++
			}
		}
	}
	return grave >= c.Objects || known >= c.Known && hits*100 >= all*c.Percent || repeats >= c.Owned
}

// suffer judges the harm when a caller did not get an object because of this provider's vote.
func (t *toll) suffer(c arbiter.StormConfig, now time.Duration, o object) error {
	if o.bad || !o.owned && t.passed[o.id] < c.Popular {
		return nil
	}
	t.harm[o.id] = now
	for object, at := range t.harm {
		if now-at > c.Window {
			delete(t.harm, object)
		}
	}
	if len(t.harm) >= c.Objects {
		return fmt.Errorf("callers were denied %d popular or owned objects within %v", len(t.harm), c.Window)
	}
	return nil
}
