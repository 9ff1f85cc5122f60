package docket

import (
	"testing"
	"time"

	"github.com/keepout-security/keepout/internal/arbiter"
)

// TestCause: the sentence says what the content did.
func TestCause(t *testing.T) {
	t.Parallel()
	const took = 3180 * time.Millisecond
	for want, f := range map[string]arbiter.Finding{
		"content denied 14 objects that it had allowed, 9 of them owned by packages, in 3.2s": {
			Objects: 14, Known: 14, Owned: 9, Took: took,
		},
		"content denied 5 objects, 5 of them owned by packages, in 3.2s": {Objects: 5, Owned: 5, Took: took},
		"content denied 6 objects, 2 that it had allowed and 5 owned by packages, in 3.2s": {
			Objects: 6, Known: 2, Owned: 5, Took: took,
		},
		"content denied what it had allowed and packages own 20 times in 3.2s (1 objects)": {
			Objects: 1, Known: 1, Owned: 1, Repeats: 20, Took: took,
		},
	} {
		if got := describe(f); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
