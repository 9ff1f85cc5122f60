package root

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keepout-security/keepout/internal/drill"
	"github.com/keepout-security/keepout/internal/playground"
	"github.com/keepout-security/keepout/internal/testenv"
)

func buildForDrills(t *testing.T) (bin string) {
	t.Helper()
	commands, err := filepath.Glob(filepath.Join(testenv.ModuleRoot(t), "cmd", "*"))
	must(t, err)
	packages := []string{"./providers/hashlist", "./providers/hostile/faulty", "./providers/hostile/channel291"}
	for _, dir := range commands {
		packages = append(packages, "./cmd/"+filepath.Base(dir))
	}
	return testenv.Build(t, packages...)
}

// drillTime is for all drills on a machine whose processors are busy.
const drillTime = 12 * time.Minute

// TestDrillAll: every fault is contained.
func TestDrillAll(t *testing.T) {
	need(t)
	bin := buildForDrills(t)
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
		if !r.Passed {
			text, err := json.MarshalIndent(r.Timeline, "", " ")
			t.Errorf("%s: %s%s, %v", r.Name, r.Error, text, err)
		}
		for _, c := range r.Checks {
			if !c.Passed {
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

// TestDrillInterrupted: whoever ends a drill in the middle, in order or not, leaves no engine that misbehaves, no mount
// and no folder.
func TestDrillInterrupted(t *testing.T) {
	need(t)
	bin := buildForDrills(t)
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGKILL} {
		cmd := exec.Command(filepath.Join(bin, "keepout"), "drill", "core-stop", "--for", "1m")
		must(t, cmd.Start())
		testenv.Watchdog(t, 2*time.Minute, func() { _ = cmd.Process.Kill() })
		dir := ""
		until(t, "the second process is there", func() bool {
			for _, child := range playground.Children(cmd.Process.Pid) {
				line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", child.PID))
				if _, after, ok := strings.Cut(string(line), "--"+playground.StageFlag+"="); ok && err == nil {
					dir, _, _ = strings.Cut(after, "\x00")
				}
			}
			return dir != ""
		})
		until(t, "the platform runs", func() bool {
			_, err := os.Stat(filepath.Join(dir, "core-stop", playground.RunDir, "keepout.sock"))
			return err == nil
		})
		time.Sleep(3 * time.Second) // into the fault, or not yet: both must end well
		must(t, cmd.Process.Signal(sig))
		_ = cmd.Wait() // its end is what is looked at
		until(t, "everything is gone after "+sig.String(), func() bool {
			_, err := os.Lstat(dir)
			return errors.Is(err, os.ErrNotExist) && !mentions(t, dir)
		})
	}
}

// mentions reports whether a process was started with a word, or a mount is named so.
func mentions(t *testing.T, word string) bool {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	must(t, err)
	for _, path := range lines {
		line, err := os.ReadFile(path)
		if err == nil && bytes.Contains(line, []byte(word)) {
			return true
		}
	}
	return bytes.Contains(mounts, []byte(word))
}
