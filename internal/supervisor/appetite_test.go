package supervisor_test

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/keepout-security/keepout/internal/supervisor"
)

// TestAppetite: who burns a processor makes way at the next look, and until it has rested; it goes last unless it
// starved there a short time ago.
func TestAppetite(t *testing.T) {
	t.Parallel()
	c := supervisor.AppetiteConfig{Much: 5, Little: 2, Rest: 3 * time.Second, Spare: 4 * time.Second}
	const starves = -1
	for name, tt := range map[string]struct {
		shares []int  // one look a second
		want   string // l: it goes last; y: it makes way
	}{
		"idle":           {[]int{0, 1, 0, 4}, "...."},
		"burns":          {[]int{4, 5, 50, 50}, ".lll"},
		"rests":          {[]int{50, 0, 0, 0, 0}, "lll.."},
		"is not done":    {[]int{50, 0, 0, 2, 0, 0, 0, 0}, "llllll.."},
		"begins anew":    {[]int{50, 1, 1, 1, 4, 6}, "lll..l"},
		"less than much": {[]int{4, 4, 4, 4}, "...."},
		"starves":        {[]int{50, starves, 50, 50, 50, 50, starves, 50}, "lyyyyly" + "y"},
		"starved before": {[]int{50, starves, 0, 0, 0, 50, 50}, "lyyy.ll"},
		"starves, rests": {[]int{50, starves, 0, 0, 0, 0}, "lyyy.."},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var a supervisor.Appetite
			var got strings.Builder
			for i, share := range tt.shares {
				now := time.Unix(int64(i), 0)
				a = a.Look(c, now, max(share, 0), share == starves)
				switch _, yields := a.Yields(); {
				case a.Last(c, now):
					got.WriteByte('l')
				case yields:
					got.WriteByte('y')
				default:
					got.WriteByte('.')
				}
			}
			if got.String() != tt.want {
				t.Errorf("%v: %s, want %s", tt.shares, got.String(), tt.want)
			}
		})
	}
}

// TestAppetiteProperties: it never makes way without a cause, always with one, stops only after a rest, and goes last
// all that time but for a while after it has starved.
func TestAppetiteProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		c := supervisor.AppetiteConfig{
			Little: rapid.IntRange(1, 20).Draw(t, "little"),
			Rest:   time.Duration(rapid.IntRange(1, 20).Draw(t, "rest")) * time.Second,
			Spare:  time.Duration(rapid.IntRange(1, 60).Draw(t, "spare")) * time.Second,
		}
		c.Much = c.Little + rapid.IntRange(0, 30).Draw(t, "more")
		var a supervisor.Appetite
		now := time.Unix(1000, 0)
		lastHungry, lastStarved := time.Time{}, time.Time{}
		for range rapid.IntRange(1, 60).Draw(t, "looks") {
			now = now.Add(time.Duration(rapid.IntRange(1, 4000).Draw(t, "ms")) * time.Millisecond)
			share := rapid.IntRange(0, 60).Draw(t, "share")
			starves := a.Last(c, now) && rapid.Bool().Draw(t, "starves")
			before, was := a.Yields()
			a = a.Look(c, now, share, starves)
			since, is := a.Yields()
			if share >= c.Little || starves {
				lastHungry = now
			}
			if starves {
				lastStarved = now
			}
			spared := !lastStarved.IsZero() && now.Sub(lastStarved) < c.Spare
			switch {
			case a.Last(c, now) != (is && !spared):
				t.Fatalf("goes last: %v; makes way: %v, starved %v ago", a.Last(c, now), is, now.Sub(lastStarved))
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
