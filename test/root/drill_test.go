package root

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keepout-security/keepout/internal/drill"
	"github.com/keepout-security/keepout/internal/testenv"
)

// drillTime is for all drills on a machine whose processors are busy.
const drillTime = 12 * time.Minute

// TestDrillAll: every fault is contained, as far as the parts of the platform that contain it are built in.
func TestDrillAll(t *testing.T) {
	need(t)
	commands, err := filepath.Glob(filepath.Join(testenv.ModuleRoot(t), "cmd", "*"))
	must(t, err)
	packages := []string{"./providers/hashlist", "./providers/hostile/faulty", "./providers/hostile/channel291"}
	for _, dir := range commands {
		packages = append(packages, "./cmd/"+filepath.Base(dir))
	}
	bin := testenv.Build(t, packages...)
	page := filepath.Join(t.TempDir(), "drill.html")
	cmd := exec.Command(filepath.Join(bin, "keepout"), "drill", "--all", "--for", "1s", "-o", "json", "--report", page)
	var errs strings.Builder
	cmd.Stderr = &errs
	testenv.Watchdog(t, drillTime, func() { _ = cmd.Process.Kill() })
	out, err := cmd.Output()
	var report drill.Report
	if jsonErr := json.Unmarshal(out, &report); jsonErr != nil {
		t.Fatalf("no report: %v, %v\n%s%s", err, jsonErr, out, errs.String())
	}
	if len(report.Drills) != len(drill.Catalogue()) || (err == nil) != (report.Failed == 0) || errs.Len() > 0 {
		t.Errorf("%d drills of %d, %d failed, exit: %v\n%s", len(report.Drills), len(drill.Catalogue()), report.Failed, err,
			errs.String())
	}
	for i := range report.Drills {
		r := &report.Drills[i]
		if !r.Passed && !r.Waiting() {
			text, err := json.MarshalIndent(r.Timeline, "", " ")
			t.Errorf("%s: %s%s, %v", r.Name, r.Error, text, err)
		}
		for _, c := range r.Checks {
			if !c.Passed && c.Needs == "" {
				t.Errorf("%s: %s: %s", r.Name, c.What, c.Detail)
			}
		}
		t.Logf("%-26s passed %v, longest open %.1f ms, wrongly denied %d, let through %d", r.Name, r.Passed,
			r.Host.LongestMS, r.Host.WronglyDenied, r.Host.Missed)
	}
	if text, err := os.ReadFile(page); err != nil || !strings.Contains(string(text), `id="core-stop"`) {
		t.Errorf("the page is not complete: %v", err)
	}
}
