package rollout

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"
)

// steps is how many steps TestAnySchedule takes at least.
const steps = 1_000_000

// machine is a host as it really is: what it runs, and which grant it holds.
type machine struct {
	host  Host   // Row is what is stored
	runs  bool   // the release
	holds bool   // a grant was sent to it; it may use it
	lost  bool   // it says nothing any more
	tries bool   // it used its grant, and looks at the release before it runs it
	tried bool   // it ran the release once, and went back by itself
	moved bool   // it ran the release once, and runs a newer one
	nonce string // of its last check-in: a reply to an earlier one is worth nothing to it
}

// world is a rollout, its fleet and its store. The controller dies now and then; the store does not.
type world struct {
	t      *testing.T
	rng    *rand.Rand
	now    time.Time
	all    []machine
	state  State
	stored []byte
	dirty  map[int]Row // rows not stored yet
	unsent []func()    // what hosts will hear once it is
	epoch  uint64
	count  map[string]int
}

func newWorld(t *testing.T, seed uint64, count map[string]int) *world {
	t.Helper()
	w := &world{
		t: t, rng: rand.New(rand.NewPCG(seed, 1)), now: time.Unix(1_700_000_000, 0).UTC(), count: count, dirty: map[int]Row{},
	}
	hosts := 2 + w.rng.IntN(120)
	for i := range hosts {
		h := Host{ID: fmt.Sprint("h", i), Stratum: fmt.Sprint("s", w.rng.IntN(4)), Customer: fmt.Sprint("c", w.rng.IntN(3))}
		if w.rng.IntN(20) == 0 {
			h.Pin = []Pin{First, Last, Never, Previous}[w.rng.IntN(4)]
		}
		w.all = append(w.all, machine{host: h})
	}
	spec := testSpec()
	spec.Emergency = w.rng.IntN(3) == 0
	spec.Reason = "a reason"
	n := Defaults()
	n.First, n.Growth = 1+w.rng.IntN(6), 2+w.rng.IntN(7)
	n.Soak = time.Duration(1+w.rng.IntN(10)) * time.Minute
	n.ControlMin = w.rng.IntN(10)
	n.Acks = w.rng.Float64() / 2
	n.Crowd = w.rng.IntN(hosts)
	if w.rng.IntN(2) == 0 {
		n.Alpha, n.Rare = 1e-300, 1e-300 // nothing ever halts: the rings must hold by W alone
	}
	plan, err := Draw(spec.Seed, n, hostsOf(w.all))
	if err != nil {
		return nil
	}
	for i := range plan.Rings {
		plan.Rings[i].W = 1 + w.rng.IntN(plan.Rings[i].W)
	}
	if w.state, err = New(spec, n, plan); err != nil {
		t.Fatal(err)
	}
	w.store()
	return w
}

func hostsOf(all []machine) func(func(Host) bool) {
	return func(yield func(Host) bool) {
		for i := range all {
			if !yield(all[i].host) {
				return
			}
		}
	}
}

// store commits; only then do hosts hear.
func (w *world) store() {
	var err error
	if w.stored, err = json.Marshal(&w.state); err != nil {
		w.t.Fatal(err)
	}
	for i, r := range w.dirty {
		w.all[i].host.Row = r
	}
	clear(w.dirty)
	for _, send := range w.unsent {
		send()
	}
	w.unsent = nil
}

// die loses what was not stored, and another controller takes over.
func (w *world) die() {
	w.count["controller died"]++
	clear(w.dirty)
	w.unsent = nil
	w.state = State{}
	if err := json.Unmarshal(w.stored, &w.state); err != nil {
		w.t.Fatal(err)
	}
	w.epoch++
	w.step(&Input{Kind: TakeOver, Epoch: w.state.Epoch + 1}, -1)
}

func (w *world) row(i int) Row {
	if r, ok := w.dirty[i]; ok {
		return r
	}
	return w.all[i].host.Row
}

// step is one call of the controller, held against the rules.
func (w *world) step(in *Input, i int) {
	if i >= 0 {
		in.Host = w.all[i].host
		in.Host.Row = w.row(i)
	}
	e := w.state.Apply(w.now, in)
	w.count["steps"]++
	if e.Store {
		w.dirty[i] = e.Row
	}
	for _, a := range e.Acts {
		w.count[string(a.Kind)]++
	}
	if e.Reply.Do == Activate {
		w.granted(in, &e)
		m := &w.all[i]
		nonce := e.Reply.Grant.Nonce
		w.unsent = append(w.unsent, func() { m.holds = m.holds || m.nonce == nonce && w.rng.IntN(20) > 0 })
	}
	if e.Reply.Do == RollBack {
		m := &w.all[i]
		w.unsent = append(w.unsent, func() { m.runs, m.tries = false, false })
	}
}

// granted holds one grant against the rules.
func (w *world) granted(in *Input, e *Effects) {
	w.count["grants"]++
	s, g := &w.state, e.Reply.Grant
	c := s.Customers[in.Host.Customer]
	switch {
	case s.Status != Running && s.Status != Complete:
		w.t.Fatalf("granted while %s", s.Status)
	case c.Paused || frozen(c.Freeze, w.now):
		w.t.Fatal("granted though its customer wants no change")
	case e.Row.Ring > s.Open || e.Row.Ring < 0:
		w.t.Fatalf("granted in ring %d, open is %d", e.Row.Ring, s.Open)
	case in.Host.Pin == Never || (in.Host.Pin == Previous) != s.Behind:
		w.t.Fatalf("granted though pinned %q, superseded: %v", in.Host.Pin, s.Behind)
	case g.Nonce == "" || g.Nonce != in.Report.Nonce || g.Host != in.Host.ID || g.Digest != s.Spec.Digest:
		w.t.Fatalf("a grant for something else: %+v", g)
	case g.Lifetime > MaxGrantLife || g.Epoch != s.Epoch || g.Serial != s.Serial:
		w.t.Fatalf("a grant that is too good: %+v", g)
	}
}

// hold compares the counts with what hosts really do.
func (w *world) hold() {
	if err := w.state.Check(); err != nil {
		w.t.Fatal(err)
	}
	var really [maxRings]int
	for i := range w.all {
		m := &w.all[i]
		r := w.row(i)
		if (m.runs || m.holds || m.tries) && r.Phase != Confirmed && r.Phase != Foreign && r.Ring >= 0 && !r.WrittenOff {
			really[r.Ring]++
		}
	}
	for i := range w.state.Rings {
		r := &w.state.Rings[i]
		if allowed := w.state.Plan.Rings[i].W + r.Gone; really[i] > allowed {
			w.t.Fatalf("ring %d: %d hosts have the release and were not confirmed, allowed are %d: %+v",
				i, really[i], allowed, r)
		}
	}
}

// checkIn lets one host speak.
func (w *world) checkIn(i int) {
	m := &w.all[i]
	if m.lost && w.rng.IntN(50) > 0 {
		return
	}
	m.lost = false
	if m.holds && !m.runs && w.rng.IntN(4) > 0 {
		m.runs, m.holds, m.tried = true, false, false
		m.tries = w.rng.IntN(3) == 0
		m.runs = !m.tries
	}
	if m.tries && w.rng.IntN(10) == 0 { // its trial is over
		m.tries, m.runs = false, w.rng.IntN(3) > 0
		m.tried = !m.runs
	}
	rep := Report{Running: w.state.Spec.Previous, Healthy: w.rng.IntN(10) > 0}
	if w.state.Behind && m.runs && w.rng.IntN(30) == 0 {
		m.runs, m.moved = false, true
		w.count["moved"]++
	}
	switch {
	case m.moved:
		rep.Running = "sha256:newer"
	case m.runs && w.rng.IntN(60) == 0:
		m.runs, m.tried = false, true
	case m.runs:
		rep.Running = w.state.Spec.Digest
	case m.tries:
		rep.Trying = true
		w.count["tried"]++
	case m.tried:
	case m.holds && w.rng.IntN(10) == 0:
		rep.Unused, m.holds = true, false
	case w.rng.IntN(3) > 0:
		rep.Nonce, m.holds = strconv.Itoa(w.rng.Int()), false
	}
	m.nonce = rep.Nonce
	if w.rng.IntN(100) == 0 {
		rep.Incidents = []Incident{{Gate: Gate(w.rng.IntN(int(gates) + 1)), Signature: strconv.Itoa(w.rng.IntN(99))}}
	}
	rep.Denied, rep.Timeouts, rep.Vital = w.rng.IntN(90) == 0, w.rng.IntN(90) == 0, w.rng.IntN(5000) == 0
	if w.rng.IntN(3) == 0 {
		rep.Load = &Load{CPU: w.rng.Float64(), Memory: w.rng.Float64(), Latency: w.rng.Float64()}
	}
	w.step(&Input{Kind: CheckIn, Report: rep}, i)
}

// turn is one random thing.
func (w *world) turn() {
	i := w.rng.IntN(len(w.all))
	switch x := w.rng.IntN(1000); {
	case x < 700:
		w.checkIn(i)
	case x < 850:
		w.step(&Input{Kind: Lapse}, i)
	case x < 950:
		w.now = w.now.Add(time.Duration(w.rng.IntN(90)) * time.Second)
		w.step(&Input{Kind: Tick}, -1)
	case x < 960:
		w.all[i].lost = w.rng.IntN(2) == 0
	case x < 963:
		jump := []time.Duration{-24 * time.Hour, 10 * 365 * 24 * time.Hour, -10 * 365 * 24 * time.Hour}
		w.now = w.now.Add(jump[w.rng.IntN(3)])
	case x < 970:
		rep := Report{Incidents: []Incident{{Gate: Recovery, Signature: strconv.Itoa(i)}}}
		w.step(&Input{Kind: Beacon, Report: rep}, i)
	case x < 980:
		c := Customer{ID: fmt.Sprint("c", w.rng.IntN(3)), Paused: w.rng.IntN(4) == 0, MaxAge: time.Hour}
		if w.rng.IntN(4) == 0 {
			c.Freeze = []Window{{From: w.now, To: w.now.Add(20 * time.Minute)}}
		}
		w.step(&Input{Kind: SetCustomer, Customer: c}, -1)
	default:
		w.person(x)
	}
}

func (w *world) person(x int) {
	by := fmt.Sprint("p", w.rng.IntN(3))
	switch {
	case x < 984:
		w.step(&Input{Kind: Pause, By: by}, -1)
	case x < 990:
		w.step(&Input{Kind: Resume, By: by}, -1)
	case x < 996:
		w.step(&Input{Kind: Approve, By: by}, -1)
	case x < 998:
		w.step(&Input{Kind: TakeOver, Epoch: uint64(w.rng.IntN(3))}, -1)
	case w.rng.IntN(100) == 0:
		w.step(&Input{Kind: Supersede}, -1)
	case w.rng.IntN(20) == 0:
		w.step(&Input{Kind: Halt, By: by}, -1)
	}
}

// TestAnySchedule: whatever hosts, people, clocks and controllers do, W holds, in the counts and in the world, and
// nobody is granted who must not be.
func TestAnySchedule(t *testing.T) {
	t.Parallel()
	count := map[string]int{}
	for seed := uint64(1); count["steps"] < steps; seed++ {
		w := newWorld(t, seed, count)
		if w == nil {
			continue // everybody is pinned to never
		}
		for k := range 3000 {
			w.turn()
			if w.rng.IntN(100) == 0 {
				w.store()
				w.hold()
			}
			if w.rng.IntN(400) == 0 {
				w.die()
				w.hold()
			}
			if err := w.state.Check(); err != nil {
				t.Fatalf("seed %d, turn %d: %v", seed, k, err)
			}
		}
	}
	t.Log(count)
	for _, what := range []string{
		"grants", "controller died", "opened", "completed", "halted", "paused", "resumed", "aged", "refused", "tried",
		"moved",
	} {
		if count[what] == 0 {
			t.Errorf("%s never happened: the histories do not reach it", what)
		}
	}
}
