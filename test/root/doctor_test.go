package root

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/control"
	"github.com/keepout-security/keepout/internal/doctor"
	"github.com/keepout-security/keepout/internal/health"
	"github.com/keepout-security/keepout/internal/testenv"
	"github.com/keepout-security/keepout/test/testhost"
)

// examine runs keepout doctor and returns its report, after checking that it left no canary.
func examine(t testing.TB, h *testhost.Host) (doctor.Report, int) {
	t.Helper()
	out, code := command(t, h, "-o", "json", "doctor")
	var r doctor.Report
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	noCanaries(t, h.Dir)
	return r, code
}

func noCanaries(t testing.TB, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), event.SelftestName) {
			t.Errorf("left behind: %s", e.Name())
		}
	}
}

// found reports whether the report has this finding about the provider.
func found(r doctor.Report, section doctor.Section, severity health.Severity, code, provider string) bool {
	return slices.ContainsFunc(r.Findings, func(f doctor.Finding) bool {
		return f.Section == section && f.Severity == severity && f.Code == code && f.Provider == provider
	})
}

// protecting checks that all of protection is proved: nothing in these sections is worse than ok.
func protecting(t testing.TB, r doctor.Report) {
	t.Helper()
	for _, f := range r.Findings {
		if (f.Section == doctor.Proof || f.Section == doctor.Watch) && f.Severity != doctor.OK {
			t.Errorf("%+v", f)
		}
	}
}

// TestDoctor: on a host where all is well every provider is proved, in enforce and in monitor mode, as an enforcing
// and as an audit provider. The canaries alarm nobody.
func TestDoctor(t *testing.T) {
	need(t)
	h := testhost.Start(t, testhost.Options{Providers: []testhost.Provider{
		hashlist(t, badText), subject("watcher", "", event.Audit),
	}})
	for _, mode := range []string{"enforce", "monitor"} {
		if out, code := command(t, h, "mode", mode); code != 0 {
			t.Fatalf("mode: %s", out)
		}
		r, code := examine(t, h)
		protecting(t, r)
		for _, id := range []string{"hashlist", "watcher"} {
			if !found(r, doctor.Proof, doctor.OK, "", id) {
				t.Errorf("%s mode: %s is not proved: %+v", mode, id, r.Findings)
			}
		}
		// Without CAP_IPC_LOCK it is there, but not locked in memory.
		if !slices.ContainsFunc(r.Findings, func(f doctor.Finding) bool {
			return f.Check == "core.guard" && (f.Severity == doctor.OK || f.Severity == health.Warning)
		}) {
			t.Errorf("the guard was not seen: %+v", r.Findings)
		}
		// What the machine itself lacks is no business of this test, but the exit code must agree.
		if want := map[bool]int{false: 0, true: 3}[r.Degraded()]; code != want {
			t.Errorf("exit code %d with %+v", code, r.Counts)
		}
	}
	out, code := command(t, h, "events", "--denied", "-o", "json")
	if code != 0 || strings.Contains(string(out), "Detection Finding") || !strings.Contains(string(out), "self-test: ") {
		t.Errorf("the journal takes canaries for findings: %s", out)
	}
	if out, code := command(t, h, "mode", "enforce"); code != 0 {
		t.Fatalf("mode: %s", out)
	}
	before := len(out)
	denied(t, open(h.File("late", badText)))
	if out, _ := command(t, h, "events", "--denied", "-o", "json"); len(out) == before {
		t.Error("a real denial is not there")
	}
}

// TestDoctorSeesWhatIsBroken: a provider that runs but does not recognise its object is red, whether it enforces or
// not, and also in monitor mode; so is one that hangs; and the others stay green.
func TestDoctorSeesWhatIsBroken(t *testing.T) {
	need(t)
	for _, c := range []struct {
		fault, code string
		mode        event.Mode // of the provider
		host        event.Mode
	}{
		{"blind", "KO-1801", event.Enforce, event.Enforce},
		{"blind", "KO-1801", event.Audit, event.Enforce},
		{"blind", "KO-1801", event.Enforce, event.Monitor},
		{"hang", "KO-1802", event.Enforce, event.Enforce},
		{"hang", "KO-1802", event.Audit, event.Monitor},
	} {
		t.Run(c.fault+" "+string(c.mode)+" "+string(c.host), func(t *testing.T) {
			h := testhost.Start(t, testhost.Options{
				Mode: c.host, Extra: "budgets: {content: 500ms}",
				Providers: []testhost.Provider{subject("bad", c.fault, c.mode), hashlist(t, badText)},
			})
			r, code := examine(t, h)
			if code != 3 || r.Protected() || !found(r, doctor.Proof, health.Failure, c.code, "bad") ||
				found(r, doctor.Proof, doctor.OK, "", "bad") {
				t.Errorf("exit code %d, %+v", code, r.Findings)
			}
			if !found(r, doctor.Proof, doctor.OK, "", "hashlist") {
				t.Errorf("the other is not proved: %+v", r.Findings)
			}
		})
	}
}

// TestDoctorHearsEveryVote: an object that several providers deny proves each of them, whoever is first.
func TestDoctorHearsEveryVote(t *testing.T) {
	need(t)
	slow := subject("slow", "", event.Enforce)
	slow.Delay = 100 * time.Millisecond
	object, err := os.ReadFile(filepath.Join(testenv.ModuleRoot(t), "test", "providers", "subject", "selftest.txt"))
	must(t, err)
	h := testhost.Start(t, testhost.Options{Providers: []testhost.Provider{slow, hashlist(t, string(object))}})
	r, _ := examine(t, h)
	protecting(t, r)
	if !found(r, doctor.Proof, doctor.OK, "", "slow") {
		t.Errorf("%+v", r.Findings)
	}
}

// TestDoctorSeesAnUnwatchedPath: when another file system comes to lie on a watched path, it is red; after a reload
// it is watched.
func TestDoctorSeesAnUnwatchedPath(t *testing.T) {
	need(t)
	h := testhost.Start(t, testhost.Options{Providers: []testhost.Provider{hashlist(t, badText)}})
	mounted(t, h.Dir, unix.Mount("keepout-test", h.Dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755,size=1m"))
	r, code := examine(t, h)
	if code != 3 || r.Protected() || !found(r, doctor.Watch, health.Failure, "KO-1804", "") {
		t.Errorf("exit code %d, %+v", code, r.Findings)
	}
	must(t, reload(h))
	r, _ = examine(t, h)
	protecting(t, r)
}

// TestDoctorOnAReadOnlyPath: where no canary can be laid out, that is said, and the mark is proved by a file that is
// there.
func TestDoctorOnAReadOnlyPath(t *testing.T) {
	need(t)
	opt := testhost.Options{Providers: []testhost.Provider{hashlist(t, badText)}}
	h := testhost.Prepare(t, opt)
	h.File("file", goodText)
	testenv.ReadOnly(t, h.Dir)
	h.Launch(opt)
	r, _ := examine(t, h)
	if !found(r, doctor.Proof, health.Warning, "KO-1805", "hashlist") || !found(r, doctor.Watch, doctor.OK, "", "") {
		t.Errorf("%+v", r.Findings)
	}
}

// TestDoctorAsAnOrdinaryUser: who may use the socket, but cannot write where it counts, gets the rest and is told.
func TestDoctorAsAnOrdinaryUser(t *testing.T) {
	need(t)
	h := testhost.Start(t, testhost.Options{Providers: []testhost.Provider{hashlist(t, badText)}})
	h.File("file", goodText)
	must(t, os.Chown(filepath.Join(h.Run, control.SocketName), -1, 65534))
	cmd := exec.CommandContext(t.Context(), filepath.Join(h.Bin, "keepout"), "--run-dir", h.Run, "-o", "json", "doctor")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, _ := cmd.Output() // the exit code says degraded
	var r doctor.Report
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if !r.Reachable || !found(r, doctor.Proof, health.Warning, "KO-1805", "hashlist") ||
		!found(r, doctor.Watch, doctor.OK, "", "") || !found(r, doctor.Kernel, doctor.OK, "", "") {
		t.Errorf("%+v", r.Findings)
	}
}

// TestDoctorInterrupted: canaries are removed when the command is ended while a provider holds them.
func TestDoctorInterrupted(t *testing.T) {
	need(t)
	h := testhost.Start(t, testhost.Options{
		Extra: "budgets: {content: 10s}", Providers: []testhost.Provider{subject("bad", "hang", event.Enforce)},
	})
	for _, signal := range []unix.Signal{unix.SIGINT, unix.SIGHUP} {
		cmd := exec.CommandContext(context.Background(), filepath.Join(h.Bin, "keepout"), "--run-dir", h.Run, "doctor")
		must(t, cmd.Start())
		h.Until("a canary is held", func() bool { return counters(t, h, "bad").Pending > 0 })
		must(t, cmd.Process.Signal(signal))
		_ = cmd.Wait()
		if code := cmd.ProcessState.ExitCode(); code != 1 {
			t.Errorf("%v: exit code %d, want 1", signal, code)
		}
		noCanaries(t, h.Dir)
		h.Until("nobody is held", func() bool { return counters(t, h, "bad").Pending == 0 })
	}
}
