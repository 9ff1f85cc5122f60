package rollout

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

func testSpec() Spec {
	return Spec{
		ID: "r1", Provider: "acme-edr", Channel: Content, Digest: "sha256:new", Previous: "sha256:old", Release: 2,
		By: "ada", Seed: []byte("0123456789abcdef"), Known: []string{"known"},
	}
}

// bench is a small fleet that does as it is told.
type bench struct {
	t     *testing.T
	s     State
	now   time.Time
	hosts []Host
	runs  []bool
	quiet []bool                            // does not check in
	say   func(i int, runs bool, r *Report) // changes what a host says
	acts  []Act
	last  Effects
}

func newBench(t *testing.T, hosts int, change func(*Spec, *Numbers)) *bench {
	t.Helper()
	b := &bench{t: t, now: time.Unix(1_700_000_000, 0), runs: make([]bool, hosts), quiet: make([]bool, hosts)}
	for i := range hosts {
		b.hosts = append(b.hosts, Host{ID: fmt.Sprintf("h%d", i), Stratum: fmt.Sprintf("s%d", i%3)})
	}
	spec, n := testSpec(), Defaults()
	if change != nil {
		change(&spec, &n)
	}
	plan, err := Draw(spec.Seed, n, slices.Values(b.hosts))
	if err == nil {
		b.s, err = New(spec, n, plan)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// step is one input; i is the host that it is about, or -1.
func (b *bench) step(in Input, i int) Effects {
	b.t.Helper()
	if i >= 0 {
		in.Host = b.hosts[i]
	}
	next, e := b.s.Step(b.now, &in)
	if err := next.Check(); err != nil {
		b.t.Fatal(err)
	}
	b.s, b.last = next, e
	if e.Store {
		b.hosts[i].Row = e.Row
	}
	b.acts = append(b.acts, e.Acts...)
	return e
}

// minute lets every host check in once, and the silent ones lapse.
func (b *bench) minute() {
	b.t.Helper()
	b.now = b.now.Add(time.Minute)
	b.step(Input{Kind: Tick}, -1)
	for i := range b.hosts {
		if b.quiet[i] {
			b.step(Input{Kind: Lapse}, i)
			continue
		}
		r := Report{Running: b.s.Spec.Previous, Healthy: true, Nonce: b.now.String()}
		if b.runs[i] {
			r = Report{Running: b.s.Spec.Digest, Healthy: true}
		}
		if b.say != nil {
			b.say(i, b.runs[i], &r)
		}
		switch b.step(Input{Kind: CheckIn, Report: r}, i).Reply.Do {
		case Activate:
			b.runs[i] = true
		case RollBack:
			b.runs[i] = false
		case Stay:
		}
	}
}

// until lets minutes pass until the rollout has the status.
func (b *bench) until(want Status, minutes int) {
	b.t.Helper()
	for range minutes {
		if b.s.Status == want {
			return
		}
		b.minute()
	}
	b.t.Fatalf("after %d minutes it is %s, want %s; ring %d waits for %s",
		minutes, b.s.Status, want, b.s.Open, b.s.Waits())
}

func (b *bench) running() (n int) {
	for _, r := range b.runs {
		if r {
			n++
		}
	}
	return n
}

func TestHealthyReleaseReachesEverybody(t *testing.T) {
	t.Parallel()
	b := newBench(t, 200, nil)
	b.until(Complete, 400)
	if got := b.running(); got != len(b.hosts) {
		t.Errorf("%d of %d hosts run it", got, len(b.hosts))
	}
	if b.s.Rings[0].OpenedAt+b.s.Numbers.Soak > b.s.Rings[1].OpenedAt {
		t.Error("ring 1 opened before ring 0 had soaked")
	}
	x := b.s.Explain()
	if n := len(x.Rings); n != len(b.s.Rings) || x.Rings[0].Confirmed != x.Rings[0].Members ||
		x.Rings[n-1].Role != "control" {
		t.Errorf("the funnel does not say what happened: %+v", x.Rings)
	}
}

func TestNoDataNeverPromotes(t *testing.T) {
	t.Parallel()
	for name, quiet := range map[string]func(b *bench, i int) bool{
		"nobody speaks after the grant": func(b *bench, i int) bool { return b.runs[i] },
		"nobody speaks at all":          func(*bench, int) bool { return true },
		"no control group": func(b *bench, i int) bool {
			return b.hosts[i].Row.Known && b.hosts[i].Row.Ring == b.s.Plan.Control()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, 60, func(_ *Spec, n *Numbers) { n.Alpha, n.Rare, n.Cap = 1e-300, 1e-300, 1e9 })
			b.minute()
			for range 200 {
				for i := range b.quiet {
					b.quiet[i] = quiet(b, i)
				}
				b.minute()
			}
			if b.s.Open != 0 {
				t.Errorf("ring %d is open, status %s (%s)", b.s.Open, b.s.Status, b.s.Because)
			}
		})
	}
}

// TestGates: what the hosts that run the release say stops it, and why is told.
func TestGates(t *testing.T) {
	t.Parallel()
	incident := func(g Gate, signature string) func(int, bool, *Report) {
		return func(_ int, runs bool, r *Report) {
			if runs {
				r.Incidents = []Incident{{Gate: g, Signature: signature}}
			}
		}
	}
	heavy := func(set func(*Load)) func(int, bool, *Report) {
		return func(i int, runs bool, r *Report) {
			r.Load = &Load{CPU: 1 + float64(i%7)/10, Memory: 1 + float64(i%7)/10, Latency: 1 + float64(i%7)/10}
			if runs {
				set(r.Load)
			}
		}
	}
	for name, c := range map[string]struct {
		gate Gate
		want Status
		say  func(int, bool, *Report)
	}{
		"boot failure":   {Boot, Stopped, incident(Boot, "oops at x")},
		"recovery":       {Recovery, Stopped, incident(Recovery, "oops at x")},
		"crash":          {Crash, Stopped, incident(Crash, "segv at y")},
		"known crash":    {Crash, Stopped, incident(Crash, "known")},
		"watchdog":       {Watchdog, Stopped, incident(Watchdog, "stuck at z")},
		"late verdicts":  {Timeouts, Stopped, func(_ int, runs bool, r *Report) { r.Timeouts = runs }},
		"denials":        {Denials, Stopped, func(_ int, runs bool, r *Report) { r.Denied = runs }},
		"a new denial":   {Denials, Stopped, incident(Denials, "denies open by x")},
		"vital":          {Denials, Stopped, func(_ int, runs bool, r *Report) { r.Vital = runs }},
		"processor time": {CPU, OnHold, heavy(func(l *Load) { l.CPU *= 9 })},
		"memory":         {Memory, OnHold, heavy(func(l *Load) { l.Memory *= 9 })},
		"latency":        {Latency, OnHold, heavy(func(l *Load) { l.Latency *= 9 })},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, 1500, func(_ *Spec, n *Numbers) { n.Points = 40 })
			b.say = c.say
			b.until(c.want, 60)
			ev := b.s.Evidence
			if ev == nil || ev.Gate != c.gate || ev.Test == "" || b.s.Because == "" || b.s.Open != 0 {
				t.Fatalf("evidence %+v (%s) in ring %d, want gate %s in ring 0", ev, b.s.Because, b.s.Open, c.gate)
			}
			if b.running() > b.s.Plan.Rings[0].Members {
				t.Errorf("%d hosts run it", b.running())
			}
			for range 10 {
				b.minute()
			}
			if stopped := c.want == Stopped; stopped && b.running() > 0 {
				t.Errorf("after the halt %d hosts still run it", b.running())
			}
		})
	}
}

func TestSilenceHalts(t *testing.T) {
	t.Parallel()
	for _, hosts := range []int{20, 200, 2000} {
		b := newBench(t, hosts, nil)
		for k := 0; k < 20 && b.s.Status == Running || k == 0; k++ {
			copy(b.quiet, b.runs)
			b.minute()
		}
		if b.s.Status != Stopped || b.s.Evidence.Gate != Silence || b.s.Open != 0 {
			t.Errorf("%d hosts: %s in ring %d: %+v", hosts, b.s.Status, b.s.Open, b.s.Evidence)
		}
	}
}

// TestAlike: what happens to both sides alike stops nobody, and neither does what hosts did before.
func TestAlike(t *testing.T) {
	t.Parallel()
	for name, say := range map[string]func(i int, runs bool, r *Report){
		"everybody denies": func(_ int, _ bool, r *Report) { r.Denied, r.Timeouts = true, true },
		"known crashes":    func(i int, _ bool, r *Report) { r.Incidents = crashes(i%9 == 0, "known") },
		"known denials":    func(_ int, _ bool, r *Report) { r.Incidents = []Incident{{Gate: Denials, Signature: "known"}} },
		"all deny anew":    func(_ int, _ bool, r *Report) { r.Incidents = []Incident{{Gate: Denials, Signature: "new"}} },
		"one host denies":  func(i int, _ bool, r *Report) { r.Incidents, r.Denied = denials(i == 7), i == 7 },
		"one host crashes": func(i int, _ bool, r *Report) { r.Incidents = crashes(i == 7, "new") },
	} {
		b := newBench(t, 300, nil)
		b.say = say
		for range 100 {
			b.minute()
		}
		if b.s.Status == Stopped || b.s.Status == OnHold {
			t.Errorf("%s: %s: %s", name, b.s.Status, b.s.Because)
		}
	}
}

func denials(really bool) []Incident {
	if !really {
		return nil
	}
	return []Incident{{Gate: Denials, Signature: "new"}}
}

// TestDenialsDoNotKeepAHostFromSoaking: a provider is there to deny.
func TestDenialsDoNotKeepAHostFromSoaking(t *testing.T) {
	t.Parallel()
	b := newBench(t, 300, nil)
	b.say = func(_ int, _ bool, r *Report) { r.Incidents, r.Denied = denials(true), true }
	b.until(Complete, 400)
}

// TestTrialOnTheHost: a host that looks at the release for long before it runs it is neither lost nor failed, and a
// halt reaches it.
func TestTrialOnTheHost(t *testing.T) {
	t.Parallel()
	trying := func(b *bench) func(int, bool, *Report) {
		return func(_ int, runs bool, r *Report) {
			if runs && b.now.Sub(time.Unix(1_700_000_000, 0)) < time.Hour {
				r.Running, r.Trying = b.s.Spec.Previous, true
			}
		}
	}
	b := newBench(t, 60, nil)
	b.say = trying(b)
	for range 50 {
		b.minute()
	}
	r := &b.s.Rings[0]
	if r.Granted == 0 || r.Failed > 0 || r.Stuck > 0 || r.Confirmed > 0 || b.s.Open != 0 {
		t.Fatalf("after 50 minutes of trial: ring 0 %+v, open %d", r, b.s.Open)
	}
	b.until(Complete, 400)

	b = newBench(t, 60, nil)
	b.say = trying(b)
	for range 10 {
		b.minute()
	}
	tried := b.running()
	b.step(Input{Kind: Halt, By: "ada", Reason: "bad"}, -1)
	b.minute()
	if b.running() > 0 || tried == 0 {
		t.Errorf("of %d hosts that tried it, %d were not told of the halt", tried, b.running())
	}
}

func crashes(really bool, signature string) []Incident {
	if !really {
		return nil
	}
	return []Incident{{Gate: Crash, Signature: signature}}
}

func TestPeople(t *testing.T) {
	t.Parallel()
	refused := func(b *bench, in Input) {
		t.Helper()
		if e := b.step(in, -1); len(e.Acts) != 1 || e.Acts[0].Kind != Refused {
			t.Errorf("%+v: %+v, want it refused", in, e.Acts)
		}
	}
	b := newBench(t, 50, func(s *Spec, _ *Numbers) { s.Emergency, s.Reason = true, "everything burns" })
	b.minute()
	if b.s.Status != Draft || b.running() > 0 || b.last.Reply.Why != NotStarted {
		t.Fatalf("an emergency began with one person: %s, %s", b.s.Status, b.last.Reply.Why)
	}
	refused(b, Input{Kind: Approve, By: "ada"})
	refused(b, Input{Kind: Approve})
	b.step(Input{Kind: Approve, By: "grace"}, -1)
	b.minute()
	if b.s.Status != Running || b.s.Open != 0 || b.running() != b.s.Plan.Rings[0].Members {
		t.Fatalf("%s, ring %d, %d hosts: an emergency begins in ring 0", b.s.Status, b.s.Open, b.running())
	}
	refused(b, Input{Kind: Resume, By: "ada"})
	b.step(Input{Kind: Pause, By: "ada", Reason: "lunch"}, -1)
	for range 60 {
		b.minute()
	}
	if b.s.Open != 0 {
		t.Error("a ring opened during a pause")
	}
	b.step(Input{Kind: Resume, By: "ada"}, -1)
	b.minute()
	if b.s.Open != 1 {
		t.Errorf("ring %d after the pause: %s", b.s.Open, b.s.Waits())
	}
	b.step(Input{Kind: Halt, By: "joan", Reason: "no"}, -1)
	refused(b, Input{Kind: Resume, By: "ada"})
	b.minute()
	b.minute()
	if b.running() != 0 || b.s.Because != "joan: no" {
		t.Errorf("%d hosts run what %q stopped", b.running(), b.s.Because)
	}
}

func TestCustomers(t *testing.T) {
	t.Parallel()
	b := newBench(t, 60, nil)
	for i := range b.hosts {
		b.hosts[i].Customer = []string{"free", "paused", "frozen"}[i%3]
	}
	b.step(Input{Kind: SetCustomer, Customer: Customer{ID: "paused", Paused: true, MaxAge: time.Hour}}, -1)
	freeze := []Window{{From: b.now, To: b.now.Add(5 * time.Hour)}}
	b.step(Input{Kind: SetCustomer, Customer: Customer{ID: "frozen", Freeze: freeze}}, -1)
	for range 290 {
		b.minute()
	}
	for i, runs := range b.runs {
		if runs && i%3 != 0 {
			t.Fatalf("host %d of customer %s was activated", i, b.hosts[i].Customer)
		}
	}
	if b.running() == 0 {
		t.Fatal("nobody was activated")
	}
	aged := slices.DeleteFunc(slices.Clone(b.acts), func(a Act) bool { return a.Kind != Aged })
	if len(aged) != 1 || !strings.Contains(aged[0].Text, "paused has waited") {
		t.Errorf("acts of age: %+v, want one", aged)
	}
	for range 60 {
		b.minute()
	}
	if !b.runs[2] {
		t.Error("the freeze is over, and nobody of that customer was activated")
	}
}

func TestPins(t *testing.T) {
	t.Parallel()
	b := newBench(t, 60, nil)
	b.hosts[0].Pin, b.hosts[1].Pin, b.hosts[2].Pin, b.hosts[3].Pin = First, Last, Never, Previous
	b.minute()
	want := map[int]int{0: 0, 1: b.s.Plan.Control(), 2: -1}
	for i, ring := range want {
		if got := b.hosts[i].Row.Ring; got != ring {
			t.Errorf("pinned %s: ring %d, want %d", b.hosts[i].Pin, got, ring)
		}
	}
	b.until(Complete, 400)
	if b.runs[2] || b.runs[3] || !b.runs[0] || !b.runs[1] {
		t.Errorf("runs %v", b.runs[:4])
	}
	b.step(Input{Kind: Supersede}, -1)
	b.say = func(i int, runs bool, r *Report) { // who can, goes on to the newer one
		if i != 3 && runs {
			r.Running = "sha256:newer"
		}
	}
	for range 40 {
		b.minute()
	}
	if !b.runs[3] || b.runs[2] || b.s.Status != Complete {
		t.Errorf("a host pinned to N-1 gets a release when there is a newer one: it runs it: %v; it is %s, because of %s",
			b.runs[3], b.s.Status, b.s.Because)
	}
}

func TestClass(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		change    func(*Spec)
		schedule  string
		approvals int
	}{
		{func(*Spec) {}, Normal, 1},
		{func(s *Spec) { s.Channel = Engine }, Slow, 2},
		{func(s *Spec) { s.NewPath = true }, Slow, 2},
		{func(s *Spec) { s.Emergency, s.Reason = true, "x" }, Fast, 2},
	} {
		s := testSpec()
		c.change(&s)
		if err := s.Check(); err != nil || s.Schedule() != c.schedule || s.Approvals() != c.approvals {
			t.Errorf("%+v: schedule %s, %d approvals, %v", s, s.Schedule(), s.Approvals(), err)
		}
		if _, err := Schedule(s.Schedule()); err != nil {
			t.Error(err)
		}
	}
	for name, change := range map[string]func(*Spec){
		"no reason": func(s *Spec) { s.Emergency = true }, "no seed": func(s *Spec) { s.Seed = s.Seed[:8] },
		"no way back": func(s *Spec) { s.Previous = "" }, "nobody": func(s *Spec) { s.By = "" },
		"no channel": func(s *Spec) { s.Channel = "" },
	} {
		s := testSpec()
		change(&s)
		if s.Check() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestLostReply: a host that did not get its grant gets another one for the same room.
func TestLostReply(t *testing.T) {
	t.Parallel()
	b := newBench(t, 4, func(_ *Spec, n *Numbers) { n.First, n.ControlMin = 1, 0 })
	b.now = b.now.Add(time.Minute)
	b.step(Input{Kind: Tick}, -1)
	serials := map[uint64]bool{}
	for k := range 5 {
		for i := range b.hosts {
			ask := Report{Running: b.s.Spec.Previous, Healthy: true, Nonce: strconv.Itoa(k)}
			if e := b.step(Input{Kind: CheckIn, Report: ask}, i); e.Reply.Do == Activate {
				serials[e.Reply.Grant.Serial] = true
			}
		}
	}
	granted := b.s.Rings[0].Granted
	if granted == 0 || len(serials) != 5*granted {
		t.Errorf("%d grants for %d hosts", len(serials), granted)
	}
}

// TestTwoControllers: one that was overtaken cannot lead again.
func TestTwoControllers(t *testing.T) {
	t.Parallel()
	b := newBench(t, 9, nil)
	for _, c := range []struct {
		epoch uint64
		ok    bool
	}{{3, true}, {3, false}, {2, false}, {4, true}} {
		e := b.step(Input{Kind: TakeOver, Epoch: c.epoch}, -1)
		if ok := len(e.Acts) == 0 || e.Acts[0].Kind != Refused; b.s.Epoch == c.epoch && c.ok != ok {
			t.Errorf("epoch %d: taken %v, want %v", c.epoch, ok, c.ok)
		}
	}
	if b.s.Epoch != 4 {
		t.Errorf("epoch %d", b.s.Epoch)
	}
}

// TestCrashAnywhere: a controller that dies at any one step, before or after it stored it, does not change how it
// ends.
func TestCrashAnywhere(t *testing.T) {
	t.Parallel()
	play := func(crash int, after bool) (State, int, int) {
		b := newBench(t, 8, func(_ *Spec, n *Numbers) { n.Soak = time.Minute })
		stepped := 0
		for b.s.Status != Complete && stepped < 5000 {
			b.now = b.now.Add(20 * time.Second)
			b.step(Input{Kind: Tick}, -1)
			for i := range b.hosts {
				before := b.s
				row := b.hosts[i].Row
				r := Report{Running: b.s.Spec.Previous, Healthy: true, Nonce: strconv.Itoa(stepped)}
				if b.runs[i] {
					r = Report{Running: b.s.Spec.Digest, Healthy: true}
				}
				e := b.step(Input{Kind: CheckIn, Report: r}, i)
				stepped++
				if stepped == crash {
					if after {
						before, row = b.s, b.hosts[i].Row
					}
					text, err := json.Marshal(&before)
					if err != nil {
						t.Fatal(err)
					}
					b.s, b.hosts[i].Row = State{}, row // the reply is lost either way
					if err := json.Unmarshal(text, &b.s); err != nil {
						t.Fatal(err)
					}
					continue
				}
				b.runs[i] = b.runs[i] || e.Reply.Do == Activate
			}
		}
		return b.s, b.running(), stepped
	}
	s, _, all := play(0, false)
	if s.Status != Complete {
		t.Fatalf("without a crash: %s", s.Status)
	}
	for crash := 1; crash <= all; crash++ {
		for _, after := range []bool{false, true} {
			s, running, _ := play(crash, after)
			if s.Status != Complete || running != 8 {
				t.Fatalf("crash at step %d, stored %v: %s, %d hosts run it", crash, after, s.Status, running)
			}
		}
	}
}

// TestJSON: a state that was stored and read does the same as the one that was not.
func TestJSON(t *testing.T) {
	t.Parallel()
	b := newBench(t, 200, nil)
	for range 70 {
		b.minute()
		text, err := json.Marshal(&b.s)
		if err != nil {
			t.Fatal(err)
		}
		var read State
		if err := json.Unmarshal(text, &read); err != nil {
			t.Fatal(err)
		}
		a, _ := b.s.Step(b.now.Add(time.Minute), &Input{Kind: Tick})
		c, _ := read.Step(b.now.Add(time.Minute), &Input{Kind: Tick})
		x, _ := json.Marshal(&a)
		y, _ := json.Marshal(&c)
		if !bytes.Equal(x, y) {
			t.Fatalf("the read state does something else:\n%s\n%s", x, y)
		}
	}
}

// TestANewerReleaseIsNotThisOnes: hosts that take the release after this one have not gone back, and what that one does
// to them is no evidence against this one.
func TestANewerReleaseIsNotThisOnes(t *testing.T) {
	t.Parallel()
	const newer = "sha256:newer"
	crash := Incident{Gate: Crash, Signature: "new in the newer one", Release: newer}
	for name, reports := range map[string][]Report{
		"moves on":                {{Running: newer, Healthy: true}},
		"moves on and crashes":    {{Running: newer}, {Running: newer, Incidents: []Incident{crash}}},
		"crashes before it says":  {{Running: "sha256:new", Incidents: []Incident{crash}}},
		"went back and then says": {{Running: newer}, {Running: "sha256:new", Healthy: true, Incidents: []Incident{crash}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, 200, nil)
			b.until(Complete, 400)
			b.step(Input{Kind: Supersede}, -1)
			for i := range 20 {
				for _, r := range reports {
					if e := b.step(Input{Kind: CheckIn, Report: r}, i); e.Reply.Do != Stay {
						t.Fatalf("host %d is told to %s: %s", i, e.Reply.Do, e.Reply.Cause)
					}
				}
			}
			if b.s.Status != Complete {
				t.Errorf("it is %s because of %s", b.s.Status, b.s.Because)
			}
			// Its own trouble still counts.
			for i := 20; i < 40; i++ {
				own := Incident{Gate: Crash, Signature: "its own", Release: b.s.Spec.Digest}
				b.step(Input{Kind: CheckIn, Report: Report{Running: b.s.Spec.Digest, Incidents: []Incident{own}}}, i)
			}
			if b.s.Status != Stopped {
				t.Errorf("with twenty crashes of its own it is %s", b.s.Status)
			}
		})
	}
}
