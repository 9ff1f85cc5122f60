package arbiter_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/keepout-security/keepout/internal/arbiter"
)

// allowing lets n objects from first on pass so many times under one content.
func allowing(s *arbiter.Storm, c arbiter.StormConfig, now time.Duration, content uint32, first, n, times int) {
	for range times {
		for i := range n {
			s.Vote(c, now, arbiter.Ruling{Object: uint64(first + i), Content: content})
		}
	}
}

// denials denies objects one after the other, ms apart, until it trips; it returns how many denials had an effect.
func denials(s *arbiter.Storm, c arbiter.StormConfig, now time.Duration, ms int, rulings []arbiter.Ruling) (
	effective int, found arbiter.Finding,
) {
	for i, r := range rulings {
		r.Denied = true
		f, tripped := s.Vote(c, now+time.Duration(i*ms)*time.Millisecond, r)
		if tripped {
			return i, f
		}
	}
	return len(rulings), found
}

// rulings are denials of n objects from first on.
func rulings(first, n int, like arbiter.Ruling) (list []arbiter.Ruling) {
	for i := range n {
		r := like
		r.Object = uint64(first + i)
		list = append(list, r)
	}
	return list
}

func TestStorm(t *testing.T) {
	t.Parallel()
	c := arbiter.DefaultStorm()
	const never = 100 // of the denials below: none trips
	for _, tt := range []struct {
		name    string
		allowed int // times that objects 0 to 99 were allowed, under content 1
		like    arbiter.Ruling
		first   int
		ms      int // between denials
		want    int // denials with an effect
		known   int
		owned   int
	}{
		{"popular ones", 3, arbiter.Ruling{Content: 2}, 0, 1, c.Objects - 1, c.Objects, 0},
		{"once allowed ones", 1, arbiter.Ruling{Content: 2}, 0, 1, c.Known - 1, c.Known, 0},
		{"owned ones", 0, arbiter.Ruling{Content: 2, Owned: true}, 0, 1, c.Objects - 1, 0, c.Objects},
		{"owned and allowed ones", 1, arbiter.Ruling{Content: 2, Owned: true}, 0, 1, c.Objects - 1, c.Objects, c.Objects},
		{"never seen ones", 9, arbiter.Ruling{Content: 2}, 1000, 1, never, 0, 0},
		{"slowly", 9, arbiter.Ruling{Content: 2}, 0, 2600, never, 0, 0},
		{"the same content changes its mind", 3, arbiter.Ruling{Content: 1}, 0, 1, c.Objects - 1, c.Objects, 0},
		{"one content and other callers", 9, arbiter.Ruling{Content: 1, ByActor: true}, 0, 1, never, 0, 0},
		{"other content and callers", 3, arbiter.Ruling{Content: 2, ByActor: true}, 0, 1, c.Objects - 1, c.Objects, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := new(arbiter.Storm)
			allowing(s, c, 0, 1, 0, 100, tt.allowed)
			got, f := denials(s, c, time.Minute, tt.ms, rulings(tt.first, 100, tt.like))
			if got != tt.want || f.Known != tt.known || f.Owned != tt.owned {
				t.Errorf("%d denials had an effect: %+v, want %d, known %d, owned %d", got, f, tt.want, tt.known, tt.owned)
			}
			if s.Tripped() != (got < never) {
				t.Errorf("tripped: %v", s.Tripped())
			}
		})
	}
}

// TestStormOfOneObject: a popular file of the distribution that is denied again and again counts, too.
func TestStormOfOneObject(t *testing.T) {
	t.Parallel()
	c := arbiter.DefaultStorm()
	for owned, want := range map[bool]int{true: c.Owned - 1, false: 100} {
		s := new(arbiter.Storm)
		allowing(s, c, 0, 1, 7, 1, 50)
		list := make([]arbiter.Ruling, 100)
		for i := range list {
			list[i] = arbiter.Ruling{Object: 7, Content: 2, Owned: owned}
		}
		got, f := denials(s, c, time.Minute, 10, list)
		if got != want || owned && f.Repeats != c.Owned {
			t.Errorf("owned %v: %d denials had an effect, want %d: %+v", owned, got, want, f)
		}
	}
}

// TestStormShare: a content that finds a few of many objects bad does its work.
func TestStormShare(t *testing.T) {
	t.Parallel()
	c := arbiter.DefaultStorm()
	s := new(arbiter.Storm)
	allowing(s, c, 0, 1, 0, 1000, 1)
	allowing(s, c, time.Minute, 2, 0, 400, 1)
	if got, _ := denials(s, c, time.Minute, 1, rulings(500, 60, arbiter.Ruling{Content: 2})); got != 60 {
		t.Errorf("tripped after %d of 460 objects", got)
	}
}

// TestStormEnds: another content ends it, an administrator does, and what he accepted does not start it again.
func TestStormEnds(t *testing.T) {
	t.Parallel()
	c := arbiter.DefaultStorm()
	trip := func(t *testing.T, s *arbiter.Storm, content uint32) {
		t.Helper()
		allowing(s, c, 0, 1, 0, 20, 5)
		if denials(s, c, time.Minute, 1, rulings(0, 20, arbiter.Ruling{Content: content})); !s.Tripped() {
			t.Fatal("not tripped")
		}
	}
	beats := func(s *arbiter.Storm, contents ...uint32) (over bool) {
		for _, c := range contents {
			over = over || s.Content(c)
		}
		return over
	}
	for _, tt := range []struct {
		name          string
		before, after []uint32 // contents of heartbeats
		over          bool
	}{
		{"no news", []uint32{1}, nil, false},
		{"the same", []uint32{1, 2}, []uint32{2, 2}, false},
		{"one that was under way", []uint32{1}, []uint32{1, 2}, false},
		{"back to the old one", []uint32{1, 2}, []uint32{1}, true},
		{"back, after one that was under way", []uint32{1}, []uint32{1, 2, 1}, true},
		{"on to another", []uint32{1}, []uint32{3}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := new(arbiter.Storm)
			beats(s, tt.before...)
			trip(t, s, 2)
			if over := beats(s, tt.after...); over != tt.over || s.Tripped() == over {
				t.Errorf("over %v, tripped %v", over, s.Tripped())
			}
		})
	}
	t.Run("accepted", func(t *testing.T) {
		t.Parallel()
		s := new(arbiter.Storm)
		if s.Accept() {
			t.Error("there was nothing to accept")
		}
		trip(t, s, 2)
		if !s.Accept() || s.Tripped() {
			t.Fatal("not accepted")
		}
		if got, _ := denials(s, c, time.Minute, 1, rulings(0, 20, arbiter.Ruling{Content: 2})); got != 20 {
			t.Errorf("tripped over what was accepted after %d", got)
		}
		trip(t, s, 3)
		if !s.Renew() || s.Tripped() || s.Renew() {
			t.Error("a new start ends it, once")
		}
	})
}

// TestStormRemembersThePopular: a walk over a hundred thousand files does not make it forget what is used all the time.
func TestStormRemembersThePopular(t *testing.T) {
	t.Parallel()
	c := arbiter.DefaultStorm()
	s := new(arbiter.Storm)
	allowing(s, c, 0, 1, 0, 50, 300)
	allowing(s, c, 0, 1, 1000, 100_000, 1)
	if got, _ := denials(s, c, time.Minute, 1, rulings(0, 50, arbiter.Ruling{Content: 2})); got != c.Objects-1 {
		t.Errorf("%d denials had an effect", got)
	}
}

// TestStormForgets: what was popular once, and is not any more, makes room for what is.
func TestStormForgets(t *testing.T) {
	t.Parallel()
	c := arbiter.DefaultStorm()
	s := new(arbiter.Storm)
	allowing(s, c, 0, 1, 0, 4096, 10)
	const now = 2048
	allowing(s, c, 0, 1, 4096, now, 40)
	popular := 0
	for i := 0; i < now; i += c.Objects {
		one := new(arbiter.Storm)
		*one = *s
		got, _ := denials(one, c, time.Minute, 1, rulings(4096+i, c.Objects, arbiter.Ruling{Content: 2}))
		if got < c.Objects {
			popular += c.Objects
		}
	}
	if popular < now*9/10 {
		t.Errorf("of %d objects in use, %d are known as popular", now, popular)
	}
}

// TestStormSaysItOnce: after it has tripped, denials have no effect and start nothing.
func TestStormSaysItOnce(t *testing.T) {
	t.Parallel()
	c := arbiter.DefaultStorm()
	s := new(arbiter.Storm)
	allowing(s, c, 0, 1, 0, 50, 5)
	said := 0
	for _, r := range rulings(0, 50, arbiter.Ruling{Content: 2}) {
		r.Denied = true
		if _, tripped := s.Vote(c, time.Minute, r); tripped {
			said++
		}
	}
	if said != 1 {
		t.Errorf("tripped %d times", said)
	}
}

// TestStormAnyHistory bounds the damage: whatever was allowed and denied before, fewer than Objects popular or owned
// objects are denied within a window, and who denies only what it never allowed is never stopped.
func TestStormAnyHistory(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		c := arbiter.DefaultStorm()
		c.Objects = rapid.IntRange(1, 6).Draw(t, "objects")
		c.Popular = rapid.IntRange(1, 4).Draw(t, "popular")
		s := new(arbiter.Storm)
		hits := map[uint64]int{}
		denied := map[uint64]time.Duration{} // with effect, and grave
		now := time.Duration(0)
		for range rapid.IntRange(0, 150).Draw(t, "votes") {
			now += time.Duration(rapid.IntRange(0, 1500).Draw(t, "ms")) * time.Millisecond
			r := arbiter.Ruling{
				Object: rapid.Uint64Range(1, 12).Draw(t, "object"), Content: rapid.Uint32Range(1, 2).Draw(t, "content"),
				Denied: rapid.Bool().Draw(t, "denied"), Owned: rapid.Bool().Draw(t, "owned"),
			}
			f, tripped := s.Vote(c, now, r)
			switch {
			case !r.Denied:
				hits[r.Object]++
				continue
			case s.Tripped():
				if tripped && f.Objects == 0 {
					t.Fatalf("tripped over nothing: %+v", r)
				}
				s.Renew()
				clear(denied)
				continue
			}
			if r.Owned || hits[r.Object] >= c.Popular {
				denied[r.Object] = now
			}
			for object, at := range denied {
				if now-at > c.Window {
					delete(denied, object)
				}
			}
			if len(denied) >= c.Objects {
				t.Fatalf("%d grave denials within %v: %v", len(denied), c.Window, denied)
			}
		}
	})
}

func TestPace(t *testing.T) {
	t.Parallel()
	c := arbiter.DefaultPace()
	const budget = time.Second
	for _, tt := range []struct {
		name string
		// by minute: votes, and how many of them take 60 % of the budget
		minutes [][2]int
		want    []arbiter.PaceTurn // what the minute's end says
		slow    bool
	}{
		{"fast", [][2]int{{1000, 0}}, []arbiter.PaceTurn{0}, false},
		{"one in a hundred", [][2]int{{1000, 10}}, []arbiter.PaceTurn{0}, false},
		{"more", [][2]int{{1000, 11}}, []arbiter.PaceTurn{arbiter.TooSlow}, true},
		{"too few to tell", [][2]int{{20, 9}}, []arbiter.PaceTurn{0}, false},
		{
			"recovers",
			[][2]int{{10, 10}, {20, 0}, {20, 0}, {20, 0}},
			[]arbiter.PaceTurn{arbiter.TooSlow, 0, 0, arbiter.FastAgain},
			false,
		},
		{
			"recovers on a quiet host",
			[][2]int{{10, 10}, {19, 0}, {1, 0}, {20, 0}, {7, 0}, {7, 0}, {6, 0}},
			[]arbiter.PaceTurn{arbiter.TooSlow, 0, 0, 0, 0, 0, arbiter.FastAgain},
			false,
		},
		{
			"not while it is slow there",
			[][2]int{{10, 10}, {5, 5}, {5, 5}, {20, 0}, {20, 0}},
			[]arbiter.PaceTurn{arbiter.TooSlow, 0, 0, 0, 0},
			true,
		},
		{
			"three in a row",
			[][2]int{{10, 10}, {20, 0}, {20, 0}, {20, 20}, {20, 0}, {20, 0}},
			[]arbiter.PaceTurn{arbiter.TooSlow, 0, 0, 0, 0, 0},
			true,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var p arbiter.Pace
			for i, m := range tt.minutes {
				start := time.Duration(i) * c.Window
				for k := range m[0] {
					took := time.Millisecond
					if (k+1)*m[1]/m[0] > k*m[1]/m[0] { // the slow ones come now and then
						took = budget * 60 / 100
					}
					turn := p.Vote(c, start+time.Duration(k)*c.Window/time.Duration(m[0]), took, budget)
					if k > 0 && turn != 0 {
						t.Fatalf("turn %d in the middle of a minute", turn)
					}
					if i > 0 && k == 0 && turn != tt.want[i-1] {
						t.Fatalf("minute %d: turn %d, want %d", i-1, turn, tt.want[i-1])
					}
				}
			}
			end := time.Duration(len(tt.minutes)) * c.Window
			if turn := p.Vote(c, end, 0, budget); turn != tt.want[len(tt.want)-1] || p.Slow() != tt.slow {
				t.Errorf("at the end turn %d, slow %v", turn, p.Slow())
			}
		})
	}
}

// TestPaceRelapses: who becomes slow again must be good for longer, up to a bound.
func TestPaceRelapses(t *testing.T) {
	t.Parallel()
	c := arbiter.DefaultPace()
	var p arbiter.Pace
	now := time.Duration(0)
	minute := func(took time.Duration) (turn arbiter.PaceTurn) {
		for i := range c.Calm {
			if got := p.Vote(c, now+time.Duration(i)*c.Window/time.Duration(c.Calm), took, time.Second); i == 0 {
				turn = got
			}
		}
		now += c.Window
		return turn
	}
	want := c.Good
	for range 6 {
		minute(time.Second)
		good := 0
		for minute(0) != arbiter.FastAgain {
			if good++; good > 2*c.MaxGood {
				t.Fatal("never fast again")
			}
		}
		// The first good minute is seen at the end of the slow one.
		if good != want {
			t.Errorf("fast again after %d good minutes, want %d", good, want)
		}
		want = min(2*want, c.MaxGood)
	}
	p.Reset(now)
	if p.Slow() {
		t.Error("slow after a reset")
	}
}
