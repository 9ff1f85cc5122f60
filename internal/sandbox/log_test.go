package sandbox

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestPace: in any time no more is taken than the rate and one burst, and who writes less never waits.
func TestPace(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var p pace
		start := time.Unix(1, 0)
		now, taken := start, 0
		for range rapid.IntRange(1, 200).Draw(t, "writes") {
			n := rapid.IntRange(1, 32<<10).Draw(t, "bytes")
			now = now.Add(time.Duration(rapid.IntRange(0, 50).Draw(t, "ms")) * time.Millisecond)
			var wait time.Duration
			p, wait = p.take(now, n)
			now = now.Add(wait)
			taken += n
			may := logBurst + int(now.Sub(start)*logRate/time.Second) + 1
			if taken > may {
				t.Fatalf("%d bytes in %v, at most %d", taken, now.Sub(start), may)
			}
			if taken <= logBurst && wait > 0 {
				t.Fatalf("waits %v after %d bytes", wait, taken)
			}
		}
	})
}
