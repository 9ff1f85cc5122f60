package drill

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/control"
	"github.com/keepout-security/keepout/internal/health"
	"github.com/keepout-security/keepout/internal/roster"
	"github.com/keepout-security/keepout/internal/supervisor"
)

// well is a host with an enforcing and an audit provider on which every live drill is possible.
func well() *aim {
	return &aim{
		id: "watcher",
		status: &control.Status{Mode: event.Enforce, Providers: []roster.Status{
			{ID: "off", Mode: event.Audit, State: supervisor.Backoff},
			{ID: "guarding", Mode: event.Enforce, State: supervisor.Running},
			{ID: "watcher", Mode: event.Audit, State: supervisor.Running},
		}},
		checkup: &control.Checkup{
			ContentMS: 1000, StallMS: 700, Config: control.CheckupConfig{Mode: event.Enforce},
			Providers: []control.CheckupProvider{
				{ID: "guarding", Selftest: []byte("x")}, {ID: "watcher", Selftest: []byte("y")},
			},
		},
	}
}

func one(t *testing.T, name string) *Drill {
	t.Helper()
	found := Find(name)
	if len(found) != 1 {
		t.Fatalf("%d drills %s", len(found), name)
	}
	return &found[0]
}

// TestLiveRefusals: what would hurt more than for a moment is refused, and nothing else is.
func TestLiveRefusals(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, drill string
		a           func(*aim)
		want        string // what the refusal says; "": there is none
	}{
		{"well", "killed", func(*aim) {}, ""},
		{"well", "core-stop", func(*aim) {}, ""},
		{"it does not run", "stop", func(a *aim) { a.id = "off" }, "off does not run"},
		{"the core does not need it", "core-crash", func(a *aim) { a.id = "" }, ""},
		{"none runs", "killed", func(a *aim) { a.id = "" }, "no provider runs"},
		{"fail closed", "killed", func(a *aim) { a.id, a.checkup.Providers[0].FailClosed = "guarding", true }, "on_failure"},
		{"another fails closed", "killed", func(a *aim) { a.checkup.Providers[0].FailClosed = true }, ""},
		{"all are lost with the core", "core-stop", func(a *aim) { a.checkup.Providers[0].FailClosed = true }, "on_failure"},
		{"it only records", "core-stop", func(a *aim) {
			a.checkup.Providers[0].FailClosed = true
			a.status.Mode, a.checkup.Config.Mode = event.Monitor, event.Monitor
		}, ""},
		{"mode by hand", "core-crash", func(a *aim) { a.checkup.Config.Mode = event.Monitor }, "not what is in force"},
		{"file changed", "core-crash", func(a *aim) { a.checkup.Config.Changed = true }, "not what is in force"},
		{"file wrong", "core-crash", func(a *aim) { a.checkup.Config.Wrong = "x" }, "not what is in force"},
		{"file wrong", "killed", func(a *aim) { a.checkup.Config.Wrong = "x" }, ""},
		{"disabled by hand", "core-crash", func(a *aim) { a.status.Providers[0].State = supervisor.Disabled }, "by hand"},
	} {
		a := well()
		c.a(a)
		err := a.possible(one(t, c.drill))
		var p health.Problem
		if c.want == "" && err != nil || c.want != "" && (!errors.As(err, &p) || p.Code != "KO-2013" || p.Fix == "" ||
			!strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s, %s: %v, want %q", c.name, c.drill, err, c.want)
		}
	}
}

// TestSelectLive: only a signal needs nothing that the host does not have.
func TestSelectLive(t *testing.T) {
	t.Parallel()
	all, err := SelectLive(nil)
	var names []string
	for _, d := range all {
		names = append(names, d.Name)
	}
	if want := []string{"killed", "stop", "core-crash", "core-stop"}; err != nil || !slices.Equal(names, want) {
		t.Errorf("%v, %v; want %v", names, err, want)
	}
	for name, code := range map[string]string{"crash": "KO-2013", "channel-file-291": "KO-2013", "sing": "KO-2012"} {
		var p health.Problem
		if _, err := SelectLive([]string{"killed", name}); !errors.As(err, &p) || p.Code != code {
			t.Errorf("%s: %v, want %s", name, err, code)
		}
	}
}

// TestLiveTarget: an audit provider is hit first, and what can be seen depends on who is hit.
func TestLiveTarget(t *testing.T) {
	t.Parallel()
	a := well()
	if err := a.choose(""); err != nil || a.id != "watcher" || !slices.Equal(a.others(), []string{"guarding"}) {
		t.Errorf("%q beside %v is hit: %v", a.id, a.others(), err)
	}
	if d := a.here(*one(t, "stop")); d.Engine != "watcher" || d.Rule != 800*time.Millisecond || len(d.Expect) != 2 {
		t.Errorf("an audit provider: %+v", d)
	}
	a.status.Providers[2].Mode = event.Enforce
	if err := a.choose(""); err != nil || a.id != "guarding" {
		t.Errorf("%q is hit: %v", a.id, err)
	}
	if got := a.poisoners(); !slices.Equal(got, []string{"watcher", "guarding"}) {
		t.Errorf("bad files of %v: the one that is hit is the last", got)
	}
	if d := a.here(*one(t, "stop")); len(d.Expect) != 4 {
		t.Errorf("an enforcing provider: %+v", d)
	}
	if d := a.here(*one(t, "core-stop")); d.Rule != 700*time.Millisecond || !strings.Contains(a.cost(&d), "700ms") {
		t.Errorf("the core: %+v", d)
	}
	var p health.Problem
	if err := a.choose("nobody"); !errors.As(err, &p) || p.Code != "KO-2003" {
		t.Errorf("a provider that is not there: %v", err)
	}
	a.status.Mode = event.Monitor
	if got := a.poisoners(); got != nil {
		t.Errorf("nothing is denied in monitor mode, but %v", got)
	}
}

// TestGoodOnly: without bad files nothing is claimed of them.
func TestGoodOnly(t *testing.T) {
	t.Parallel()
	d, e := sound(), quiet()
	with := len(d.judge(&e))
	if d.GoodOnly = true; len(d.judge(&e)) != with-1 {
		t.Errorf("%+v", d.judge(&e))
	}
}

// TestBait: all of it is gone afterwards, so is an old folder of one that was killed, and nothing else.
func TestBait(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	old := time.Now().Add(-2 * baitAge)
	for name, age := range map[string]time.Time{baitPrefix + "old": old, baitPrefix + "new": time.Now(), "other": old} {
		if err := errors.Join(os.Mkdir(dir+"/"+name, 0o700), os.Chtimes(dir+"/"+name, age, age)); err != nil {
			t.Fatal(err)
		}
	}
	b, err := layBait(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if how := outcomeOf(b.open(b.good[0])); len(b.good) != goodFiles || how != passed {
		t.Errorf("%d good files, %v", len(b.good), how)
	}
	if works, err := b.poison([]byte("x")); works || err != nil || b.bad != nil {
		t.Errorf("nobody denies here: %v, %v, %v", works, err, b.bad)
	}
	if err := b.remove(); err != nil {
		t.Error(err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 2 || left[0].Name() != baitPrefix+"new" || left[1].Name() != "other" {
		t.Errorf("left: %v, %v", left, err)
	}
	if _, err := layBait(t.Context(), dir+"/none"); err == nil {
		t.Error("there is no such folder")
	}
}
