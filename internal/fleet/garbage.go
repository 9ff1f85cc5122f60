package fleet

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// Garbage of at most this much may lie around, and at least so much must before it is collected.
const (
	leastGarbage = 64 << 20 // bytes
	mostGarbage  = 20       // percent of what lives
	usualGarbage = 400      // percent: with a small heap
	lookEvery    = 2 * time.Second
)

// tuneGarbage keeps memory close to what open connections need. They live long, so that in a large fleet little garbage
// may lie beside them, while a collection at every fifth of a small heap would cost more than the check-ins.
func tuneGarbage(ctx context.Context) {
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		metrics.Read(sample)
		live := max(sample[0].Value.Uint64(), 1)
		debug.SetGCPercent(int(min(max(100*leastGarbage/live, mostGarbage), usualGarbage)))
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
