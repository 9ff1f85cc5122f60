package simulate

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/keepout-security/keepout/internal/rollout"
)

// Spread sums up one number of all runs.
type Spread struct {
	Median int `json:"median"`
	P99    int `json:"p99"`
}

// Result sums up all runs. Field names are stable.
type Result struct {
	Scenario string `json:"scenario"`
	Hosts    int    `json:"hosts"`
	Halted   int    `json:"halted"` // runs that a gate stopped: halted, or paused where the gate only pauses
	Broken   Spread `json:"broken"` // hosts that the release broke
	Granted  int    `json:"granted"`
	// MinutesToHalt is the median of the halted runs, or nil.
	MinutesToHalt *float64 `json:"minutes_to_halt"`

	Schedule  string         `json:"schedule"`
	Seeds     int            `json:"seeds"`
	Seed      uint64         `json:"seed"` // the first one
	Completed int            `json:"completed"`
	Minutes   float64        `json:"minutes_to_complete,omitempty"` // median of the completed runs
	StoppedBy map[string]int `json:"stopped_by,omitempty"`          // runs, by gate
	StoppedIn map[int]int    `json:"stopped_in,omitempty"`          // runs, by ring
	Evidence  string         `json:"evidence,omitempty"`            // of the first halted run
	Options   Assumptions    `json:"assumptions"`
	Runs      []Outcome      `json:"-"`

	// References say what other ways would have done.
	References []Reference `json:"references"`
}

// Assumptions are the options that say what hosts do.
type Assumptions struct {
	Start  int     `json:"start_hour"`
	Beacon float64 `json:"beacon"`
	Liars  float64 `json:"liars"`
	Skewed float64 `json:"skewed"`
}

// Play plays all runs. It stops early, with the context's error, when ctx ends.
func Play(ctx context.Context, o Options) (*Result, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	f, err := newFleet(&o)
	if err != nil {
		return nil, err
	}
	g := game{o: &o, f: f, hab: newHabits(), outcomes: make([]Outcome, o.Seeds)}
	if err := g.playAll(ctx); err != nil {
		return nil, err
	}
	res := sum(&o, g.outcomes)
	res.References, err = References(o)
	return res, err
}

// game is all runs of one call.
type game struct {
	o   *Options
	f   *fleet
	hab *habits

	mu       sync.Mutex
	next     int
	done     int
	err      error
	outcomes []Outcome
}

func (g *game) playAll(ctx context.Context) error {
	var wg sync.WaitGroup
	for range g.o.workers() {
		wg.Go(func() { g.work(ctx) })
	}
	wg.Wait()
	if g.err == nil {
		g.err = ctx.Err()
	}
	return g.err
}

func (g *game) work(ctx context.Context) {
	sc, err := g.o.scenario()
	if err != nil {
		g.fail(err)
		return
	}
	a := newArena(g.f, g.f.horizon(sc))
	for {
		i := g.take()
		if i < 0 || ctx.Err() != nil {
			return
		}
		r, err := newRun(g.f, g.o, g.hab, a, g.o.Seed+uint64(i))
		if err != nil {
			g.fail(err)
			return
		}
		out := r.play(ctx, func(t uint32, granted int) { g.tell(t, granted) })
		if i > 0 {
			out.State, out.Curve = rollout.State{}, nil // one is enough to look at
		}
		g.finish(i, out)
	}
}

func (g *game) take() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.err != nil || g.next == g.o.Seeds {
		return -1
	}
	g.next++
	return g.next - 1
}

func (g *game) fail(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.err = err
}

func (g *game) finish(i int, out Outcome) {
	g.mu.Lock()
	g.outcomes[i] = out
	g.done++
	g.mu.Unlock()
	g.tell(0, 0)
}

func (g *game) tell(t uint32, granted int) {
	if g.o.Progress == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	at := time.Duration(t) * time.Second
	g.o.Progress(Progress{Done: g.done, Seeds: g.o.Seeds, At: at, Granted: granted})
}

// sum makes one result of all outcomes.
func sum(o *Options, runs []Outcome) *Result {
	res := &Result{
		Scenario: o.Scenario, Hosts: o.Hosts, Schedule: o.Schedule, Seeds: o.Seeds, Seed: o.Seed,
		StoppedBy: map[string]int{}, StoppedIn: map[int]int{}, Runs: runs,
		Options: Assumptions{Start: o.Start, Beacon: o.Beacon, Liars: o.Liars, Skewed: o.Skewed},
	}
	broken, granted := make([]int, 0, len(runs)), make([]int, 0, len(runs))
	var halt, complete []float64
	for i := range runs {
		r := &runs[i]
		broken, granted = append(broken, r.Broken), append(granted, r.Granted)
		switch {
		case r.Evidence != nil:
			res.Halted++
			halt = append(halt, r.Minutes)
			res.StoppedBy[r.Evidence.Gate.String()]++
			res.StoppedIn[r.Ring]++
			if res.Evidence == "" {
				res.Evidence = fmt.Sprintf("seed %d: %s", r.Seed, r.Evidence)
			}
		case r.Stopped == rollout.Complete:
			res.Completed++
			complete = append(complete, r.Minutes)
		}
	}
	res.Broken = Spread{Median: quantile(broken, 0.5), P99: quantile(broken, 0.99)}
	res.Granted = quantile(granted, 0.5)
	res.Minutes = quantile(complete, 0.5)
	if len(halt) > 0 {
		m := quantile(halt, 0.5)
		res.MinutesToHalt = &m
	}
	return res
}

// quantile returns the value that a share q of all does not exceed, or 0 of none.
func quantile[T cmp.Ordered](values []T, q float64) (x T) {
	if len(values) == 0 {
		return x
	}
	slices.Sort(values)
	return values[min(int(q*float64(len(values))), len(values)-1)]
}
