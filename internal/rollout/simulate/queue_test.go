package simulate

import (
	"math/rand/v2"
	"testing"
)

// TestQueue: whatever is put where and when, also into a second that is under way, comes out there, the last one first.
func TestQueue(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 1))
	const seconds = 50
	q := newQueue(seconds)
	for range 3 {
		var want [seconds + 1][]uint32
		put := func(second int) {
			h := rng.Uint32()
			q.push(uint32(second), h)
			want[second] = append(want[second], h)
		}
		for range 5000 {
			put(rng.IntN(seconds))
		}
		for second := range seconds {
			for q.top(uint32(second)) != 0 {
				all := want[second]
				last := all[len(all)-1]
				want[second] = all[:len(all)-1]
				if of := q.of(q.top(uint32(second))); of[len(of)-1] != last {
					t.Fatalf("second %d: %d is on top, want %d", second, of[len(of)-1], last)
				}
				if got := q.pop(uint32(second)); got != last {
					t.Fatalf("second %d: got %d, want %d", second, got, last)
				}
				if rng.IntN(3) == 0 {
					put(second + rng.IntN(seconds-second))
				}
			}
			if len(want[second]) > 0 {
				t.Fatalf("second %d lost %d hosts", second, len(want[second]))
			}
		}
		if q.queued != 0 {
			t.Fatalf("%d hosts in an empty queue", q.queued)
		}
		put(7)
		q.clear()
		if q.top(7) != 0 || q.queued != 0 {
			t.Fatal("a cleared queue has a host")
		}
	}
}
