package sandbox

import (
	"testing"
	"time"
)

// TestDue: a state folder is counted at once when space was taken, soon when anything else changed, and seldom when
// nothing did.
func TestDue(t *testing.T) {
	t.Parallel()
	const limit = 64 << 20
	before := room{bytes: 1 << 30, entries: 100_000, known: true}
	for _, c := range []struct {
		name string
		now  room
		want time.Duration // after which it is due
	}{
		{"nothing changed", before, stateAgain},
		{"a little was written", room{1<<30 - limit/16, 100_000, true}, stateCount},
		{"more was given back", room{1<<30 + limit, 100_000, true}, stateCount},
		{"a file was made", room{1 << 30, 99_999, true}, stateCount},
		{"space was taken", room{1<<30 - limit/16 - 1, 100_000, true}, 0},
		{"many files were made", room{1 << 30, 100_000 - maxEntries/16 - 1, true}, 0},
		{"it does not say", room{}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if c.want > 0 && due(c.now, before, limit, c.want) {
				t.Errorf("it is due after %v", c.want)
			}
			if !due(c.now, before, limit, c.want+1) {
				t.Errorf("it is not due after more than %v", c.want)
			}
		})
	}
}
