package root

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/control"
	"github.com/keepout-security/keepout/internal/testenv"
	"github.com/keepout-security/keepout/test/testhost"
)

// Contents that the tests' deny list knows, and one that it does not.
const (
	badScript = "#!/bin/sh\necho bad\n"
	badText   = "bad content"
	goodText  = "fine content"
)

func digest(content string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(content))) }

// denyList makes a content folder of hashlist.
func denyList(t testing.TB, contents ...string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "keepout-list-")
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	must(t, os.Chmod(dir, 0o755))
	writeList(t, dir, contents...)
	return dir
}

func writeList(t testing.TB, dir string, contents ...string) {
	t.Helper()
	var b strings.Builder
	for i, c := range contents {
		fmt.Fprintf(&b, "%s bad-%d\n", digest(c), i)
	}
	write(t, filepath.Join(dir, "deny.txt"), b.String(), 0o644)
}

func hashlist(t testing.TB, contents ...string) testhost.Provider {
	t.Helper()
	return testhost.Provider{ID: "hashlist", Source: "hashlist", Content: denyList(t, contents...)}
}

func subject(id, fault string, mode event.Mode) testhost.Provider {
	return testhost.Provider{ID: id, Source: "subject", Fault: fault, Mode: mode}
}

// exit returns the exit code of a command, or -1 when it could not be started.
func exit(t testing.TB, name string, args ...string) int {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	_ = cmd.Run()
	if cmd.ProcessState == nil {
		return -1
	}
	return cmd.ProcessState.ExitCode()
}

// command runs the command line of the host.
func command(t testing.TB, h *testhost.Host, args ...string) (out []byte, code int) {
	t.Helper()
	args = append([]string{"--run-dir", h.Run}, args...)
	cmd := exec.CommandContext(t.Context(), filepath.Join(h.Bin, "keepout"), args...)
	out, _ = cmd.CombinedOutput()
	return out, cmd.ProcessState.ExitCode()
}

// TestDeny: what the deny list knows is neither opened nor executed, by whatever way, and all else is.
func TestDeny(t *testing.T) {
	need(t)
	truth, err := os.ReadFile("/bin/true")
	must(t, err)
	program := string(truth) + "changed"
	list := hashlist(t, badText, badScript, program)
	h := testhost.Start(t, testhost.Options{Providers: []testhost.Provider{list}})
	bad, script := h.File("bad", badText), write(t, filepath.Join(h.Dir, "bad.sh"), badScript, 0o755)
	binary := write(t, filepath.Join(h.Dir, "program"), program, 0o755)
	good := copyOf(t, "/bin/true", filepath.Join(h.Dir, "true"))

	denied(t, open(bad))
	allowed(t, open(h.File("good", goodText)))
	for name, argv := range map[string][]string{
		"exec": {binary}, "by the loader": {loader, binary},
		"script": {script}, "by the shell": {"/bin/sh", script},
	} {
		if code := exit(t, argv[0], argv[1:]...); code == 0 {
			t.Errorf("%s: ran", name)
		}
	}
	for name, argv := range map[string][]string{"exec": {good}, "by the loader": {loader, good}} {
		if code := exit(t, argv[0], argv[1:]...); code != 0 {
			t.Errorf("clean %s: exit code %d", name, code)
		}
	}
	for _, where := range []string{"hard link", "other name"} {
		link := filepath.Join(h.Dir, where)
		must(t, os.Link(bad, link))
		denied(t, open(link))
	}
	must(t, os.Rename(bad, filepath.Join(h.Dir, "renamed")))
	denied(t, open(filepath.Join(h.Dir, "renamed")))
	other := bind(t, h.Dir)
	denied(t, open(filepath.Join(other, "renamed")))
}

// TestVerdictSaysWhy: the record names the rule, who voted what and how long it took, and explain shows it.
func TestVerdictSaysWhy(t *testing.T) {
	need(t)
	h := testhost.Start(t, testhost.Options{Providers: []testhost.Provider{
		hashlist(t, badText), subject("second", "", event.Enforce),
	}})
	bad := h.File("bad", badText)
	denied(t, open(bad))
	v := record(t, h, bad, event.Denied)
	if v.DecidedBy != "hashlist" || v.Rule != "bad-0" || v.Reason != event.ReasonDenied ||
		v.Mode != event.Enforce || len(v.Ballots) != 2 || v.Latency <= 0 {
		t.Errorf("verdict %+v", v)
	}
	for _, b := range v.Ballots {
		if b.Provider == "hashlist" &&
			(!b.Counted || b.Vote.Action != event.Deny || b.Vote.Content == "" || b.Latency <= 0) {
			t.Errorf("ballot %+v", b)
		}
	}
	out, code := command(t, h, "explain", "-o", "json", bad)
	var shown struct {
		Verdict   string `json:"verdict"`
		Rule      string `json:"rule"`
		DecidedBy string `json:"decided_by"`
	}
	if err := json.Unmarshal(out, &shown); err != nil || shown.Verdict != "DENIED" || shown.Rule != "bad-0" ||
		shown.DecidedBy != "hashlist" {
		t.Errorf("explain said %s (exit code %d)", out, code)
	}
}

// TestChangedContentIsJudgedAgain: a store through a mapping, which may leave size and times as they were,
// does not slip past, because every open is asked; nor does content without a name.
func TestChangedContentIsJudgedAgain(t *testing.T) {
	need(t)
	h := testhost.Start(t, testhost.Options{Providers: []testhost.Provider{hashlist(t, badText)}})
	path := h.File("file", "Bad content")
	page := mapped(t, path)
	page[1] = 'a' // the first store makes the page dirty; from now on nothing but the content changes
	allowed(t, open(path))
	before := stampOf(t, path)
	page[0] = 'b'
	if stampOf(t, path) != before {
		t.Error("the store left a trace, so this test proves less than it says")
	}
	denied(t, open(path))
	page[0] = 'B'
	allowed(t, open(path))

	f, err := os.Create(filepath.Join(h.Dir, "nameless"))
	must(t, err)
	defer f.Close()
	_, err = f.WriteString(badText)
	must(t, err)
	must(t, os.Remove(f.Name()))
	denied(t, open(fmt.Sprintf("/proc/self/fd/%d", f.Fd())))
	must(t, f.Truncate(3))
	allowed(t, open(fmt.Sprintf("/proc/self/fd/%d", f.Fd())))
}

// TestThreeProviders: all are asked at the same time, and one denial is enough.
func TestThreeProviders(t *testing.T) {
	need(t)
	providers := []testhost.Provider{
		subject("first", "", event.Enforce), subject("second", "deny", event.Enforce),
		subject("third", "", event.Enforce),
	}
	for i := range providers {
		providers[i].Delay = 200 * time.Millisecond
	}
	h := testhost.Start(t, testhost.Options{Providers: providers})
	start := time.Now()
	allowed(t, open(h.File("good", goodText))) // judged twice: creating a file opens it
	if took := time.Since(start); took < 400*time.Millisecond || took > 900*time.Millisecond {
		t.Errorf("two opens with three providers of 200 ms took %v: they were not asked at the same time", took)
	}
	bad := h.File("bad", "FAULT")
	denied(t, open(bad))
	v := record(t, h, bad, event.Denied)
	if v.DecidedBy != "second" || v.Rule != "subject-deny" || len(v.Ballots) != 3 {
		t.Errorf("verdict %+v", v)
	}
}

// TestAuditProvider: its denial is recorded and never takes effect, and nobody waits for it.
func TestAuditProvider(t *testing.T) {
	need(t)
	h := testhost.Start(t, testhost.Options{Providers: []testhost.Provider{
		subject("votes", "", event.Enforce), subject("watches", "deny", event.Audit),
		subject("hangs", "hang", event.Audit),
	}, Extra: "budgets: {content: 1s}"})
	bad := h.File("bad", "FAULT")
	start := time.Now()
	for range 20 { // the second and later ones find every worker of the hanging one busy
		allowed(t, open(bad))
	}
	if took := time.Since(start); took > 500*time.Millisecond {
		t.Errorf("20 opens took %v: an audit provider was waited for", took)
	}
	v := record(t, h, bad, event.WouldDeny)
	if !v.Allowed || v.DecidedBy != "watches" {
		t.Errorf("verdict %+v", v)
	}
	h.Until("the denials are counted", func() bool { return h.Status().Verdicts.WouldDeny >= 20 })
	reconciled(t, h)
}

// TestMonitorMode: nothing is denied, what would be is recorded, and the mode can be switched while running.
func TestMonitorMode(t *testing.T) {
	need(t)
	h := testhost.Start(t, testhost.Options{
		Mode: event.Monitor, Providers: []testhost.Provider{hashlist(t, badText)},
	})
	bad := h.File("bad", badText)
	allowed(t, open(bad))
	if v := record(t, h, bad, event.WouldDeny); v.Mode != event.Monitor || v.DecidedBy != "hashlist" {
		t.Errorf("verdict %+v", v)
	}
	nothing := func(control.Reply) {}
	must(t, h.Do(control.Request{Do: "mode", Mode: event.Enforce}, nothing))
	denied(t, open(bad))
	must(t, h.Do(control.Request{Do: "mode", Mode: event.Monitor}, nothing))
	allowed(t, open(bad))
	if err := h.Do(control.Request{Do: "mode", Mode: "audit"}, nothing); err == nil {
		t.Error("a mode that a host does not have was accepted")
	}
}

// TestVitalSet: what an administrator calls vital is never denied, unless others than root could change it.
func TestVitalSet(t *testing.T) {
	need(t)
	dir := testenv.Tmpfs(t, "16m")
	vital := write(t, filepath.Join(dir, "vital"), badText, 0o644)
	loose := write(t, filepath.Join(dir, "loose"), badText, 0o666)
	given := write(t, filepath.Join(dir, "given"), badText, 0o644)
	must(t, unix.Chown(given, 1000, 1000))
	h := testhost.Start(t, testhost.Options{
		Watch: dir, Providers: []testhost.Provider{hashlist(t, badText)},
		Extra: fmt.Sprintf("vital: [%s, %s, %s]", vital, loose, given),
	})
	allowed(t, open(vital))
	denied(t, open(loose))
	denied(t, open(given))
	if n := h.Status().Sensor.Unasked[event.ReasonVital]; n != 1 {
		t.Errorf("%d opens counted as vital, want 1", n)
	}
	must(t, os.Chmod(vital, 0o646)) // from now on everybody could put something else there
	denied(t, open(vital))
}
