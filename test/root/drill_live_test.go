package root

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/drill"
	"github.com/keepout-security/keepout/internal/testenv"
	"github.com/keepout-security/keepout/test/testhost"
)

// clean checks that a live drill left nothing below the watched path.
func clean(t *testing.T, h *testhost.Host) {
	t.Helper()
	entries, err := os.ReadDir(h.Dir)
	must(t, err)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".keepout") {
			t.Errorf("left behind: %s", e.Name())
		}
	}
}

// liveDrills runs live drills and returns the report.
func liveDrills(t *testing.T, h *testhost.Host, args ...string) (r drill.Report) {
	t.Helper()
	out, code := command(t, h, append([]string{"-o", "json", "drill", "--live", "--yes", "--for", "1s"}, args...)...)
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("no report: %v\n%s", err, out)
	}
	if code != 0 || r.Failed > 0 || len(r.Drills) == 0 {
		t.Errorf("exit code %d, %d drills\n%s", code, len(r.Drills), h.Log())
	}
	for i := range r.Drills {
		d := &r.Drills[i]
		if !d.Passed {
			text, err := json.MarshalIndent(d.Timeline, "", " ")
			t.Errorf("%s: %s%s, %v", d.Name, d.Error, text, err)
		}
		for _, c := range d.Checks {
			if !c.Passed {
				t.Errorf("%s: %s: %s", d.Name, c.What, c.Detail)
			}
		}
	}
	clean(t, h)
	return r
}

// TestDrillLive: a killed provider, a killed core and a stopped one are contained on a daemon that runs, and no file is
// left there. Without --yes nothing happens.
func TestDrillLive(t *testing.T) {
	need(t)
	h := testhost.Start(t, testhost.Options{Life: 5 * time.Minute, Providers: []testhost.Provider{
		hashlist(t, badText), subject("watcher", "", event.Audit),
	}})
	before := h.Status()
	out, code := command(t, h, "drill", "--live", "killed", "core-stop")
	if code != 1 || !strings.Contains(string(out), "KO-2013") ||
		!strings.Contains(string(out), "drill --live killed core-stop --yes") {
		t.Errorf("without --yes: %d, %s", code, out)
	}
	if after := h.Status(); after.PID != before.PID || after.Providers[1].Restarts != 0 {
		t.Errorf("something was done without --yes: %+v", after)
	}
	clean(t, h)
	r := liveDrills(t, h, "killed", "core-crash", "core-stop")
	if len(r.Drills) != 3 || r.Drills[0].Provider != "watcher" || r.Live != h.Run {
		t.Errorf("%+v", r)
	}
	for i := range r.Drills {
		if host := r.Drills[i].Host; host.GoodOnly || host.Opens == 0 {
			t.Errorf("%s: %+v", r.Drills[i].Name, host)
		}
	}
	if after := h.Status(); after.PID == before.PID || after.Guard.Cores != 3 {
		t.Errorf("the core was not hit twice: %+v", after.Guard)
	}
	out, code = command(t, h, "events", "--denied", "-o", "json")
	if code != 0 || strings.Contains(string(out), "Detection Finding") {
		t.Errorf("the journal takes the drill's files for findings: %s", out)
	}
}

// TestDrillLiveEnforcing: the provider that is asked for is hit, also when nobody else denies; and where nobody denies,
// the report says so.
func TestDrillLiveEnforcing(t *testing.T) {
	need(t)
	h := testhost.Start(t, testhost.Options{Life: 4 * time.Minute, Providers: []testhost.Provider{hashlist(t, badText)}})
	r := liveDrills(t, h, "stop", "--provider", "hashlist")
	if len(r.Drills) != 1 || r.Drills[0].Provider != "hashlist" || r.Drills[0].Host.GoodOnly ||
		!slices.ContainsFunc(r.Drills[0].Checks, func(c drill.Check) bool { return strings.Contains(c.What, "80 %") }) {
		t.Errorf("%+v", r)
	}
	if out, code := command(t, h, "mode", "monitor"); code != 0 {
		t.Fatalf("mode: %s", out)
	}
	if r := liveDrills(t, h, "killed"); !r.Drills[0].Host.GoodOnly ||
		!strings.Contains(r.Drills[0].Explanation, "cannot be seen") {
		t.Errorf("%+v", r.Drills[0])
	}
	if out, code := command(t, h, "drill", "--live", "core-crash", "--yes"); code != 1 ||
		!strings.Contains(string(out), "not what is in force") {
		t.Errorf("the new core would enforce: %d, %s", code, out)
	}
}

// TestDrillLiveInterrupted: Ctrl-C in the middle leaves no file, and a core that was stopped goes on or is replaced.
func TestDrillLiveInterrupted(t *testing.T) {
	need(t)
	h := testhost.Start(t, testhost.Options{Life: 3 * time.Minute, Providers: []testhost.Provider{hashlist(t, badText)}})
	cmd := exec.Command(filepath.Join(h.Bin, "keepout"), "--run-dir", h.Run, "drill", "--live", "core-stop", "--yes",
		"--for", "1m")
	must(t, cmd.Start())
	testenv.Watchdog(t, 2*time.Minute, func() { _ = cmd.Process.Kill() })
	first := h.Status().PID
	h.Until("the core was hit", func() bool {
		s, err := h.TryStatus()
		return err == nil && s.PID != first
	})
	must(t, cmd.Process.Signal(syscall.SIGINT))
	if err := cmd.Wait(); err == nil {
		t.Error("an interrupted drill passed")
	}
	clean(t, h)
}
