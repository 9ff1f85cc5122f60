package roster_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/config"
	"github.com/keepout-security/keepout/internal/rollback"
	"github.com/keepout-security/keepout/internal/supervisor"
)

// try applies a configuration in which a candidate stays beside the active version.
func (g *rig) try(installed ...config.Installed) {
	g.t.Helper()
	l := &config.Loaded{Config: config.Default()}
	l.Updates.Trial, l.Updates.TrialIdle = config.Duration(time.Hour), config.Duration(time.Hour)
	l.Budgets.Content = config.Duration(voteTime)
	must(g.t, g.r.Apply(installed, l))
}

// beside waits until a candidate votes.
func (g *rig) beside(id string) {
	g.t.Helper()
	g.until("a candidate votes", func() bool {
		for _, m := range g.court.panel() {
			if m.ID == id+".candidate" {
				return true
			}
		}
		return false
	})
}

// quiet sees for a while that no process of a provider runs.
func (g *rig) quiet(id string) {
	g.t.Helper()
	for end := time.Now().Add(300 * time.Millisecond); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if s := g.status(id); s.PID != 0 || s.State != supervisor.Disabled || len(g.court.panel()) != 0 {
			g.t.Fatalf("it is not quiet: %+v, panel %v", s, g.court.panel())
		}
	}
}

// TestDisabledStaysDisabled: whatever is decided about the versions of a provider that is switched off, it is not
// started; until it is switched on or configured anew.
func TestDisabledStaysDisabled(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	in := g.install("p", config.Provider{Content: g.content("c", "one")})
	g.apply(in)
	first := g.votes("p", "one")
	g.content("c", "two")
	g.apply(in)
	g.votes("p", "two")
	g.until("the first one is gone", func() bool { return unix.Kill(first, 0) != nil })
	g.content("c", "three")
	g.try(in)
	g.beside("p")
	must(t, g.r.SetEnabled("p", false))
	g.until("all are gone", func() bool { return g.status("p").PID == 0 && len(g.court.panel()) == 0 })
	g.quiet("p")
	active := g.status("p").Versions.Content.Active
	must(t, g.r.RollBack("p", "content", "while it is off"))
	g.until("another is active", func() bool { return g.status("p").Versions.Content.Active != active })
	g.quiet("p")
	must(t, g.r.SetEnabled("p", true))
	g.votes("p", "one")
	must(t, g.r.SetEnabled("p", false))
	g.until("it is gone", func() bool { return g.status("p").PID == 0 })
	g.try(g.install("p", config.Provider{Content: in.Content, Settings: map[string]string{"note": "x"}}))
	g.votes("p", "one")
}

// TestRollBackDuringATrial: two processes of a provider never share a user and a state folder.
func TestRollBackDuringATrial(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	in := g.install("p", config.Provider{Content: g.content("c", "one")})
	g.apply(in)
	g.votes("p", "one")
	g.content("c", "two")
	g.apply(in)
	g.votes("p", "two")
	g.content("c", "three")
	g.try(in)
	g.beside("p")
	must(t, g.r.RollBack("p", "content", "now"))
	g.until("the one before votes, and a candidate beside it", func() bool {
		g.lanes()
		s := g.status("p")
		return s.Content == "content: one" && s.State == supervisor.Running && len(g.court.panel()) == 2
	})
}

// TestRollBackToANamedVersion: an order goes to the version that it names, one that ran before the last-known-good or
// one that was imported for it; what is not wanted is let go of.
func TestRollBackToANamedVersion(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	in := g.install("p", config.Provider{Content: g.content("c", "one")})
	g.apply(in)
	g.votes("p", "one")
	g.content("c", "two")
	g.apply(in)
	g.votes("p", "two")
	g.content("c", "three")
	g.apply(in)
	g.votes("p", "three")
	st, _ := g.store.State("p")
	former := st.Content.Former
	must(t, g.r.RollBackTo("p", "content", former, "it was halted"))
	g.votes("p", "two")
	brought, err := g.store.Import("content", g.content("d", "zero"))
	must(t, err)
	to := rollback.Version{Digest: brought.Digest, Label: "zero"}
	must(t, g.r.RollBackTo("p", "content", to, "it was halted"))
	g.until("what was brought votes", func() bool { return g.status("p").Content == "content: zero" })
	if err := g.r.RollBackTo("p", "content", former, "once more"); err == nil {
		t.Error("it went to a version that was refused")
	}
}

// lanes checks that each running process of the rig has a state folder of its own.
func (g *rig) lanes() {
	g.t.Helper()
	seen := map[string]string{}
	tasks, err := filepath.Glob("/proc/self/task/*/children")
	must(g.t, err)
	for _, task := range tasks {
		pids, _ := os.ReadFile(task) // the thread may have ended
		for pid := range strings.FieldsSeq(string(pids)) {
			env, _ := os.ReadFile("/proc/" + pid + "/environ")
			for v := range bytes.SplitSeq(env, []byte{0}) {
				dir, ok := strings.CutPrefix(string(v), "TMPDIR="+g.state)
				if !ok {
					continue
				}
				if other := seen[dir]; other != "" {
					g.t.Fatalf("%s and %s share %s", pid, other, dir)
				}
				seen[dir] = pid
			}
		}
	}
}

// TestEngineWithANewSetting: an update may come together with a setting that only it knows. When it is taken back, it
// does not go on, though the version before cannot run under this configuration; under another it can.
func TestEngineWithANewSetting(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	g.apply(g.install("p", config.Provider{}))
	pid := g.runs("p", 0)
	path := filepath.Join(g.providers, "p", config.ManifestFile)
	text, err := os.ReadFile(path)
	must(t, err)
	must(t, os.WriteFile(path, bytes.Replace(text, []byte("[fault, note]"), []byte("[fault, note, more]"), 1), 0o644))
	in := g.install("p", config.Provider{Settings: map[string]string{"more": "x"}})
	g.apply(in)
	pid = g.runs("p", pid)
	must(t, g.r.RollBack("p", "engine", "it is bad"))
	g.until("it is gone", func() bool { return unix.Kill(pid, 0) != nil })
	if title := g.problem("KO-1709"); !strings.Contains(title, "more") {
		t.Errorf("problems %v", g.r.Problems())
	}
	g.apply(g.install("p", config.Provider{}))
	g.runs("p", pid)
	if title := g.problem("KO-1709"); title != "" {
		t.Errorf("still %q", title)
	}
}

// TestConfiguredContentIsGone: a core that starts anew runs what it has kept, whatever became of the files.
func TestConfiguredContentIsGone(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	dir := g.content("c", "one")
	in := g.install("p", config.Provider{Content: dir})
	g.apply(in)
	g.votes("p", "one")
	g.r.Close()
	must(t, os.RemoveAll(dir))
	g.r = g.open()
	g.apply(in)
	g.votes("p", "one")
	if len(g.r.Problems()) == 0 {
		t.Error("no problem tells of it")
	}
}

// TestContentIsNotNamedAnyMore: a content stays until another takes its place, and that is said.
func TestContentIsNotNamedAnyMore(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	g.apply(g.install("p", config.Provider{Content: g.content("c", "one")}))
	g.votes("p", "one")
	g.apply(g.install("p", config.Provider{}))
	g.until("a problem tells of it", func() bool { return strings.Contains(g.problem("KO-1709"), "no content") })
	g.votes("p", "one")
	g.apply(g.install("p", config.Provider{Content: filepath.Join(filepath.Dir(g.state), "c")}))
	g.until("it is named again", func() bool { return g.problem("KO-1709") == "" })
}

// TestNothingIsKeptForGood: the packages that no slot names are removed.
func TestNothingIsKeptForGood(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	in := g.install("p", config.Provider{Content: g.content("c", "0")})
	g.apply(in)
	g.votes("p", "0")
	const versions = 8
	for i := range versions {
		text := strconv.Itoa(i)
		g.content("c", text)
		g.apply(in)
		g.votes("p", text)
	}
	// The engine; of the content the factory's, the last-known-good, the active one, and what only the older copy of
	// the state still names.
	g.until("the rest is gone", func() bool {
		objects, err := os.ReadDir(filepath.Join(g.state, "store", "objects"))
		must(t, err)
		return len(objects) <= 6
	})
	g.votes("p", strconv.Itoa(versions-1))
}

// TestOneProblemIsSaidOnce, and only of providers that are configured.
func TestOneProblemIsSaidOnce(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	g.apply(g.install("p", config.Provider{Settings: map[string]string{"fault": "refuses"}}))
	g.until("it is in quarantine", func() bool { return g.problem("KO-1705") != "" })
	count := 0
	for _, p := range g.r.Problems() {
		if p.Code == "KO-1705" {
			count++
		}
	}
	if count != 1 {
		t.Errorf("%d times in %v", count, g.r.Problems())
	}
	g.apply(g.install("q", config.Provider{Mode: event.Audit}))
	g.runs("q", 0)
	if title := g.problem("KO-1705"); title != "" {
		t.Errorf("of one that is not configured: %q", title)
	}
}

// TestNoRoomForATrial: a candidate that the host has no room to try is not refused, and tried when it has.
func TestNoRoomForATrial(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	in := g.install("p", config.Provider{Content: g.content("c", "one")})
	g.apply(in)
	g.votes("p", "one")
	folders := filepath.Join(g.state, "providers")
	must(t, os.Rename(folders, folders+".away"))
	must(t, os.WriteFile(folders, nil, 0o600)) // no folder can be made below
	g.content("c", "two")
	g.apply(in)
	g.until("it is on trial", func() bool { return g.status("p").Versions.Trial != "" })
	g.until("a first trial was in vain", func() bool { return g.log.says("could not be tried") })
	must(t, os.Remove(folders))
	must(t, os.Rename(folders+".away", folders))
	g.votes("p", "two")
}

// TestTrialOfTheNewest: a candidate that is replaced while it is tried gives way.
func TestTrialOfTheNewest(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	in := g.install("p", config.Provider{Content: g.content("c", "one")})
	g.apply(in)
	g.votes("p", "one")
	for _, text := range []string{"slow", "slower", "two"} {
		g.content("c", text)
		g.apply(in)
		g.until("it is on trial", func() bool {
			v := g.status("p").Versions
			return v.Trial != "" || text == "two"
		})
	}
	g.votes("p", "two")
	if title := g.problem("KO-1706"); title != "" {
		t.Errorf("refused: %s", title)
	}
}
