package supervisor_test

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/keepout-security/keepout/internal/supervisor"
)

// TestAppetite: who burns a processor makes way at the next look, and until it has rested.
func TestAppetite(t *testing.T) {
	t.Parallel()
	c := supervisor.AppetiteConfig{Much: 5, Little: 2, Rest: 3 * time.Second}
	for name, tt := range map[string]struct {
		shares []int // one look a second
		want   string
	}{
		"idle":           {[]int{0, 1, 0, 4}, "...."},
		"burns":          {[]int{4, 5, 50, 50}, ".yyy"},
		"rests":          {[]int{50, 0, 0, 0, 0}, "yyy.."},
		"is not done":    {[]int{50, 0, 0, 2, 0, 0, 0, 0}, "yyyyyy.."},
		"begins anew":    {[]int{50, 1, 1, 1, 4, 6}, "yyy..y"},
		"less than much": {[]int{4, 4, 4, 4}, "...."},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var a supervisor.Appetite
			var got strings.Builder
			for i, share := range tt.shares {
				a = a.Look(c, time.Unix(int64(i), 0), share)
				if _, yields := a.Yields(); yields {
					got.WriteByte('y')
				} else {
					got.WriteByte('.')
				}
			}
			if got.String() != tt.want {
				t.Errorf("%v: %s, want %s", tt.shares, got.String(), tt.want)
			}
		})
	}
}

// TestAppetiteProperties: it never makes way without a cause, always with one, and stops only after a rest.
func TestAppetiteProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		c := supervisor.AppetiteConfig{
			Little: rapid.IntRange(1, 20).Draw(t, "little"),
			Rest:   time.Duration(rapid.IntRange(1, 20).Draw(t, "rest")) * time.Second,
		}
		c.Much = c.Little + rapid.IntRange(0, 30).Draw(t, "more")
		var a supervisor.Appetite
		now := time.Unix(1000, 0)
		lastHungry := time.Time{}
		for range rapid.IntRange(1, 60).Draw(t, "looks") {
			now = now.Add(time.Duration(rapid.IntRange(1, 4000).Draw(t, "ms")) * time.Millisecond)
			share := rapid.IntRange(0, 60).Draw(t, "share")
			before, was := a.Yields()
			a = a.Look(c, now, share)
			since, is := a.Yields()
			if share >= c.Little {
				lastHungry = now
			}
			switch {
			case share >= c.Much && !is:
				t.Fatalf("burned %d %% and does not make way", share)
			case is && !was && (share < c.Much || !since.Equal(now)):
				t.Fatalf("makes way since %v without a cause (%d %%)", since, share)
			case is && was && !since.Equal(before):
				t.Fatalf("since %v became %v", before, since)
			case was && !is && now.Sub(lastHungry) < c.Rest:
				t.Fatalf("stopped making way %v after it was hungry", now.Sub(lastHungry))
			case was && is && now.Sub(lastHungry) >= c.Rest:
				t.Fatalf("still makes way %v after it was hungry", now.Sub(lastHungry))
			}
		}
	})
}
