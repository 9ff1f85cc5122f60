package simulate

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/keepout-security/keepout/internal/rollout"
)

// machine is one host, in 40 bytes, because an event in a large fleet costs about as much as the memory it touches.
// The first two lines are its rollout.Row. Times are in seconds: every input comes at a whole one.
type machine struct {
	granted, soaking, sampled, seen, due uint32
	voted                                uint16
	phase, ring, stratum                 uint8

	silent, writtenOff bool
	server             bool
	what               uint16
	toggle             uint32 // when it is switched on or off; of a dead one, when its beacon comes
	ask                uint32 // when it checks in; of one that is off or dead, when it counts as silent
	link               uint32 // the next host in the same second, plus 1
}

// What a host is.
const (
	awake   = 1 << iota // it has a place in the queue, or had one
	on                  // switched on
	runsNew             // runs the release
	broken
	dead // broken, and does not check in
	liar
	skewed
	unused // has a grant that it will not use
	asked  // has tried once with a clock that is wrong
	doomed // the release will break it
)

// run is one rollout of one fleet.
type run struct {
	*fleet
	o     *Options
	sc    scenario
	hab   *habits
	rng   *rand.Rand
	state rollout.State
	begin time.Time
	in    rollout.Input // used again and again
	load  rollout.Load

	hosts []machine
	heads []uint32 // by second: the first host, plus 1

	t       uint32
	acts    []rollout.Act
	halted  uint32 // when it was stopped by a gate, or never
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
	hosts []machine
	heads []uint32
}

func newArena(hosts, seconds int) *arena {
	return &arena{hosts: make([]machine, hosts), heads: make([]uint32, seconds+1)}
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
	clear(a.heads)
	for i := range a.hosts {
		stratum := f.stratum[i]
		a.hosts[i] = machine{ring: f.ring[i], stratum: stratum, server: f.server[stratum]}
	}
	r := &run{
		fleet: f, o: o, sc: sc, hab: hab, rng: dice(seed),
		begin: time.Date(2026, 1, 5, o.Start, 0, 0, 0, time.UTC), halted: never,
		hosts: a.hosts, heads: a.heads,
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
	for r.t = 0; int(r.t) < len(r.heads)-1 && !r.over() && ctx.Err() == nil; r.t++ {
		if r.t%30 == 0 {
			r.apply(rollout.Tick, never)
			r.act()
		}
		if r.t%60 == 0 {
			r.noise()
			r.curve = append(r.curve, r.broke)
			progress(r.t, r.granted)
		}
		for r.heads[r.t] != 0 {
			host := r.heads[r.t] - 1
			r.heads[r.t] = r.hosts[host].link
			r.event(host)
			r.act()
		}
	}
	return r.outcome()
}

// over reports whether nothing of interest can happen any more.
func (r *run) over() bool {
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
		r.awaken(m)
		if m.what&on != 0 {
			m.ask = r.t + 1 + r.rng.Uint32N(pace)
		}
		r.queue(h)
	}
}

// requeue builds the queue anew, and lets the hosts that a rollout's change is about check in soon.
func (r *run) requeue(soon func(*machine) bool) {
	clear(r.heads)
	idle := uint32(r.numbers.Idle / time.Second)
	stopped := r.state.Status == rollout.Stopped
	for h := range uint32(len(r.hosts)) {
		m := &r.hosts[h]
		if m.what&awake == 0 {
			continue
		}
		if soon(m) {
			if m.what&on != 0 {
				m.ask = r.t + 1 + r.rng.Uint32N(idle)
			}
		} else if stopped && m.what&runsNew == 0 {
			continue // what it does decides nothing any more
		}
		r.queue(h)
	}
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
	if m.server {
		return &r.hab.server
	}
	return &r.hab.desk
}

// queue puts a host where its next time is.
func (r *run) queue(h uint32) {
	m := &r.hosts[h]
	next := min(m.toggle, m.ask, r.doom(m))
	if int(next) >= len(r.heads) {
		return
	}
	next = max(next, r.t)
	m.link = r.heads[next]
	r.heads[next] = h + 1
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
	return next(r.rng, r.t, uint32(len(r.heads)), r.o.Start, rates)
}
