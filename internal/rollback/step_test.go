package rollback_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/keepout-security/keepout/internal/rollback"
)

// digest makes a well-formed digest from one letter.
func digest(letter string) rollback.Digest { return rollback.Digest(strings.Repeat(letter, 64)) }

func version(label, letter string) rollback.Version {
	return rollback.Version{Label: label, Digest: digest(letter)}
}

// host feeds one provider's state and remembers the effects.
type host struct {
	t   *testing.T
	c   rollback.Config
	now time.Time
	s   rollback.State
	out []rollback.Effect
}

// newHost has engine 1.0 (a) and content 4.1 (b) from the installation.
func newHost(t *testing.T) *host {
	t.Helper()
	h := &host{t: t, c: rollback.Defaults(), now: time.Unix(1_000_000, 0).UTC(), s: rollback.New("acme-edr")}
	h.in(rollback.Input{Kind: rollback.Installed, Part: rollback.Engine, Version: version("1.0", "a")})
	h.in(rollback.Input{Kind: rollback.Installed, Part: rollback.Content, Version: version("4.1", "b")})
	return h
}

func (h *host) in(in rollback.Input) []rollback.Effect {
	h.t.Helper()
	before := fmt.Sprintf("%+v", h.s)
	next, out := h.s.Next(h.c, h.now, in)
	if after := fmt.Sprintf("%+v", h.s); before != after {
		h.t.Fatalf("Next changed the state it was called on:\n%s\n%s", before, after)
	}
	h.s, h.out = next, append(h.out, out...)
	if err := h.s.Check(); err != nil {
		h.t.Fatal(err)
	}
	return out
}

// run lets the provider serve for d, in steps.
func (h *host) run(d time.Duration) {
	h.t.Helper()
	for step := h.c.Gap; d > 0; d -= step {
		h.now = h.now.Add(min(step, d))
		h.in(rollback.Input{Kind: rollback.Tick, Serving: true})
	}
}

func (h *host) trial(kind rollback.Kind, ok bool, cause string) []rollback.Effect {
	h.t.Helper()
	t := h.s.Trial
	return h.in(rollback.Input{Kind: kind, Part: t.Part, Digest: t.Digest, OK: ok, Cause: cause})
}

func (h *host) compare(samples, differing uint64) []rollback.Effect {
	h.t.Helper()
	t := h.s.Trial
	return h.in(rollback.Input{
		Kind: rollback.Compared, Part: t.Part, Digest: t.Digest, Samples: samples, Differing: differing,
	})
}

// promote takes a version through a good trial.
func (h *host) promote(p rollback.Part, v rollback.Version) {
	h.t.Helper()
	h.in(rollback.Input{Kind: rollback.Offered, Part: p, Version: v})
	h.ready()
	h.compare(5000, 1)
	h.run(h.c.Settle + h.c.TrialMin)
	if got := h.s.Slots(p).Active.Digest; got != v.Digest {
		h.t.Fatalf("after a good trial %s %s is active, want %s", p, got.Short(), v)
	}
}

// ready takes the candidate on trial to where only agreement is missing.
func (h *host) ready() {
	h.t.Helper()
	for _, k := range []rollback.Kind{rollback.Checked, rollback.Loaded, rollback.SelfTested, rollback.Measured} {
		h.trial(k, true, "")
	}
}

func (h *host) crash(n int, every time.Duration) (out []rollback.Effect) {
	h.t.Helper()
	for i := range n {
		if i > 0 {
			h.now = h.now.Add(every)
		}
		out = append(out, h.in(rollback.Input{Kind: rollback.Crashed, Cause: "signal 11"})...)
	}
	return out
}

func find(out []rollback.Effect, act rollback.Act) (rollback.Effect, bool) {
	for _, e := range out {
		if e.Act == act {
			return e, true
		}
	}
	return rollback.Effect{}, false
}

func (h *host) want(p rollback.Part, active, lkg string) {
	h.t.Helper()
	sl := h.s.Slots(p)
	if sl.Active.String() != active || sl.LKG.String() != lkg {
		h.t.Errorf("%s: active %s, lkg %s; want %s, %s", p, sl.Active, sl.LKG, active, lkg)
	}
}

func TestInstallation(t *testing.T) {
	h := newHost(t)
	h.want(rollback.Engine, "1.0", "none")
	h.want(rollback.Content, "4.1", "none")
	if !h.s.Runnable() {
		t.Fatal("what was installed does not run")
	}
	// A newer installation is a candidate like any other; the old one goes on.
	h.in(rollback.Input{Kind: rollback.Installed, Part: rollback.Engine, Version: version("1.1", "c")})
	h.want(rollback.Engine, "1.0", "none")
	if h.s.Engine.Candidate.String() != "1.1" || h.s.Engine.Factory.String() != "1.1" {
		t.Errorf("engine is %+v", h.s.Engine)
	}
}

func TestRollbackNamesItsCause(t *testing.T) {
	h := newHost(t)
	h.promote(rollback.Engine, version("1.1", "c"))
	h.run(time.Hour)
	h.promote(rollback.Content, version("4.2", "d"))
	out := h.crash(3, 30*time.Second)
	e, ok := find(out, rollback.RollBack)
	if !ok || e.Part != rollback.Content || e.From.Label != "4.2" || e.Version.Label != "4.1" {
		t.Fatalf("effects %+v, want content 4.2→4.1", out)
	}
	n, _ := find(out, rollback.Notify)
	if want := "acme-edr content 4.2→4.1: 3 crashes in 60s"; n.Problem.Title != want || n.Problem.Code != "KO-1704" {
		t.Errorf("problem %+v, want %q", n.Problem, want)
	}
	if out[len(out)-1].Act == rollback.Keep || out[2].Act != rollback.Keep {
		t.Errorf("Keep does not come first: %+v", out)
	}
	h.want(rollback.Engine, "1.1", "none")
	h.want(rollback.Content, "4.1", "4.1") // it had served more than an hour when 4.2 took over

	// Refused for good, until an operator says otherwise.
	again := h.in(rollback.Input{Kind: rollback.Offered, Part: rollback.Content, Version: version("4.2", "d")})
	if r, ok := find(again, rollback.Refuse); !ok || r.Cause != "3 crashes in 60s" || !h.s.Content.Candidate.None() {
		t.Errorf("offered again: %+v", again)
	}
	// The engine goes next, then there is nothing left.
	if e, _ := find(h.crash(3, time.Second), rollback.RollBack); e.Part != rollback.Engine || e.Version.Label != "1.0" {
		t.Errorf("second rollback %+v, want the engine's", e)
	}
	out = h.crash(3, time.Second)
	if e, ok := find(out, rollback.Isolate); !ok || e.Cause != "3 crashes in 2s" || h.s.Runnable() {
		t.Errorf("third: %+v, want quarantine", out)
	}
	if problems := h.s.Problems(); len(problems) != 2 || problems[0].Code != "KO-1705" {
		t.Errorf("problems %+v", problems)
	}
	h.in(rollback.Input{Kind: rollback.Allow, Part: rollback.Content, Digest: digest("d")})
	h.in(rollback.Input{Kind: rollback.Offered, Part: rollback.Content, Version: version("4.2", "d")})
	if h.s.Content.Candidate.String() != "4.2" {
		t.Error("an operator's word does not count")
	}
}

func TestTriggers(t *testing.T) {
	for name, c := range map[string]struct {
		act   func(h *host)
		cause string // of the rollback; "" for none
	}{
		"two crashes": {func(h *host) { h.crash(2, time.Second) }, ""},
		"three, far apart": {func(h *host) {
			h.crash(1, 0)
			h.run(5 * time.Minute)
			h.crash(1, 0)
			h.run(5 * time.Minute)
			h.crash(1, 0)
		}, ""},
		"breaker, short":      {func(h *host) { h.breaker(9 * time.Second) }, ""},
		"breaker, stays open": {func(h *host) { h.breaker(10 * time.Second) }, "breaker open for 10s"},
		"deny storm": {func(h *host) {
			h.in(rollback.Input{Kind: rollback.DenyStorm, Cause: "40 files of dpkg in 2s"})
		}, "deny storm: 40 files of dpkg in 2s"},
		"a crash of what ran before": {func(h *host) {
			for range 3 {
				h.in(rollback.Input{Kind: rollback.Crashed, Generation: h.s.Generation - 1})
			}
		}, ""},
		"operator": {func(h *host) { h.in(rollback.Input{Kind: rollback.RollBackNow}) }, "by an operator"},
		"lost": {func(h *host) {
			h.in(rollback.Input{Kind: rollback.Lost, Part: rollback.Content, Digest: digest("d"), Cause: "is damaged"})
		}, "is damaged"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.promote(rollback.Content, version("4.2", "d"))
			h.out = nil
			c.act(h)
			e, ok := find(h.out, rollback.RollBack)
			if ok != (c.cause != "") || e.Cause != c.cause {
				t.Errorf("rollback %v with cause %q, want %q", ok, e.Cause, c.cause)
			}
		})
	}
}

// breaker opens it for d.
func (h *host) breaker(d time.Duration) {
	h.t.Helper()
	h.in(rollback.Input{Kind: rollback.BreakerOpened})
	for end := h.now.Add(d); h.now.Before(end); {
		h.now = h.now.Add(time.Second)
		h.in(rollback.Input{Kind: rollback.Tick, Serving: true})
	}
	h.in(rollback.Input{Kind: rollback.BreakerClosed})
}

func TestTrial(t *testing.T) {
	limit := func(h *host) { h.run(h.c.TrialLimit) }
	for name, c := range map[string]struct {
		act    func(h *host)
		active string
		cause  string // of a refusal
	}{
		"good":      {func(h *host) { h.ready(); h.compare(1000, 5); h.run(h.c.TrialMin) }, "4.2", ""},
		"too early": {func(h *host) { h.ready(); h.compare(1000, 5); h.run(h.c.TrialMin - time.Second) }, "4.1", ""},
		"too few":   {func(h *host) { h.ready(); h.compare(999, 0); h.run(29 * time.Minute) }, "4.1", ""},
		"idle host": {func(h *host) { h.ready(); h.run(30 * time.Minute) }, "4.2", ""},
		"disagrees": {
			func(h *host) { h.ready(); h.compare(1000, 6) }, "4.1",
			"disagrees on 6 objects in 1000 events (limit 0.5 %, at least 3)",
		},
		"disagrees, idle host": {
			func(h *host) { h.ready(); h.compare(10, 4); h.run(30 * time.Minute) }, "4.1",
			"disagrees on 4 objects in 10 events (limit 0.5 %, at least 3)",
		},
		"does not load": {
			func(h *host) { h.trial(rollback.Checked, false, "21 fields, 20 given") }, "4.1",
			"does not load: 21 fields, 20 given",
		},
		"fails its self-test": {func(h *host) {
			h.trial(rollback.Checked, true, "")
			h.trial(rollback.SelfTested, false, "")
		}, "4.1", "fails its self-test"},
		"too slow": {
			func(h *host) { h.ready(); h.trial(rollback.Measured, false, "p99 80ms") }, "4.1",
			"does not meet its budget: p99 80ms",
		},
		"crashes": {
			func(h *host) { h.ready(); h.trial(rollback.BesideEnded, false, "signal 11") }, "4.1",
			"crashed on trial: signal 11",
		},
		"never ready": {func(h *host) {
			h.trial(rollback.Checked, true, "")
			h.trial(rollback.Loaded, true, "")
			limit(h)
		}, "4.1", "after 2h still no self-test, budget not met"},
		"never checked": {limit, "4.1", "after 2h still not checked"},
		"withdrawn": {func(h *host) {
			h.ready()
			h.in(rollback.Input{Kind: rollback.Withdrawn, Part: rollback.Content, Digest: digest("d")})
		}, "4.1", ""},
		"an operator does not wait": {func(h *host) {
			h.ready()
			h.in(rollback.Input{Kind: rollback.Promote, Part: rollback.Content})
		}, "4.2", ""},
		"an operator cannot skip the self-test": {func(h *host) {
			h.trial(rollback.Checked, true, "")
			h.trial(rollback.Loaded, true, "")
			h.in(rollback.Input{Kind: rollback.Promote, Part: rollback.Content})
		}, "4.1", ""},
		"results before it runs count nothing": {func(h *host) {
			h.trial(rollback.Loaded, true, "")
			h.trial(rollback.SelfTested, true, "")
			h.trial(rollback.Measured, true, "")
			h.compare(1000, 0)
			h.trial(rollback.Checked, true, "")
			h.run(30 * time.Minute)
		}, "4.1", ""},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.run(time.Hour)
			out := h.in(rollback.Input{Kind: rollback.Offered, Part: rollback.Content, Version: version("4.2", "d")})
			if e, ok := find(out, rollback.Check); !ok || e.Version.Label != "4.2" {
				t.Fatalf("an offer has the effects %+v, want Check", out)
			}
			h.out = nil
			c.act(h)
			if got := h.s.Content.Active.String(); got != c.active {
				t.Errorf("active is %s, want %s", got, c.active)
			}
			e, refused := find(h.out, rollback.Refuse)
			if refused != (c.cause != "") || e.Cause != c.cause {
				t.Errorf("refused %v: %q, want %q", refused, e.Cause, c.cause)
			}
			_, isBeside := find(h.out, rollback.StartBeside)
			if _, stopped := find(h.out, rollback.StopBeside); isBeside && !stopped && (refused || c.active == "4.2") {
				t.Error("the process beside is not ended")
			}
		})
	}
}

func TestOneCandidateAtATime(t *testing.T) {
	h := newHost(t)
	h.run(time.Hour)
	h.in(rollback.Input{Kind: rollback.Offered, Part: rollback.Content, Version: version("4.2", "d")})
	h.now = h.now.Add(time.Second)
	h.in(rollback.Input{Kind: rollback.Offered, Part: rollback.Engine, Version: version("1.1", "c")})
	if h.s.Trial.Part != rollback.Content {
		t.Fatalf("on trial: %+v, want the content, which came first", h.s.Trial)
	}
	h.ready()
	h.compare(1000, 0)
	h.run(h.c.TrialMin)
	h.want(rollback.Content, "4.2", "4.1")
	if h.s.Trial.Part != rollback.Engine {
		t.Fatalf("on trial: %+v, want the engine", h.s.Trial)
	}
	h.ready()
	h.compare(1000, 0)
	h.run(h.c.Settle - 10*time.Second)
	h.want(rollback.Engine, "1.0", "none") // not within ten minutes of the content's change
	h.run(time.Minute)
	h.want(rollback.Engine, "1.1", "1.0")
}

func TestRollbackRestartsATrial(t *testing.T) {
	h := newHost(t)
	h.promote(rollback.Content, version("4.2", "d"))
	h.in(rollback.Input{Kind: rollback.Offered, Part: rollback.Engine, Version: version("1.1", "c")})
	h.ready()
	h.compare(900, 0)
	out := h.crash(3, time.Second)
	if _, ok := find(out, rollback.StartBeside); !ok || h.s.Trial.Samples != 0 || h.s.Engine.Attempts != 1 {
		t.Errorf("effects %+v, trial %+v: it goes on against what is no longer active", out, h.s.Trial)
	}
}

func TestSoak(t *testing.T) {
	h := newHost(t)
	h.promote(rollback.Content, version("4.2", "d"))
	h.run(23 * time.Hour)
	h.crash(1, 0)
	h.run(23 * time.Hour)
	h.want(rollback.Content, "4.2", "none") // the crash starts it anew
	// Time in which the platform did not run, or the provider did not serve, proves nothing.
	h.now = h.now.Add(1000 * time.Hour)
	h.in(rollback.Input{Kind: rollback.Restarted})
	h.in(rollback.Input{Kind: rollback.Tick})
	h.now = h.now.Add(time.Minute)
	h.in(rollback.Input{Kind: rollback.Tick})
	h.want(rollback.Content, "4.2", "none")
	h.run(time.Hour + 2*time.Minute)
	h.want(rollback.Content, "4.2", "4.2")
	// Proven: a crash loop is not its change's fault any more.
	if e, _ := find(h.crash(3, time.Second), rollback.Isolate); e.Cause != "3 crashes in 2s" {
		t.Errorf("effect %+v, want quarantine", e)
	}
}

func TestSupersededContentIsKept(t *testing.T) {
	h := newHost(t)
	for i, letter := range []string{"1", "2", "3", "4"} { // every two hours, as signatures come
		h.run(2 * time.Hour)
		h.promote(rollback.Content, version(strconv.Itoa(5+i), letter))
	}
	h.want(rollback.Content, "8", "7")
}

func TestQuarantine(t *testing.T) {
	h := newHost(t)
	h.run(25 * time.Hour)
	want := time.Minute
	for range 8 {
		h.out = nil
		h.crash(3, time.Second)
		if h.s.Quarantine.Until-h.s.Clock != want {
			t.Fatalf("waits %v, want %v", h.s.Quarantine.Until-h.s.Clock, want)
		}
		h.out = nil
		h.run(want - time.Second)
		if _, ok := find(h.out, rollback.Release); ok {
			t.Fatal("released too early")
		}
		h.run(time.Second)
		if _, ok := find(h.out, rollback.Release); !ok {
			t.Fatal("not released in time")
		}
		want = min(2*want, time.Hour)
	}
	h.run(h.c.Calm + time.Minute)
	h.crash(3, time.Second)
	if h.s.Quarantine.Until-h.s.Clock != time.Minute {
		t.Error("an hour of calm does not shorten the wait")
	}
	// A version that works ends it, without a comparison that is not possible.
	h.in(rollback.Input{Kind: rollback.Offered, Part: rollback.Engine, Version: version("1.1", "c")})
	h.ready()
	if !h.s.Runnable() || h.s.Engine.Active.Label != "1.1" {
		t.Errorf("state %+v", h.s)
	}
}

func TestLost(t *testing.T) {
	h := newHost(t)
	h.run(25 * time.Hour)
	h.promote(rollback.Content, version("4.2", "d"))
	lose := func(letter string) {
		h.in(rollback.Input{Kind: rollback.Lost, Part: rollback.Content, Digest: digest(letter), Cause: "is missing"})
	}
	lose("b")
	h.want(rollback.Content, "4.2", "none") // both lkg and factory
	lose("d")
	if h.s.Runnable() || !h.s.Content.Missing {
		t.Fatalf("runs without content: %+v", h.s.Content)
	}
	h.run(100 * time.Hour)
	if h.s.Runnable() {
		t.Fatal("released with nothing to run")
	}
	// Installed again: not refused, for it did nothing wrong.
	h.in(rollback.Input{Kind: rollback.Installed, Part: rollback.Content, Version: version("4.1", "b")})
	if !h.s.Runnable() {
		t.Errorf("state %+v", h.s)
	}
}

func TestNothingIsTriedWithoutItsOtherPart(t *testing.T) {
	h := newHost(t)
	h.in(rollback.Input{Kind: rollback.Lost, Part: rollback.Content, Digest: digest("b")})
	out := h.in(rollback.Input{Kind: rollback.Offered, Part: rollback.Engine, Version: version("1.1", "c")})
	if _, ok := find(out, rollback.Check); ok {
		t.Fatalf("an engine is tried without content: %+v", out)
	}
	h.now = h.now.Add(time.Second)
	h.in(rollback.Input{Kind: rollback.Offered, Part: rollback.Content, Version: version("4.2", "d")})
	h.ready()
	h.want(rollback.Content, "4.2", "none") // at once: there was nothing to compare with
	if h.s.Trial.Part != rollback.Engine || !h.s.Runnable() {
		t.Errorf("state %+v", h.s)
	}
}

func TestTrialsThatEndWithThePlatform(t *testing.T) {
	h := newHost(t)
	h.in(rollback.Input{Kind: rollback.Offered, Part: rollback.Content, Version: version("4.2", "d")})
	for i := range 3 {
		if h.s.Content.Candidate.None() {
			t.Fatalf("refused after %d", i)
		}
		h.ready()
		h.in(rollback.Input{Kind: rollback.Stopping}) // in order: does not count
		h.in(rollback.Input{Kind: rollback.Restarted})
		h.ready()
		h.in(rollback.Input{Kind: rollback.Restarted}) // the power was cut
	}
	if r, ok := h.s.Content.Refusal(digest("d")); !ok || r.Cause != "3 trials ended with the platform" {
		t.Errorf("refusal %+v", r)
	}
}

func TestOperatorGoesBackFromProven(t *testing.T) {
	h := newHost(t)
	h.promote(rollback.Content, version("4.2", "d"))
	h.run(25 * time.Hour)
	h.want(rollback.Content, "4.2", "4.2")
	h.in(rollback.Input{Kind: rollback.RollBackNow, Part: rollback.Content, Cause: "false positives"})
	h.want(rollback.Content, "4.1", "none")
	if h.s.Last.Cause != "by an operator: false positives" {
		t.Errorf("last rollback %+v", h.s.Last)
	}
	out := h.in(rollback.Input{Kind: rollback.RollBackNow, Part: rollback.Content})
	if n, _ := find(out, rollback.Notify); n.Problem.Code != "KO-1707" {
		t.Errorf("effects %+v, want that there is nothing", out)
	}
}

// TestOrderNamesAVersion: an order goes to the version that it names, also to one that is in no slot, when what is
// active has become last-known-good itself; never to one that was refused, and nothing but an order goes to what ran
// before.
func TestOrderNamesAVersion(t *testing.T) {
	for name, c := range map[string]struct {
		named  rollback.Version
		active string
	}{
		"none: what ran before":   {rollback.Version{}, "4.2"},
		"what ran before":         {rollback.Version{Digest: digest("d")}, "4.2"},
		"with the installation":   {rollback.Version{Digest: digest("b")}, "4.1"},
		"one that was brought":    {version("4.0", "9"), "4.0"},
		"what is active":          {version("4.3", "e"), "4.3"},
		"one that was refused":    {version("3.9", "8"), "4.3"},
		"one without a digest":    {rollback.Version{Label: "4.0", Digest: "x"}, "4.2"},
		"what is still candidate": {version("4.4", "7"), "4.4"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.in(rollback.Input{Kind: rollback.Offered, Part: rollback.Content, Version: version("3.9", "8")})
			h.trial(rollback.Checked, false, "it does not load")
			h.promote(rollback.Content, version("4.2", "d"))
			h.run(25 * time.Hour)
			h.promote(rollback.Content, version("4.3", "e"))
			h.run(25 * time.Hour)
			h.want(rollback.Content, "4.3", "4.3")
			h.in(rollback.Input{Kind: rollback.Offered, Part: rollback.Content, Version: version("4.4", "7")})
			out := h.in(rollback.Input{
				Kind: rollback.RollBackNow, Part: rollback.Content, Version: c.named, Cause: "the rollout was halted",
			})
			if got := h.s.Content.Active.Label; got != c.active {
				t.Fatalf("active is %s, want %s", got, c.active)
			}
			e, ok := find(out, rollback.RollBack)
			_, bad := h.s.Content.Refusal(digest("e"))
			if ok != (c.active != "4.3") || bad != ok || ok && e.Version.Label != c.active {
				t.Errorf("effects %+v; what was left is refused: %v", out, bad)
			}
		})
	}
	h := newHost(t)
	h.promote(rollback.Content, version("4.2", "d"))
	h.run(25 * time.Hour)
	h.promote(rollback.Content, version("4.3", "e"))
	h.run(25 * time.Hour)
	for range 3 {
		h.in(rollback.Input{Kind: rollback.Crashed})
	}
	h.want(rollback.Content, "4.3", "4.3")
	if h.s.Quarantine.Cause == "" || h.s.Content.Former.Label != "4.2" {
		t.Errorf("quarantine %+v, before that ran %s", h.s.Quarantine, h.s.Content.Former)
	}
	h.in(rollback.Input{Kind: rollback.Lost, Part: rollback.Content, Digest: digest("d"), Cause: "is damaged"})
	if !h.s.Content.Former.None() {
		t.Errorf("lost, and still in a slot: %s", h.s.Content.Former)
	}
}

func TestRemoved(t *testing.T) {
	h := newHost(t)
	h.in(rollback.Input{Kind: rollback.Offered, Part: rollback.Content, Version: version("4.2", "d")})
	h.ready()
	out := h.in(rollback.Input{Kind: rollback.Removed})
	if _, ok := find(out, rollback.StopBeside); !ok || len(h.s.Digests()) != 0 {
		t.Errorf("left: %+v after %+v", h.s, out)
	}
}
