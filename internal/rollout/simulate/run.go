package simulate

import (
	"context"
	"math/bits"
	"math/rand/v2"
	"time"

	"github.com/keepout-security/keepout/internal/rollout"
)

// run is one rollout of one fleet.
type run struct {
	*fleet
	o     *Options
	sc    scenario
	hab   *habits
	rng   *rand.Rand
	state rollout.State
	start time.Time
	in    rollout.Input // used again and again
	load  rollout.Load
	// watched is how long a host that checks in often may say nothing.
	watched time.Duration

	*arena
	t       uint32
	acts    []rollout.Act
	halted  uint32 // when it was stopped by a gate, or never
	warm    uint16 // means nothing
	broke   int
	granted int
	curve   []int // broken hosts at the end of each minute
	out     Outcome
}

// Outcome is one run.
type Outcome struct {
	Seed     uint64
	Stopped  rollout.Status    // Stopped, OnHold, Complete, or Running when the time was up
	Evidence *rollout.Evidence // of what stopped it
	Broken   int               // hosts that the release ever broke
	Granted  int               // grants
	Minutes  float64           // until it was stopped or complete
	Ring     int               // the highest open ring
	Curve    []int             // broken hosts at the end of each minute, up to the last change
	State    rollout.State     // at the end
	Inputs   int               // calls of the controller
}

// arena is the memory of one run at a time.
type arena struct {
	hosts   []machine
	touched []uint64 // a bit for each host that is not as it began: few, when a rollout ends early
	queue   queue
}

func newArena(f *fleet, seconds int) *arena {
	hosts := len(f.ring)
	a := &arena{hosts: make([]machine, hosts), touched: make([]uint64, (hosts+63)/64), queue: newQueue(seconds)}
	for i := range a.hosts {
		a.begin(f, uint32(i))
	}
	return a
}

// begin makes a host as it was before the rollout.
func (a *arena) begin(f *fleet, h uint32) {
	m := machine{ring: f.ring[h], stratum: f.stratum[h]}
	if f.server[m.stratum] {
		m.flags = server
	}
	a.hosts[h] = m
}

// touch notes that a host is not as it began.
func (a *arena) touch(h uint32, m *machine) {
	if m.flags&touched == 0 {
		m.flags |= touched
		a.touched[h/64] |= 1 << (h % 64)
	}
}

// each calls do for each host that is not as it began, in order.
func (a *arena) each(do func(h uint32)) {
	for i, word := range a.touched {
		for ; word != 0; word &= word - 1 {
			do(uint32(i*64 + bits.TrailingZeros64(word)))
		}
	}
}

// again makes everything as it was before the rollout.
func (a *arena) again(f *fleet) {
	a.queue.clear()
	a.each(func(h uint32) { a.begin(f, h) })
	clear(a.touched)
}

// horizon is how long a run may take: seven rings and the control group with twice the soak that they need, and the
// time that the defect needs.
func (f *fleet) horizon(sc scenario) int {
	rings := time.Duration(len(f.plan.Rings) + 1)
	return int((rings*(f.numbers.Soak+10*time.Minute)*3/2 + sc.after + 6*time.Hour) / time.Second)
}

func newRun(f *fleet, o *Options, hab *habits, a *arena, seed uint64) (*run, error) {
	sc, err := o.scenario()
	if err != nil {
		return nil, err
	}
	a.again(f)
	r := &run{
		fleet: f, o: o, sc: sc, hab: hab, rng: dice(seed),
		start: time.Date(2026, 1, 5, o.Start, 0, 0, 0, time.UTC), halted: never,
		arena: a, watched: time.Duration(f.numbers.Missed) * f.numbers.CheckIn,
	}
	r.out.Seed = seed
	r.state, err = rollout.New(f.spec, f.numbers, f.plan)
	return r, err
}

// dice returns the chance of one run.
func dice(seed uint64) *rand.Rand {
	return rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // a simulation must be repeatable, not secret
}

// play runs until the rollout has ended and nothing more can break.
func (r *run) play(ctx context.Context, progress func(t uint32, granted int)) Outcome {
	r.wakeRing(uint32(r.plan.Control()))
	r.apply(rollout.Tick, never)
	r.act()
	for r.t = 0; int(r.t) < len(r.queue.heads)-1 && !r.over() && ctx.Err() == nil; r.t++ {
		if r.t%30 == 0 {
			r.apply(rollout.Tick, never)
			r.act()
		}
		if r.t%60 == 0 {
			r.noise()
			r.curve = append(r.curve, r.broke)
			progress(r.t, r.granted)
		}
		r.second()
	}
	return r.outcome()
}

// second lets everything happen that is due now.
func (r *run) second() {
	last := uint32(0)
	for {
		top := r.queue.top(r.t)
		if top == 0 {
			return
		}
		if top != last {
			last = top
			for _, h := range r.queue.of(top) {
				r.warm += r.hosts[h].what // the processor waits for all of their memory at once, not for each
			}
		}
		r.event(r.queue.pop(r.t))
		if len(r.acts) > 0 {
			r.act()
		}
	}
}

// over reports whether nothing of interest can happen any more.
func (r *run) over() bool {
	if r.halted != never && r.queue.queued == 0 {
		return true
	}
	switch r.state.Status {
	case rollout.Stopped, rollout.OnHold:
		// Hosts that are off go back, or break, when they come on again: that takes up to a day.
		return r.t > r.halted+26*hourSeconds || r.sc.after == 0 && r.t > r.halted+15*60
	case rollout.Complete:
		return r.sc.kind == none || r.sc.after == 0 && r.t > uint32(r.state.StartedAt/time.Second)+hourSeconds*6
	case rollout.Draft, rollout.Running:
	}
	return false
}

// outcome sums a run up.
func (r *run) outcome() Outcome {
	o := &r.out
	o.Stopped, o.Evidence, o.Broken, o.Granted = r.state.Status, r.state.Evidence, r.broke, r.granted
	o.Ring, o.State = r.state.Open, r.state
	if r.halted != never {
		o.Minutes = float64(r.halted) / 60
	} else if o.Minutes == 0 {
		o.Minutes = float64(r.t) / 60
	}
	r.curve = append(r.curve, r.broke)
	last := len(r.curve)
	for last > 1 && r.curve[last-2] == r.broke {
		last--
	}
	o.Curve = r.curve[:last]
	return *o
}

// act does what the controller's acts ask of the fleet. It is called between events, when every host that has a time
// is in the queue.
func (r *run) act() {
	for len(r.acts) > 0 {
		a := r.acts[0]
		r.acts = r.acts[1:]
		switch a.Kind {
		case rollout.Opened:
			r.wakeRing(uint32(a.Ring))
		case rollout.Halted, rollout.Paused:
			if r.halted == never {
				r.halted = r.t
				r.requeue(func(m *machine) bool { return m.what&(runsNew|dead) == runsNew })
			}
		case rollout.Completed:
			r.out.Minutes = float64(r.t) / 60
		default: // nothing that a host would notice
		}
	}
}

// wakeRing gives the hosts of a ring their first check-in.
func (r *run) wakeRing(ring uint32) {
	pace := uint32(r.numbers.CheckIn / time.Second)
	if len(r.members[ring]) > r.numbers.Crowd {
		pace = uint32(r.numbers.Idle / time.Second)
	}
	control := int(ring) == r.plan.Control()
	if control && r.state.Open == int(ring) {
		r.requeue(func(m *machine) bool { return int(m.ring) == r.plan.Control() })
		return
	}
	if control {
		pace = uint32(r.numbers.CheckIn / time.Second)
	}
	for _, h := range r.members[ring] {
		m := &r.hosts[h]
		r.touch(h, m)
		r.awaken(m)
		if m.what&on != 0 {
			m.ask = r.t + 1 + r.rng.Uint32N(pace)
		}
		r.await(h, m)
	}
}

// requeue builds the queue anew, and lets the hosts that a rollout's change is about check in soon.
func (r *run) requeue(soon func(*machine) bool) {
	r.queue.clear()
	idle := uint32(r.numbers.Idle / time.Second)
	stopped := r.state.Status == rollout.Stopped
	r.each(func(h uint32) {
		m := &r.hosts[h]
		if m.what&awake == 0 {
			return
		}
		if soon(m) {
			if m.what&on != 0 {
				m.ask = r.t + 1 + r.rng.Uint32N(idle)
			}
		} else if stopped && m.what&runsNew == 0 {
			return // what it does decides nothing any more
		}
		r.await(h, m)
	})
}

// awaken draws what a host is at the moment at which it first matters.
func (r *run) awaken(m *machine) {
	what := uint16(awake)
	hab := r.habit(m)
	if r.rng.Float64() < hab.share(r.t, r.o.Start) {
		what |= on
		m.toggle = r.after(&hab.leave)
	} else {
		m.toggle = r.after(&hab.arrive)
	}
	if r.o.Liars > 0 && r.rng.Float64() < r.o.Liars {
		what |= liar
	}
	if r.o.Skewed > 0 && r.rng.Float64() < r.o.Skewed {
		what |= skewed
	}
	if r.sc.share > 0 && (r.sc.share == 1 || r.rng.Float64() < r.sc.share) {
		what |= doomed
	}
	m.what, m.ask = what, never
}

func (r *run) habit(m *machine) *habit {
	if m.flags&server != 0 {
		return &r.hab.server
	}
	return &r.hab.desk
}

// await puts a host where its next time is.
func (r *run) await(h uint32, m *machine) {
	next := min(m.toggle, m.ask, r.doom(m))
	if int(next) < len(r.queue.heads) {
		r.queue.push(max(next, r.t), h)
	}
}

// doom returns when a host that is on breaks, or never.
func (r *run) doom(m *machine) uint32 {
	const all = runsNew | doomed | on
	if m.what&(all|broken) != all {
		return never
	}
	return m.granted + uint32(r.sc.after/time.Second)
}

// after draws when a machine that is on or off now changes.
func (r *run) after(rates *[day]float64) uint32 {
	return next(r.rng, r.t, uint32(len(r.queue.heads)), r.o.Start, rates)
}
