package root

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/boot"
	"github.com/keepout-security/keepout/internal/health"
	"github.com/keepout-security/keepout/internal/recovery/esp"
	"github.com/keepout-security/keepout/internal/supervisor"
	"github.com/keepout-security/keepout/internal/testenv"
	"github.com/keepout-security/keepout/test/testhost"
)

// machine is a folder in place of a machine's root: an ESP, and what bootguard reads of the kernel.
type machine struct {
	t    *testing.T
	root string
	bin  string
	run  string
	esp  *esp.Dir
}

func newMachine(t *testing.T, run string) *machine {
	t.Helper()
	m := &machine{t: t, root: t.TempDir(), bin: testenv.Build(t, "./cmd/keepout-bootguard"), run: run}
	m.esp = esp.Open(filepath.Join(m.root, "boot", "efi", "keepout"))
	must(t, m.esp.Prepare())
	must(t, os.MkdirAll(filepath.Join(m.root, "proc", "sys", "kernel", "random"), 0o700))
	write(t, filepath.Join(m.root, "proc", "uptime"), "300.00 1.00\n", 0o600)
	return m
}

// guard runs bootguard.
func (m *machine) guard(args ...string) {
	m.t.Helper()
	args = append([]string{"--root", m.root, "--run-dir", m.run}, args...)
	out, err := exec.CommandContext(m.t.Context(), filepath.Join(m.bin, "keepout-bootguard"), args...).CombinedOutput()
	if err != nil || len(out) > 0 {
		m.t.Fatalf("bootguard %v: %v\n%s", args, err, out)
	}
}

// begin begins a boot; "" is the one in which this test runs, the only one of which the core believes anything.
func (m *machine) begin(id string) {
	m.t.Helper()
	if id == "" {
		data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
		must(m.t, err)
		id = string(data)
	}
	write(m.t, filepath.Join(m.root, "proc", "sys", "kernel", "random", "boot_id"), id, 0o600)
	m.guard("begin")
}

func codes(problems []health.Problem) (out []string) {
	for _, p := range problems {
		out = append(out, p.Code)
	}
	return out
}

// TestBootsAfterFailures: after two boots that failed, the core is in safe mode: no provider, nothing denied, and it
// says so. Its own canaries make that boot good, and the next one is one rung lower: it denies again, with
// last-known-good content, and says what it starts before it does.
func TestBootsAfterFailures(t *testing.T) {
	need(t)
	opt := testhost.Options{Providers: []testhost.Provider{hashlist(t, badText)}, Wait: true}
	h := testhost.Prepare(t, opt)
	m := newMachine(t, h.Run)
	for _, id := range []string{"first", "second", ""} {
		m.begin(id)
	}
	h.Launch(opt)
	h.Until("the core answers", func() bool { _, err := h.TryStatus(); return err == nil })
	bad := h.File("bad", badText)
	allowed(t, open(bad))
	s := h.Status()
	if s.Mode != event.Monitor || s.Providers[0].State != supervisor.Disabled ||
		!slices.Contains(codes(s.Problems), "KO-2301") {
		t.Errorf("mode %s, provider %s, problems %v", s.Mode, s.Providers[0].State, s.Problems)
	}
	if c := m.esp.Crumb(); c.Provider != "" {
		t.Errorf("something was started: %+v", c)
	}
	m.guard("--wait", "1m", "good")
	if p := esp.Open(m.esp.Path()).State(); p.State.Boot != "" || p.State.Floor != boot.Safe {
		t.Errorf("the boot is not marked as good: %+v", p.State)
	}
	h.Stop()

	m.begin("")
	h.Launch(opt)
	h.Until("it denies again", func() bool { return open(bad) != nil })
	if s = h.Status(); s.Mode != event.Enforce || !slices.Contains(codes(s.Problems), "KO-2302") {
		t.Errorf("mode %s, problems %v", s.Mode, s.Problems)
	}
	if c := m.esp.Crumb(); c.Provider != "hashlist" || c.Engine == "" || strings.TrimSpace(c.Boot) == "" {
		t.Errorf("what was started: %+v", c)
	}
}
