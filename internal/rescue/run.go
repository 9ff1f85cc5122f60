package rescue

import (
	"context"
	"time"

	"github.com/keepout-security/keepout/internal/recovery/settings"
	"github.com/keepout-security/keepout/internal/rescue/plan"
)

// pace is the part of the configuration that decides, within its bounds.
func pace(c *settings.Config) plan.Config {
	return plan.Config{
		RetryInterval: time.Duration(c.RetryMinutes) * time.Minute,
		TotalWait:     time.Duration(c.TotalMinutes) * time.Minute,
		NetworkWait:   time.Duration(c.NetworkSeconds) * time.Second,
		OneScan:       c.OneScan,
	}.Normal()
}

// Hands does what plan decides. Each call returns when it is done or its context is, or never where the kernel waits
// for a disk that hangs; Run calls them on goroutines of their own, never one of them twice at the same time without
// having cancelled the first. Show and Leave are called where keys and limits are seen to: Show waits for no disk, and
// Leave for a bounded time.
type Hands interface {
	Save(ctx context.Context) plan.Saved
	Connect(ctx context.Context) (plan.Linked, error) // tries until it succeeds or the context ends
	Ask(ctx context.Context, s plan.State) plan.Answered
	Apply(ctx context.Context, r plan.Remedy) plan.Applied
	Report(ctx context.Context, s plan.State)
	Show(s plan.State)
	Leave(a plan.Act) // restarts or powers off; may return
}

// Clock gives the time and says when some has passed.
type Clock struct {
	Now  func() time.Time
	Tick <-chan time.Time // at least once a second
}

// runner is one visit under way.
type runner struct {
	ctx     context.Context
	hands   Hands
	clock   Clock
	state   plan.State
	tasks   map[plan.Act]task
	number  int
	results chan result
}

// task is an effect under way; its number tells its result from that of one before it.
type task struct {
	number int
	cancel context.CancelFunc
}

type result struct {
	act    plan.Act
	number int
	in     plan.Input
}

// Run makes one visit and returns its last state: when the machine leaves, or when ctx ends.
func Run(ctx context.Context, hands Hands, clock Clock, keys <-chan plan.Key, c plan.Config, f plan.Facts) plan.State {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r := &runner{
		ctx: ctx, hands: hands, clock: clock, tasks: map[plan.Act]task{}, results: make(chan result),
	}
	var effects []plan.Effect
	r.state, effects = plan.Begin(clock.Now(), c, f)
	for {
		hands.Show(r.state)
		for _, e := range effects {
			r.start(e)
		}
		if r.state.Phase == plan.Leaving {
			return r.state
		}
		var in plan.Input
		select {
		case <-ctx.Done():
			return r.state
		case res := <-r.results:
			if r.tasks[res.act].number != res.number {
				continue
			}
			in = res.in
		case key := <-keys:
			in.Key = key
		case <-clock.Tick:
		}
		r.state, effects = r.state.Step(clock.Now(), in)
	}
}

func (r *runner) start(e plan.Effect) {
	if old, running := r.tasks[e.Act]; running {
		old.cancel()
	}
	ctx, cancel := context.WithCancel(r.ctx)
	r.number++
	t := task{number: r.number, cancel: cancel}
	r.tasks[e.Act] = t
	state := r.state
	if e.Act == plan.Restart || e.Act == plan.PowerOff {
		r.hands.Leave(e.Act)
		return
	}
	go func() {
		defer cancel()
		in, ok := r.perform(ctx, e, state)
		if !ok {
			return
		}
		select {
		case r.results <- result{act: e.Act, number: t.number, in: in}:
		case <-r.ctx.Done():
		}
	}()
}

func (r *runner) perform(ctx context.Context, e plan.Effect, s plan.State) (in plan.Input, ok bool) {
	switch e.Act {
	case plan.Save:
		saved := r.hands.Save(ctx)
		in.Saved = &saved
	case plan.Connect:
		linked, err := r.hands.Connect(ctx)
		if err != nil {
			return in, false // the limit of the phase speaks for it
		}
		in.Linked = &linked
	case plan.Ask:
		answered := r.hands.Ask(ctx, s)
		in.Answered = &answered
	case plan.Apply:
		applied := r.hands.Apply(ctx, e.Remedy)
		in.Applied = &applied
	case plan.Report:
		r.hands.Report(ctx, s)
		in.Reported = true
	default:
		return in, false
	}
	return in, true
}
