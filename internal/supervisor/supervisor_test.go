package supervisor_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/keepout-security/keepout/internal/supervisor"
)

type step struct {
	after time.Duration
	in    supervisor.Input
	state supervisor.State
	want  []supervisor.Effect
}

func TestLife(t *testing.T) {
	in := func(k supervisor.Kind) supervisor.Input { return supervisor.Input{Kind: k} }
	start, kill, drain := supervisor.Start, supervisor.Kill, supervisor.Drain
	tests := map[string][]step{
		"good": {
			{0, in(supervisor.Enable), supervisor.Starting, []supervisor.Effect{start}},
			{0, in(supervisor.Hello), supervisor.Loading, nil},
			{0, in(supervisor.Subscribed), supervisor.Running, nil},
			{0, supervisor.Input{Kind: supervisor.Beat, Degraded: true}, supervisor.Degraded, nil},
			{0, in(supervisor.Beat), supervisor.Running, nil},
			{time.Second, in(supervisor.Tick), supervisor.Running, nil},
			{0, in(supervisor.Disable), supervisor.Disabled, []supervisor.Effect{drain}},
			{0, in(supervisor.Ended), supervisor.Disabled, nil},
			{time.Hour, in(supervisor.Tick), supervisor.Disabled, nil},
		},
		"silent": {
			{0, in(supervisor.Enable), supervisor.Starting, []supervisor.Effect{start}},
			{0, in(supervisor.Hello), supervisor.Loading, nil},
			{0, in(supervisor.Subscribed), supervisor.Running, nil},
			{6 * time.Second, in(supervisor.Tick), supervisor.Running, []supervisor.Effect{kill}},
			{time.Second, in(supervisor.Tick), supervisor.Running, nil}, // killed once
			{0, in(supervisor.Ended), supervisor.Backoff, nil},
		},
		"crash loop backs off": {
			{0, in(supervisor.Enable), supervisor.Starting, []supervisor.Effect{start}},
			{0, in(supervisor.Ended), supervisor.Backoff, nil},
			{time.Second, in(supervisor.Tick), supervisor.Starting, []supervisor.Effect{start}},
			{0, in(supervisor.Ended), supervisor.Backoff, nil},
			{time.Second, in(supervisor.Tick), supervisor.Backoff, nil},
			{time.Second, in(supervisor.Tick), supervisor.Starting, []supervisor.Effect{start}},
		},
		"no handshake": {
			{0, in(supervisor.Enable), supervisor.Starting, []supervisor.Effect{start}},
			{5 * time.Second, in(supervisor.Tick), supervisor.Starting, []supervisor.Effect{kill}},
		},
		"broke the protocol": {
			{0, in(supervisor.Enable), supervisor.Starting, []supervisor.Effect{start}},
			{0, in(supervisor.Hello), supervisor.Loading, nil},
			{0, supervisor.Input{Kind: supervisor.Broke, Cause: "garbage"}, supervisor.Loading, []supervisor.Effect{kill}},
			{0, in(supervisor.Ended), supervisor.Backoff, nil},
		},
		"enabled again while draining": {
			{0, in(supervisor.Enable), supervisor.Starting, []supervisor.Effect{start}},
			{0, in(supervisor.Disable), supervisor.Disabled, []supervisor.Effect{drain}},
			{0, in(supervisor.Enable), supervisor.Backoff, nil},
			{time.Minute, in(supervisor.Tick), supervisor.Backoff, nil}, // the old process still runs
			{0, in(supervisor.Ended), supervisor.Backoff, nil},
			{time.Second, in(supervisor.Tick), supervisor.Starting, []supervisor.Effect{start}},
		},
	}
	for name, steps := range tests {
		t.Run(name, func(t *testing.T) {
			var p supervisor.Provider
			now := time.Unix(0, 0)
			for i, s := range steps {
				now = now.Add(s.after)
				var got []supervisor.Effect
				p, got = p.Next(supervisor.Defaults(), now, s.in)
				if p.State != s.state || len(got) != len(s.want) || len(got) == 1 && got[0] != s.want[0] {
					t.Fatalf("step %d: state %s effects %v, want %s %v", i, p.State, got, s.state, s.want)
				}
			}
		})
	}
}

// TestOneProcess holds for any history: never two processes, none without a wish for it, restarts no more often
// than the back-off allows, and a running one is not killed while it gives signs of life.
func TestOneProcess(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := supervisor.Defaults()
		var p supervisor.Provider
		now := time.Unix(0, 0)
		running, enabled := false, false
		var lastStart time.Time
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 4000).Draw(t, "ms")) * time.Millisecond)
			k := supervisor.Kind(rapid.IntRange(int(supervisor.Enable), int(supervisor.Tick)).Draw(t, "kind"))
			if k == supervisor.Ended && !running {
				continue
			}
			switch k {
			case supervisor.Ended:
				running = false
			case supervisor.Enable:
				enabled = true
			case supervisor.Disable:
				enabled = false
			}
			var eff []supervisor.Effect
			p, eff = p.Next(c, now, supervisor.Input{Kind: k})
			for _, e := range eff {
				if e != supervisor.Start {
					if !running {
						t.Fatalf("%v without a process", e)
					}
					continue
				}
				if running || !enabled {
					t.Fatalf("start: running=%v enabled=%v", running, enabled)
				}
				if k == supervisor.Tick && now.Sub(lastStart) < c.FirstWait {
					t.Fatalf("restarted %v after the last start", now.Sub(lastStart))
				}
				running, lastStart = true, now
			}
			if at, ok := p.Due(c); ok {
				if _, eff := p.Next(c, at, supervisor.Input{Kind: supervisor.Tick}); len(eff) != 1 {
					t.Fatalf("a tick when due does %v in state %s", eff, p.State)
				}
			}
			if p.RetryIn(now) > c.MaxWait {
				t.Fatalf("waits %v", p.RetryIn(now))
			}
		}
	})
}
