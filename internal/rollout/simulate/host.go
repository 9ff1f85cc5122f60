package simulate

import (
	"time"

	"github.com/keepout-security/keepout/internal/rollout"
)

// event lets one host do what is due.
func (r *run) event(h uint32) {
	m := &r.hosts[h]
	switch what := m.what; {
	case what&dead != 0:
		r.deadEvent(h, m)
	case what&on == 0:
		r.offEvent(h, m)
	case r.doom(m) <= r.t:
		r.harm(m)
	case m.toggle <= r.t:
		m.what &^= on
		m.ask = r.lapseAt(m)
		hab := r.habit(m)
		m.toggle = r.after(&hab.arrive)
	default:
		r.checkIn(h, m)
	}
	r.await(h, m)
}

// deadEvent is a host's silence, or its beacon.
func (r *run) deadEvent(h uint32, m *machine) {
	if m.ask <= r.t {
		m.ask = never
		r.apply(rollout.Lapse, h)
		return
	}
	m.toggle = never
	r.in.Report = rollout.Report{Incidents: []rollout.Incident{{Gate: rollout.Recovery, Signature: "new: " + r.sc.name}}}
	r.apply(rollout.Beacon, h)
}

// offEvent is the silence of a host that is off, or its return.
func (r *run) offEvent(h uint32, m *machine) {
	if m.toggle > r.t {
		m.ask = never
		r.apply(rollout.Lapse, h)
		return
	}
	m.what |= on
	hab := r.habit(m)
	m.toggle = r.after(&hab.leave)
	m.ask = r.t
	if r.doom(m) <= r.t {
		r.harm(m) // before it can ask whether it should go back
	}
}

// lapseAt returns when a host that was well until now counts as silent.
func (r *run) lapseAt(m *machine) uint32 {
	if m.due == 0 {
		return never
	}
	pace := uint32(r.numbers.Idle / time.Second)
	if m.flags&often != 0 {
		pace = uint32(r.numbers.CheckIn / time.Second)
	}
	return r.t + uint32(r.numbers.Missed)*pace - r.rng.Uint32N(max(pace, 1))
}

// harm breaks a host.
func (r *run) harm(m *machine) {
	m.what |= broken
	r.broke++
	if r.sc.kind != dies || m.what&liar != 0 {
		return // it goes on checking in
	}
	m.what |= dead
	m.ask = r.lapseAt(m)
	m.toggle = never
	if r.rng.Float64() < r.o.Beacon {
		// Three boots that fail, and the recovery environment.
		m.toggle = r.t + 240 + r.rng.Uint32N(360)
	}
}

// checkIn is a host that asks.
func (r *run) checkIn(h uint32, m *machine) {
	rep := &r.in.Report
	*rep = rollout.Report{Running: r.spec.Previous, Healthy: true, Load: &r.load}
	what := m.what
	r.load = r.cost(what)
	switch {
	case what&runsNew != 0:
		rep.Running = r.spec.Digest
	case what&unused != 0:
		rep.Unused = true
		m.what &^= unused
	case what&asked == 0:
		rep.Nonce = "n"
	}
	if what&(broken|liar) == broken {
		rep.Denied = r.sc.kind == denies
		rep.Timeouts = r.sc.kind == slows && h%2 == 0
	}
	reply := r.apply(rollout.CheckIn, h)
	r.next(m, &reply)
}

// cost draws what running the provider costs a host.
func (r *run) cost(what uint16) rollout.Load {
	times := 1.0
	if what&(broken|liar) == broken && r.sc.kind == slows {
		times = 4
	}
	x := 0.5 + r.rng.ExpFloat64()/2
	return rollout.Load{CPU: 0.01 * x * times, Memory: 150e6 * (0.9 + 0.1*x), Latency: 0.002 * x * times}
}

// eachTurn: hosts up to this ring check in at each turn; those of later rings, of which there are enough, only when
// that can change something.
const eachTurn = 3

// next decides when the host checks in again, after what it was told.
func (r *run) next(m *machine, reply *rollout.Reply) {
	seconds := func(d time.Duration) uint32 { return uint32(d / time.Second) }
	wait := seconds(reply.Wait)
	soon := r.t + wait - r.rng.Uint32N(wait/10+1)
	switch phase := rollout.Phase(m.phase); {
	case reply.Do == rollout.RollBack:
		m.what &^= runsNew
		m.ask = soon
	case reply.Do == rollout.Activate && m.what&skewed != 0:
		m.what |= unused | asked
		m.ask = soon
	case reply.Do == rollout.Activate:
		m.what |= runsNew
		r.granted++
		m.ask = soon
		if r.doom(m) <= r.t {
			r.harm(m)
		}
	case r.halted != never && m.what&runsNew == 0:
		m.ask = never
	case phase == rollout.Soaking && m.ring > eachTurn:
		m.ask = max(m.soaking+seconds(r.numbers.Soak), r.t) + 1 + r.rng.Uint32N(wait)
	case phase == rollout.Confirmed:
		m.ask = never
	case phase == rollout.Pending && int(m.ring) == r.plan.Control() && r.state.Open < r.plan.Control():
		m.ask = r.t + seconds(min(r.numbers.Soak, time.Hour)) + r.rng.Uint32N(wait)
	case phase == rollout.Pending && m.what&asked != 0:
		m.ask = never
	default:
		m.ask = soon
	}
	if phase := rollout.Phase(m.phase); phase == rollout.Soaking && m.what&broken != 0 && m.ring > eachTurn {
		m.ask = soon // it has something to tell
	}
}

// apply is one call of the controller.
func (r *run) apply(kind rollout.Kind, h uint32) rollout.Reply {
	in := &r.in
	in.Kind = kind
	if h != never {
		m := &r.hosts[h]
		in.Host.ID = ""
		if kind != rollout.CheckIn || r.notable(&in.Report) {
			in.Host.ID = name(h) // otherwise nobody would read it: evidence names who has something to tell
		}
		in.Host.Row = m.row()
		if m.due != 0 && kind == rollout.Lapse {
			// The check-ins that were left out moved it.
			in.Host.Row.Due = min(in.Host.Row.Due, time.Duration(r.t)*time.Second)
		}
	}
	e := r.state.Apply(r.start.Add(time.Duration(r.t)*time.Second), in)
	r.out.Inputs++
	if len(e.Acts) > 0 {
		r.acts = append(r.acts, e.Acts...)
	}
	if e.Store {
		m := &r.hosts[h]
		m.keep(&e.Row, r.watched)
		r.touch(h, m)
	}
	return e.Reply
}

// notable reports whether a host says more than that it is there.
func (r *run) notable(rep *rollout.Report) bool {
	return len(rep.Incidents) > 0 || rep.Denied || rep.Timeouts || rep.Vital
}
