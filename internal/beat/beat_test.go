package beat

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestNext: it is never now and never later than one interval, and all who ask before it mean the same moment.
func TestNext(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		every := time.Duration(rapid.Int64Range(1, int64(24*time.Hour)).Draw(t, "every"))
		now := time.Unix(0, rapid.Int64Range(0, 1<<62).Draw(t, "now"))
		wait := next(now, every)
		if wait <= 0 || wait > every {
			t.Fatalf("%v, every %v", wait, every)
		}
		moment := now.Add(wait)
		if moment.UnixNano()%int64(every) != 0 {
			t.Fatalf("%v is no multiple of %v", moment, every)
		}
		sooner := time.Duration(rapid.Int64Range(0, int64(wait)-1).Draw(t, "sooner"))
		if other := now.Add(sooner); !other.Add(next(other, every)).Equal(moment) {
			t.Fatalf("%v later it is another moment", sooner)
		}
	})
}
