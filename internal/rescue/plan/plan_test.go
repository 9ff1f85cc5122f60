package plan

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keepout-security/keepout/internal/boot"
)

var start = time.Unix(1_800_000_000, 0)

// visit plays one visit: each input at a time after the start; between them time passes second by second.
type visit struct {
	t       *testing.T
	now     time.Time
	state   State
	effects []Effect
}

func begin(t *testing.T, c Config, f Facts) *visit {
	t.Helper()
	v := &visit{t: t, now: start}
	v.state, v.effects = Begin(v.now, c, f)
	return v
}

func (v *visit) in(in Input) {
	v.t.Helper()
	var more []Effect
	v.state, more = v.state.Step(v.now, in)
	v.effects = append(v.effects, more...)
}

func (v *visit) pass(d time.Duration) {
	v.t.Helper()
	for end := v.now.Add(d); v.now.Before(end); {
		v.now = v.now.Add(time.Second)
		v.in(Input{})
	}
}

func (v *visit) wantActs(acts ...Act) {
	v.t.Helper()
	var got []Act
	for _, e := range v.effects {
		got = append(got, e.Act)
	}
	if !slices.Equal(got, acts) {
		v.t.Errorf("did %q, want %q (trouble: %s)", got, acts, v.state.Trouble)
	}
}

func (v *visit) wantPhase(p Phase) {
	v.t.Helper()
	if v.state.Phase != p {
		v.t.Errorf("in phase %q, want %q", v.state.Phase, p)
	}
}

var suspect = Facts{Suspect: boot.Crumb{Provider: "acme-av", Engine: "7.2"}, Visits: 1}

func TestAFixIsAppliedReportedAndTheMachineRestarts(t *testing.T) {
	t.Parallel()
	v := begin(t, Config{}, suspect)
	v.in(Input{Saved: &Saved{}})
	v.in(Input{Linked: &Linked{Address: "10.0.2.15"}})
	v.in(Input{Answered: &Answered{Kind: Fix, ID: "fix-7"}})
	v.in(Input{Applied: &Applied{}})
	v.in(Input{Reported: true})
	v.wantActs(Save, Connect, Ask, Apply, Report, Restart)
	if r := v.effects[3].Remedy; r.Source != Server || r.ID != "fix-7" {
		t.Errorf("applied %+v", r)
	}
}

func TestWithoutNetworkTheLocalRuleActs(t *testing.T) {
	t.Parallel()
	v := begin(t, Config{NetworkWait: 60 * time.Second}, suspect)
	v.in(Input{Saved: &Saved{}})
	v.pass(59 * time.Second)
	v.wantActs(Save, Connect)
	v.pass(time.Second)
	v.in(Input{Applied: &Applied{}})
	v.wantActs(Save, Connect, Apply, Restart) // there is nobody to report to
	if got := v.effects[2].Remedy.Orders.Disabled; !slices.Equal(got, []string{"acme-av"}) {
		t.Errorf("disabled %q", got)
	}
}

func TestTheServerIsAskedAtTheIntervalUntilTheTotalWait(t *testing.T) {
	t.Parallel()
	v := begin(t, Config{RetryInterval: 30 * time.Minute, TotalWait: 180 * time.Minute}, suspect)
	v.in(Input{Saved: &Saved{}})
	v.in(Input{Linked: &Linked{}})
	asked := 0
	for v.state.Phase != Applying && v.now.Sub(start) < 10*time.Hour {
		if v.state.Phase == Asking {
			asked++
			v.in(Input{Answered: &Answered{Kind: None}})
		}
		v.pass(time.Second)
	}
	if waited := v.now.Sub(start); asked < 6 || asked > 8 || waited < 180*time.Minute || waited > 185*time.Minute {
		t.Errorf("asked %d times in %v", asked, waited)
	}
}

func TestOneScan(t *testing.T) {
	t.Parallel()
	for kind, phase := range map[Kind]Phase{None: Applying, Refused: Applying, Failed: Waiting} {
		v := begin(t, Config{OneScan: true}, suspect)
		v.in(Input{Saved: &Saved{}})
		v.in(Input{Linked: &Linked{}})
		v.in(Input{Answered: &Answered{Kind: kind, Why: "x"}})
		if v.state.Phase != phase {
			t.Errorf("after %s: phase %s, want %s", kind, v.state.Phase, phase)
		}
	}
}

func TestErrorsAreRetriedSoonerAndSlowerEachTime(t *testing.T) {
	t.Parallel()
	v := begin(t, Config{}, suspect)
	v.in(Input{Saved: &Saved{}})
	v.in(Input{Linked: &Linked{}})
	var waits []time.Duration
	for range 9 {
		v.in(Input{Answered: &Answered{Kind: Failed, Why: "HTTP 500"}})
		waits = append(waits, v.state.Next.Sub(v.now))
		for v.state.Phase == Waiting {
			v.pass(time.Second)
		}
	}
	if waits[0] != firstRetry || waits[1] != 2*firstRetry || waits[8] != DefaultRetryInterval {
		t.Errorf("waited %v", waits)
	}
}

func TestAServerMayHastenButNotDelay(t *testing.T) {
	t.Parallel()
	for hint, want := range map[time.Duration]time.Duration{
		0: 30 * time.Minute, 5 * time.Second: 5 * time.Second, time.Nanosecond: minRetry, 400 * time.Hour: 30 * time.Minute,
	} {
		v := begin(t, Config{}, suspect)
		v.in(Input{Saved: &Saved{}})
		v.in(Input{Linked: &Linked{}})
		v.in(Input{Answered: &Answered{Kind: None, Retry: hint}})
		if got := v.state.Next.Sub(v.now); got != want {
			t.Errorf("hint %v: next question in %v, want %v", hint, got, want)
		}
	}
}

func TestASilentServerDoesNotHoldTheMachine(t *testing.T) {
	t.Parallel()
	v := begin(t, Config{TotalWait: time.Minute}, suspect)
	v.in(Input{Saved: &Saved{}})
	v.in(Input{Linked: &Linked{}})
	v.pass(Config{TotalWait: time.Minute}.Longest())
	if v.state.Phase != Leaving && v.state.Phase != Applying && v.state.Phase != Menu {
		t.Errorf("in phase %s", v.state.Phase)
	}
}

func TestTheMenuStays(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]Facts{
		"after too many recoveries":  {Menu: true, Suspect: suspect.Suspect},
		"without a place to write":   {Unusable: "read-only", Suspect: suspect.Suspect},
		"also when nobody can help":  {Menu: true, Alone: true},
		"also when a test was meant": {Menu: true, Test: true},
	} {
		v := begin(t, Config{}, f)
		v.in(Input{Saved: &Saved{}})
		v.pass(24 * time.Hour)
		if v.wantActs(Save); v.state.Phase != Menu {
			t.Errorf("%s: phase %s", name, v.state.Phase)
		}
	}
}

func TestWhatCannotBeWrittenDownDoesNotRestart(t *testing.T) {
	t.Parallel()
	v := begin(t, Config{}, suspect)
	v.in(Input{Saved: &Saved{Trouble: "no space"}})
	v.in(Input{Linked: &Linked{}})
	v.in(Input{Answered: &Answered{Kind: Fix, ID: "f"}})
	v.in(Input{Applied: &Applied{Trouble: "no space"}})
	v.in(Input{Applied: &Applied{Trouble: "no space"}})
	v.pass(time.Hour)
	v.wantActs(Save, Connect, Ask, Apply, Apply)
	v.wantPhase(Menu)
}

// TestAFixThatDoesNotFit: where there is no room for a fix, the local rule, which needs none, lets the machine start.
func TestAFixThatDoesNotFit(t *testing.T) {
	t.Parallel()
	v := begin(t, Config{}, suspect)
	v.in(Input{Saved: &Saved{Trouble: "no space"}})
	v.in(Input{Linked: &Linked{Address: "10.0.2.15"}})
	v.in(Input{Answered: &Answered{Kind: Fix, ID: "f"}})
	v.in(Input{Applied: &Applied{Trouble: "no space"}})
	if r := v.state.Remedy; r.Source != Local || !strings.Contains(r.Why, "fix f could not be written down: no space") {
		t.Errorf("the remedy is %s: %s", r, r.Why)
	}
	v.in(Input{Applied: &Applied{}})
	v.in(Input{Reported: true})
	v.wantActs(Save, Connect, Ask, Apply, Apply, Report, Restart)
	v.wantPhase(Leaving)
}

func TestKeys(t *testing.T) {
	t.Parallel()
	v := begin(t, Config{}, Facts{Menu: true})
	v.in(Input{Saved: &Saved{}})
	v.in(Input{Key: Details})
	if !v.state.Details {
		t.Error("F2 shows no details")
	}
	v.in(Input{Key: Again})
	v.wantPhase(Connecting)
	v.in(Input{Key: Safe})
	v.in(Input{Applied: &Applied{}})
	v.wantActs(Save, Connect, Apply, Restart)
	if r := v.effects[2].Remedy; r.Source != Person || r.Mode != boot.Safe {
		t.Errorf("F8 applied %+v", r)
	}
	off := begin(t, Config{}, suspect)
	off.in(Input{Key: Off})
	off.wantActs(Save, PowerOff)
}

func TestATestChangesNothing(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]*Answered{"with a fix": {Kind: Fix, ID: "noop"}, "without": {Kind: None}} {
		v := begin(t, Config{}, Facts{Test: true})
		v.in(Input{Saved: &Saved{}})
		v.in(Input{Linked: &Linked{Address: "a"}})
		v.in(Input{Answered: answer})
		v.pass(testWait + 2*time.Minute)
		for _, e := range v.effects {
			if e.Act == Apply {
				t.Errorf("%s: applied %s", name, e.Remedy)
			}
		}
		v.wantPhase(Leaving)
	}
}

func TestRule(t *testing.T) {
	t.Parallel()
	started := boot.Crumb{Provider: "acme-av"}
	voted := boot.Crumb{Provider: "acme-av", Ready: true}
	for name, c := range map[string]struct {
		facts Facts
		want  string
	}{
		"starting":     {Facts{Suspect: started, Visits: 1}, "start without acme-av"},
		"it had voted": {Facts{Suspect: voted, Visits: 1}, "start with last-known-good content"},
		"nobody known": {Facts{Visits: 1}, "start with last-known-good content"},
		"already disabled": {
			Facts{Suspect: started, Orders: boot.Orders{Disabled: []string{"acme-av"}}}, "start without third-party security",
		},
		"second visit":            {Facts{Visits: 2}, "start without third-party security"},
		"another one is starting": {Facts{Suspect: started, Visits: 2}, "start without acme-av"},
	} {
		if got := Rule(c.facts, "").String(); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

func TestConfigBounds(t *testing.T) {
	t.Parallel()
	c := Config{RetryInterval: time.Second, TotalWait: 9000 * time.Hour, NetworkWait: -1}.Normal()
	if c.RetryInterval != MinInterval || c.TotalWait != MaxInterval || c.NetworkWait != minNetworkWait {
		t.Errorf("%+v", c)
	}
	if c := (Config{}).Normal(); c.RetryInterval != DefaultRetryInterval || c.TotalWait != DefaultTotalWait {
		t.Errorf("defaults %+v", c)
	}
}
