package arbiter_test

import (
	"encoding/json"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/keepout-security/keepout/internal/arbiter"
)

// breakerRun is an independent account of what one breaker may do: it remembers everything.
type breakerRun struct {
	t   *rapid.T
	c   arbiter.BreakerConfig
	b   arbiter.Breaker
	now time.Duration

	closedAt time.Duration // since when it is closed
	misses   []time.Duration
	answers  []time.Duration // and misses: every outcome since it was closed

	asked, probed, skipped           uint64
	answered, missed, lost, inFlight uint64
}

func (r *breakerRun) state() arbiter.BreakerState { return r.b.View().State }

func (r *breakerRun) ask() {
	before := r.state()
	route, _ := r.b.Ask(r.c, r.now)
	switch route {
	case arbiter.Ask:
		r.asked++
		r.inFlight++
	case arbiter.Probe:
		r.probed++
		r.inFlight++
	case arbiter.Skip:
		r.skipped++
	}
	if (route == arbiter.Ask) != (before == arbiter.Closed) {
		r.t.Fatalf("route %d while %s: who is not closed is not waited for, and who is, is asked", route, before)
	}
}

// outcome ends one event in flight.
func (r *breakerRun) outcome(kind string) {
	if r.inFlight == 0 {
		return
	}
	r.inFlight--
	was := r.state()
	var turn arbiter.Turn
	switch kind {
	case "answered":
		r.answered++
		turn = r.b.Answered(r.c, r.now)
	case "missed":
		r.missed++
		turn = r.b.Missed(r.c, r.now)
		r.misses = append(r.misses, r.now)
	case "lost":
		r.lost++
		return
	}
	r.answers = append(r.answers, r.now)
	now := r.state()
	if (turn == arbiter.Opened) != (was == arbiter.Closed && now != arbiter.Closed) {
		r.t.Fatalf("%s after %s: turn %d", now, was, turn)
	}
	if (turn == arbiter.Restored) != (was != arbiter.Closed && now == arbiter.Closed) {
		r.t.Fatalf("%s after %s: turn %d", now, was, turn)
	}
	if enough := r.enough(); was == arbiter.Closed && enough != (turn == arbiter.Opened) {
		r.t.Fatalf("opened %v, and there are enough misses: %v", turn == arbiter.Opened, enough)
	}
	if turn == arbiter.Restored {
		r.closedAt, r.misses, r.answers = r.now, nil, nil
	}
	if turn == arbiter.Opened {
		r.misses, r.answers = nil, nil
	}
}

// enough says from the whole memory whether a closed breaker should open.
func (r *breakerRun) enough() bool {
	recent := 0
	for _, at := range r.misses {
		if at >= r.now-r.c.Window {
			recent++
		}
	}
	part := r.c.Long / 12
	within := func(list []time.Duration) (n int) {
		for _, at := range list {
			if at/part > r.now/part-12 {
				n++
			}
		}
		return n
	}
	all, missed := within(r.answers), within(r.misses)
	last := len(r.misses) > 0 && r.misses[len(r.misses)-1] == r.now
	return last && (recent >= r.c.Misses || all >= r.c.Samples && missed*100 > all*r.c.Percent)
}

// TestBreakerAnyHistory: a breaker opens when there are enough misses and never otherwise, whatever happens in what
// order; every event is accounted for; and it always closes again once the provider answers well.
func TestBreakerAnyHistory(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		c := arbiter.DefaultBreaker()
		c.Misses = rapid.IntRange(1, 5).Draw(t, "misses")
		c.Samples = rapid.IntRange(5, 50).Draw(t, "samples")
		c.Percent = rapid.IntRange(1, 30).Draw(t, "percent")
		c.Probes = rapid.IntRange(1, 6).Draw(t, "probes")
		r := &breakerRun{t: t, c: c}
		steps := rapid.SliceOfN(rapid.SampledFrom([]string{
			"ask", "ask", "ask", "answered", "answered", "missed", "lost", "hurry",
		}), 0, 200).Draw(t, "steps")
		gaps := rapid.SampledFrom([]int{5, 200, 3000}).Draw(t, "pace")
		for _, step := range steps {
			r.now += time.Duration(rapid.IntRange(0, gaps).Draw(t, "ms")) * time.Millisecond
			switch step {
			case "ask":
				r.ask()
			case "hurry":
				r.b.Hurry(r.now)
			default:
				r.outcome(step)
			}
		}
		v := r.b.View()
		if r.asked+r.probed != r.answered+r.missed+r.lost+r.inFlight {
			t.Fatalf("delivered %d+%d: %+v", r.asked, r.probed, r)
		}
		if v.Bypassed != r.probed+r.skipped || v.Misses != r.missed {
			t.Fatalf("%+v after %d copies, %d passed by, %d missed", v, r.probed, r.skipped, r.missed)
		}
		r.recovers()
	})
}

// recovers lets the provider answer well, with an event every 50 ms, and checks that the breaker closes in time.
func (r *breakerRun) recovers() {
	r.inFlight = 0
	limit := r.now + r.c.MaxWait + time.Duration(r.c.Probes+1)*max(r.c.ProbeEvery, 50*time.Millisecond)
	for r.state() != arbiter.Closed {
		if r.now += 50 * time.Millisecond; r.now > limit {
			r.t.Fatalf("not closed although it answers well: %+v", r.b.View())
		}
		r.ask()
		r.outcome("answered")
	}
	r.ask()
	if r.inFlight != 1 {
		r.t.Fatal("closed, and not asked")
	}
}

// TestBreakerCourse: three misses, the back-off and its doubling, the copies, the end of it.
func TestBreakerCourse(t *testing.T) {
	t.Parallel()
	c := arbiter.DefaultBreaker()
	var b arbiter.Breaker
	now := 100 * time.Second
	for range 2 {
		if b.Missed(c, now) != 0 {
			t.Fatal("two misses opened it")
		}
	}
	if b.Missed(c, now+c.Window) != arbiter.Opened {
		t.Fatal("three misses in ten seconds did not open it")
	}
	now += c.Window
	wait := c.FirstWait
	for range 8 { // each failed try doubles the wait, up to the bound
		if v := b.View(); v.State != arbiter.Open || v.Until != now+wait {
			t.Fatalf("%+v, want open until %v", v, now+wait)
		}
		if route, _ := b.Ask(c, now+wait-1); route != arbiter.Skip {
			t.Fatalf("route %d before the wait is over", route)
		}
		now += wait
		if route, _ := b.Ask(c, now); route != arbiter.Probe {
			t.Fatalf("route %d after the wait", route)
		}
		now += c.ProbeEvery - 1
		if route, _ := b.Ask(c, now); route != arbiter.Skip {
			t.Fatalf("route %d: copies go out too fast", route)
		}
		b.Missed(c, now)
		wait = min(2*wait, c.MaxWait)
	}
	now += wait
	for i := range c.Probes {
		if route, _ := b.Ask(c, now); route != arbiter.Probe {
			t.Fatalf("route %d for copy %d", route, i)
		}
		want := arbiter.Turn(0)
		if i == c.Probes-1 {
			want = arbiter.Restored
		}
		if turn := b.Answered(c, now); turn != want {
			t.Fatalf("turn %d after %d good answers", turn, i+1)
		}
		now += c.ProbeEvery
	}
	if route, _ := b.Ask(c, now); route != arbiter.Ask {
		t.Fatal("closed, and not asked")
	}
	for range c.Misses { // at once again: it waits as long as before
		b.Missed(c, now)
	}
	if v := b.View(); v.Until-v.Since != c.MaxWait || v.Misses != uint64(3+8+c.Misses) || v.Openings != 10 {
		t.Errorf("after relapsing %+v", v)
	}
}

// TestBreakerShare: one miss in a hundred is borne, more are not; and what opened it is forgotten once it is closed.
func TestBreakerShare(t *testing.T) {
	t.Parallel()
	c := arbiter.DefaultBreaker()
	c.Window = 5 * time.Second // the misses below are further apart
	for misses, want := range map[int]arbiter.BreakerState{4: arbiter.Closed, 5: arbiter.Open} {
		var b arbiter.Breaker
		now := time.Duration(0)
		for i := range 400 {
			now = time.Duration(i) * 100 * time.Millisecond
			if i%80 == 79 && i/80 < misses-1 || i == 399 {
				b.Missed(c, now)
			} else {
				b.Answered(c, now)
			}
		}
		if got := b.View().State; got != want {
			t.Errorf("%d misses in 400 votes: %s, want %s", misses, got, want)
		}
		if want == arbiter.Closed {
			continue
		}
		for now += c.FirstWait; b.View().State != arbiter.Closed; now += c.ProbeEvery {
			b.Ask(c, now)
			b.Answered(c, now)
		}
		if b.Missed(c, now) != 0 {
			t.Error("one miss opened it after it was closed")
		}
	}
}

// TestBreakerForgives: after a minute of being closed it waits as little as the first time.
func TestBreakerForgives(t *testing.T) {
	t.Parallel()
	c := arbiter.DefaultBreaker()
	for rest, want := range map[time.Duration]time.Duration{c.Stable - 1: 2 * c.FirstWait, c.Stable: c.FirstWait} {
		var b arbiter.Breaker
		now := time.Second
		for range c.Misses {
			b.Missed(c, now)
		}
		now += c.FirstWait
		for range c.Probes {
			b.Ask(c, now)
			b.Answered(c, now)
			now += c.ProbeEvery
		}
		now = b.View().Since + rest
		for range c.Misses {
			b.Missed(c, now)
		}
		if v := b.View(); v.Until-v.Since != want {
			t.Errorf("after %v of being closed it waits %v, want %v", rest, v.Until-v.Since, want)
		}
	}
}

// TestBreakerIsStuck: it says once that it stays open, and again only after it was closed.
func TestBreakerIsStuck(t *testing.T) {
	t.Parallel()
	c := arbiter.DefaultBreaker()
	var b arbiter.Breaker
	for range 2 {
		said := 0
		start := b.View().Since
		for range c.Misses {
			b.Missed(c, start)
		}
		for at := start; at < start+3*c.Stuck; at += 100 * time.Millisecond {
			route, turn := b.Ask(c, at)
			if turn == arbiter.Stuck {
				if said++; at < start+c.Stuck {
					t.Fatalf("stuck after %v", at-start)
				}
			}
			if route == arbiter.Probe && b.Missed(c, at) == arbiter.Stuck {
				said++
			}
		}
		if said != 1 {
			t.Errorf("said %d times that it is stuck, want once", said)
		}
		b.Reset(start + 3*c.Stuck)
	}
}

func TestBreakerStateText(t *testing.T) {
	t.Parallel()
	for _, s := range []arbiter.BreakerState{arbiter.Closed, arbiter.Open, arbiter.HalfOpen} {
		text, err := json.Marshal(s)
		var back arbiter.BreakerState
		if err := json.Unmarshal(text, &back); err != nil || back != s {
			t.Errorf("%s became %v: %v", text, back, err)
		}
		if err != nil {
			t.Error(err)
		}
	}
	var s arbiter.BreakerState
	if json.Unmarshal([]byte(`"ajar"`), &s) == nil {
		t.Error("an unknown word was taken")
	}
}

// BenchmarkStanding is what a vote costs in these decisions: a route, an answer, its time, and the look for a storm.
func BenchmarkStanding(b *testing.B) {
	bc, pc, sc := arbiter.DefaultBreaker(), arbiter.DefaultPace(), arbiter.DefaultStorm()
	var br arbiter.Breaker
	var p arbiter.Pace
	s := new(arbiter.Storm)
	b.ReportAllocs()
	for i := range b.N {
		now := time.Duration(i) * 10 * time.Microsecond
		br.Ask(bc, now)
		br.Answered(bc, now)
		p.Vote(pc, now, time.Millisecond, time.Second)
		s.Vote(sc, now, arbiter.Ruling{Object: uint64(i) * 0x9e3779b97f4a7c15 >> 40, Content: 1})
	}
}
