package simulate

import (
	"context"
	"encoding/json"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/keepout-security/keepout/internal/rollout"
)

func options(scenario string, hosts int) Options {
	o := Defaults()
	o.Scenario, o.Hosts, o.Workers = scenario, hosts, 1
	return o
}

func mustPlay(t *testing.T, o Options) *Result {
	t.Helper()
	res, err := Play(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	for i := range res.Runs {
		if s := &res.Runs[i].State; i == 0 {
			if err := s.Check(); err != nil {
				t.Errorf("%s, seed %d: %v", o.Scenario, res.Runs[i].Seed, err)
			}
		}
	}
	return res
}

// TestScenarios: what each release does to a fleet of 60,000, with the real controller. The limits are far above what
// any of many seeds had, and far below what goes on without rings.
func TestScenarios(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		scenario string
		gate     string
		broken   int
		ring     int
	}{
		{"dead-at-load", "silence", 25, 0},
		{"dead-after-30m", "silence", 25, 0},
		{"dead-after-60m", "silence", 400, 2},
		{"dead-1pct", "", 60, 3},
		{"deny-storm", "denials", 25, 0},
		{"slow", "timeouts", 25, 0},
	} {
		t.Run(c.scenario, func(t *testing.T) {
			t.Parallel()
			o := options(c.scenario, 60_000)
			o.Seeds = 3
			res := mustPlay(t, o)
			if res.Halted != 3 || res.Broken.P99 > c.broken || c.gate != "" && res.StoppedBy[c.gate] == 0 {
				t.Errorf("%d of 3 halted by %v, broken %+v: want all, by %s, at most %d",
					res.Halted, res.StoppedBy, res.Broken, c.gate, c.broken)
			}
			for _, r := range res.Runs {
				if r.Ring > c.ring || r.Evidence == nil || r.Evidence.Test == "" {
					t.Errorf("seed %d: ring %d, evidence %+v", r.Seed, r.Ring, r.Evidence)
				}
			}
			if ref := res.References[0].Broken; ref < 10*res.Broken.P99 {
				t.Errorf("a broadcast breaks %d, rings %d", ref, res.Broken.P99)
			}
		})
	}
}

// TestHealthy: a good release reaches the fleet, by day and in the evening, when most people switch off.
func TestHealthy(t *testing.T) {
	t.Parallel()
	for _, start := range []int{10, 18} {
		o := options("healthy", 20_000)
		o.Seeds, o.Start = 4, start
		res := mustPlay(t, o)
		if res.Halted != 0 || res.Completed != o.Seeds || res.Granted < o.Hosts/3 {
			t.Errorf("start %d: %d halted by %v, %d complete, %d granted: %s", start, res.Halted, res.StoppedBy,
				res.Completed, res.Granted, res.Evidence)
		}
	}
}

// TestLiarsDoNotPromote: a tenth of the hosts says it is well while it breaks; that stops nothing from being stopped.
func TestLiarsDoNotPromote(t *testing.T) {
	t.Parallel()
	o := options("dead-at-load", 60_000)
	o.Liars, o.Seeds = 0.1, 3
	if res := mustPlay(t, o); res.Halted != 3 || res.Broken.P99 > 25 {
		t.Errorf("%d halted, broken %+v", res.Halted, res.Broken)
	}
}

// TestSkewedClocks: hosts that accept no grant hold nobody up.
func TestSkewedClocks(t *testing.T) {
	t.Parallel()
	o := options("healthy", 20_000)
	o.Skewed = 0.1
	if res := mustPlay(t, o); res.Completed != 1 {
		t.Errorf("%d complete; ring %d", res.Completed, res.Runs[0].Ring)
	}
}

// TestSameSeedSameRun: the options decide everything, whoever runs first.
func TestSameSeedSameRun(t *testing.T) {
	t.Parallel()
	var texts []string
	for _, workers := range []int{1, 3} {
		o := options("dead-0.1pct", 20_000)
		o.Seeds, o.Workers = 3, workers
		res := mustPlay(t, o)
		text, err := json.Marshal([]any{res, res.Runs[0].State, res.Runs[1].Inputs, res.Runs[2].Inputs})
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, string(text))
	}
	if texts[0] != texts[1] {
		t.Errorf("two answers:\n%s\n%s", texts[0], texts[1])
	}
}

func TestBadOptions(t *testing.T) {
	t.Parallel()
	for want, change := range map[string]func(*Options){
		"dead-at-load": func(o *Options) { o.Scenario = "x" }, "hosts": func(o *Options) { o.Hosts = 0 },
		"seeds": func(o *Options) { o.Seeds = -1 }, "schedule": func(o *Options) { o.Schedule = "x" },
		"beacon": func(o *Options) { o.Beacon = math.NaN() }, "o'clock": func(o *Options) { o.Start = 24 },
		"liars": func(o *Options) { o.Liars = 1.1 }, "10000000": func(o *Options) { o.Hosts = 1 << 40 },
	} {
		o := Defaults()
		change(&o)
		if _, err := Play(context.Background(), o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one that names %q", err, want)
		}
	}
}

// TestPresence: machines that come and go by drawn times are on as often as their habit says.
func TestPresence(t *testing.T) {
	t.Parallel()
	hab := newHabits()
	rng := rand.New(rand.NewPCG(1, 1))
	const machines, start = 3000, 10
	for _, h := range []*habit{&hab.desk, &hab.server} {
		var on [30]int
		for range machines {
			is := rng.Float64() < h.share(0, start)
			at := uint32(0)
			for hour := range on {
				for {
					rates := &h.arrive
					if is {
						rates = &h.leave
					}
					change := next(rng, at, math.MaxInt32, start, rates)
					if change > uint32(hour*hourSeconds) {
						break // drawn again from here: the times have no memory
					}
					at, is = change, !is
				}
				at = uint32(hour * hourSeconds)
				if is {
					on[hour]++
				}
			}
		}
		for hour, n := range on {
			want := h.share(uint32(hour*hourSeconds), start)
			if got := float64(n) / machines; math.Abs(got-want) > 0.05 {
				t.Errorf("after %d hours %.3f are on, want %.3f", hour, got, want)
			}
		}
	}
}

func TestPlot(t *testing.T) {
	t.Parallel()
	res := mustPlay(t, options("dead-at-load", 20_000))
	for _, page := range []bool{false, true} {
		var b strings.Builder
		if err := Plot(&b, res, page); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"<svg", "</svg>", "broadcast", "timed", "dead-at-load", "silence"} {
			if !strings.Contains(b.String(), want) {
				t.Errorf("page %v: no %q", page, want)
			}
		}
		if strings.Contains(b.String(), "<html") != page {
			t.Errorf("page %v begins with %q", page, b.String()[:20])
		}
	}
}

func TestInterrupted(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(context.Background())
	o := options("healthy", 20_000)
	o.Progress = func(Progress) { cancel() }
	if _, err := Play(ctx, o); err == nil {
		t.Error("an interrupted call has a result")
	}
}

// TestRowIsKept: the compact form of a row loses nothing but when the host was seen last, which decides nothing.
func TestRowIsKept(t *testing.T) {
	t.Parallel()
	for _, phase := range []rollout.Phase{rollout.Pending, rollout.Confirmed, rollout.Foreign} {
		m := machine{ring: 3, stratum: 2, flags: server}
		r := m.row()
		r.Phase, r.Silent, r.WrittenOff, r.Voted = phase, true, phase == rollout.Confirmed, 77
		r.GrantedAt, r.SoakingAt, r.SampledAt, r.Seen, r.Due = 1e9, 2e9, 3e9, 4e9, 9e9
		m.keep(&r, 5*time.Second)
		if m.flags&(server|often) != server|often {
			t.Errorf("flags %b of a server that is expected in five seconds", m.flags)
		}
		m.keep(&r, 4*time.Second)
		r.Seen = 0
		if got := m.row(); got != r || m.flags&(server|often) != server {
			t.Errorf("kept %+v with flags %b, got %+v", r, m.flags, got)
		}
	}
}

// TestUsedMemory: a run in the memory of another one is as it would be in its own.
func TestUsedMemory(t *testing.T) {
	t.Parallel()
	o := options("dead-after-30m", 30_000)
	o.Seeds = 3
	both := mustPlay(t, o)
	f, err := newFleet(&o)
	if err != nil {
		t.Fatal(err)
	}
	sc, _ := o.scenario()
	for i := range both.Runs {
		r, err := newRun(f, &o, newHabits(), newArena(f, f.horizon(sc)), o.Seed+uint64(i))
		if err != nil {
			t.Fatal(err)
		}
		got := r.play(context.Background(), func(uint32, int) {})
		if want := both.Runs[i]; got.Broken != want.Broken || got.Inputs != want.Inputs || got.Minutes != want.Minutes {
			t.Errorf("seed %d: %d broken in %d inputs, want %d in %d",
				got.Seed, got.Broken, got.Inputs, want.Broken, want.Inputs)
		}
	}
}
