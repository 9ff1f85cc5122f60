package arbiter_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/keepout-security/keepout/internal/arbiter"
)

// TestPaceSoon: an engine that is slow most of the time is not waited for until the end of the minute.
func TestPaceSoon(t *testing.T) {
	t.Parallel()
	c := arbiter.DefaultPace()
	const budget = time.Second
	for _, tt := range []struct {
		name  string
		parts [][2]int // by ten seconds: votes, and how many of them are slow
		want  []arbiter.PaceTurn
	}{
		{"half of them", [][2]int{{40, 20}, {40, 20}}, []arbiter.PaceTurn{0, 0}},
		{"more", [][2]int{{40, 21}, {40, 21}}, []arbiter.PaceTurn{arbiter.MuchTooSlow, 0}},
		{"too few to tell", [][2]int{{9, 9}, {9, 9}}, []arbiter.PaceTurn{0, 0}},
		{"later", [][2]int{{400, 0}, {10, 10}, {400, 0}}, []arbiter.PaceTurn{0, arbiter.MuchTooSlow, 0}},
		{
			"one in a hundred is for the minute",
			[][2]int{{100, 2}, {100, 2}, {100, 2}, {100, 2}, {100, 2}, {100, 2}},
			[]arbiter.PaceTurn{0, 0, 0, 0, 0, arbiter.TooSlow},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var p arbiter.Pace
			for i, part := range append(tt.parts, [2]int{1, 0}) {
				for k := range part[0] {
					took := time.Millisecond
					if k < part[1] {
						took = budget * 60 / 100
					}
					turn := p.Vote(c, time.Duration(i)*c.Soon+time.Duration(k)*c.Soon/time.Duration(part[0]), took, budget)
					want := arbiter.PaceTurn(0)
					if i > 0 && k == 0 {
						want = tt.want[i-1]
					}
					if turn != want {
						t.Fatalf("part %d, vote %d: turn %d, want %d", i, k, turn, want)
					}
				}
			}
		})
	}
}

// TestPaceOfOneStall: slow votes that all come at one time, as when a disk stands still for a moment, tell of the host
// and not of the engine, within ten seconds and within a minute.
func TestPaceOfOneStall(t *testing.T) {
	t.Parallel()
	c := arbiter.DefaultPace()
	for name, tt := range map[string]struct {
		over time.Duration // from the first slow vote to the last
		want bool          // it is put in audit
	}{
		"at one time":     {0, false},
		"one after other": {c.Spread, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var p arbiter.Pace
			const votes = 12
			for i := range time.Duration(votes) {
				p.Vote(c, c.Soon+i*tt.over/(votes-1), time.Second, time.Second)
			}
			for now := 2 * c.Soon; now < 3*c.Window; now += c.Soon {
				p.Vote(c, now, 0, time.Second)
			}
			if p.Slow() != tt.want {
				t.Errorf("in audit: %v, want %v", p.Slow(), tt.want)
			}
		})
	}
}

// TestPaceProperties: nobody is demoted who has not been slow often enough, in the time that the reason names; and who
// has is demoted.
func TestPaceProperties(t *testing.T) {
	t.Parallel()
	c := arbiter.DefaultPace()
	const budget = time.Second
	type vote struct {
		at   time.Duration
		slow bool
	}
	rapid.Check(t, func(t *rapid.T) {
		var p arbiter.Pace
		var all []vote
		now := time.Duration(0)
		demotedAt := time.Duration(-1)
		count := func(since time.Duration) (votes, slow int) {
			for _, v := range all {
				if v.at >= since {
					votes++
					if v.slow {
						slow++
					}
				}
			}
			return votes, slow
		}
		odds := rapid.IntRange(0, 100).Draw(t, "slow percent")
		for range rapid.IntRange(1, 400).Draw(t, "votes") {
			now += time.Duration(rapid.IntRange(0, 2000).Draw(t, "ms")) * time.Millisecond
			v := vote{at: now, slow: rapid.IntRange(0, 99).Draw(t, "dice") < odds}
			took := time.Duration(0)
			if v.slow {
				took = budget
			}
			switch p.Vote(c, now, took, budget) {
			case arbiter.TooSlow, arbiter.MuchTooSlow:
				if _, slow := count(0); slow < c.Slow || demotedAt >= 0 {
					t.Fatalf("demoted at %v after %d slow votes; before that at %v", now, slow, demotedAt)
				}
				demotedAt = now
			case arbiter.FastAgain:
				demotedAt = -1
			}
			all = append(all, v)
		}
		// Two parts of nothing but slow votes hold a whole one.
		for end := now + 2*c.Soon + time.Second; now < end; now += c.Soon / 20 {
			p.Vote(c, now, budget, budget)
		}
		if !p.Slow() {
			t.Fatalf("not demoted after %v of slow votes", 2*c.Soon)
		}
	})
}
