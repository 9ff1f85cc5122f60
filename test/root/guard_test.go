package root

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/internal/control"
	"github.com/keepout-security/keepout/test/testhost"
)

// anew waits for a core other than before that votes again, and returns its status.
func anew(t testing.TB, h *testhost.Host, before int) *control.Status {
	t.Helper()
	var s *control.Status
	h.Until("a new core votes", func() bool {
		got, err := h.TryStatus()
		if err != nil || got.PID == before || problem(got, "KO-1301") || problem(got, "KO-1601") {
			return false
		}
		s = got
		return true
	})
	return s
}

// freeze stops a process in a way of which its parent is not told, as a livelock or a hung disk does.
func freeze(t testing.TB, pid int) {
	t.Helper()
	at := mountPoint(t)
	mounted(t, at, unix.Mount("none", at, "cgroup2", 0, ""))
	group := filepath.Join(at, fmt.Sprintf("keepout-test-%d", pid))
	must(t, os.Mkdir(group, 0o755))
	t.Cleanup(func() {
		_ = os.WriteFile(filepath.Join(group, "cgroup.kill"), []byte("1"), 0o644)
		until(t, "the group is empty", func() bool { return os.Remove(group) == nil })
	})
	must(t, os.WriteFile(filepath.Join(group, "cgroup.procs"), fmt.Append(nil, pid), 0o644))
	must(t, os.WriteFile(filepath.Join(group, "cgroup.freeze"), []byte("1"), 0o644))
}

// TestCoreIsLost: whatever becomes of the core while eight threads open files, no open fails or hangs, a new core goes
// on with the same group, and the gap is reported.
func TestCoreIsLost(t *testing.T) {
	need(t)
	signal := func(s unix.Signal) func(testing.TB, int) {
		return func(t testing.TB, pid int) { t.Helper(); must(t, unix.Kill(pid, s)) }
	}
	for name, c := range map[string]struct {
		lose  func(t testing.TB, pid int)
		cause string
	}{
		"killed":    {signal(unix.SIGKILL), "killed"},
		"segfault":  {signal(unix.SIGSEGV), "exited"}, // Go prints its stacks and ends
		"stopped":   {signal(unix.SIGSTOP), "stopped"},
		"told":      {signal(unix.SIGTERM), "exited"}, // by somebody who does not know of the guard
		"no motion": {freeze, "stalled"},
	} {
		t.Run(name, func(t *testing.T) {
			h := testhost.Start(t, testhost.Options{Providers: []testhost.Provider{hashlist(t, badText)}})
			bad := h.File("bad", badText)
			denied(t, open(bad))
			before := h.Status().PID
			tr := drive(8, files(t, h.Dir, "good", 50))
			tr.flows(t)
			c.lose(t, before)
			s := anew(t, h, before)
			tr.flows(t)
			tr.end(t)
			denied(t, open(bad))
			if g := s.Guard; g.PID != h.PID || g.Cores != 2 || g.Gap == nil || g.Gap.Cause != c.cause {
				t.Errorf("the guard reports %+v %+v, want a core that was %s", g, g.Gap, c.cause)
			}
			if !problem(s, "KO-1107") {
				t.Errorf("no problem tells of the gap: %v", s.Problems)
			}
			journal, code := command(t, h, "events", "-o", "json")
			if code != 0 {
				t.Errorf("events: code %d, %s", code, journal)
			}
			if !strings.Contains(h.Log(), "the core") {
				t.Errorf("the guard has not said what happened")
			}
			if code := h.Stop(); code != 0 {
				t.Errorf("the daemon ended with %d", code)
			}
		})
	}
}

// TestOpensWhileNoCoreStarts: without any core that could start, opens go on.
func TestOpensWhileNoCoreStarts(t *testing.T) {
	need(t)
	h := testhost.Start(t, testhost.Options{Providers: []testhost.Provider{hashlist(t, badText)}})
	bad, before := h.File("bad", badText), h.Status().PID
	text, err := os.ReadFile(h.Config)
	must(t, err)
	h.Write(h.Config, "version: 77\n") // no core starts on this
	must(t, unix.Kill(before, unix.SIGKILL))
	h.Until("the guard has tried three times", func() bool { return strings.Count(h.Log(), "exit code 1") >= 3 })
	allowed(t, result(t, opening(bad)))
	h.Write(h.Config, string(text))
	s := anew(t, h, before)
	denied(t, open(bad))
	if s.Guard.Gap == nil || s.Guard.Gap.Decided == 0 {
		t.Errorf("the gap is %+v, want at least one event in it", s.Guard.Gap)
	}
}

// TestProgramsRemoved: a core that dies after its program was removed or replaced is started again all the same.
func TestProgramsRemoved(t *testing.T) {
	need(t)
	opt := testhost.Options{Providers: []testhost.Provider{hashlist(t, badText)}, Wait: true}
	h := testhost.Prepare(t, opt)
	bin := t.TempDir()
	for _, name := range []string{"keepoutd", "keepout-core"} {
		copyOf(t, filepath.Join(h.Bin, name), filepath.Join(bin, name))
	}
	h.Bin = bin
	h.Launch(opt)
	h.Until("it votes", func() bool { s, err := h.TryStatus(); return err == nil && !problem(s, "KO-1301") })
	bad, before := h.File("bad", badText), h.Status().PID
	must(t, os.RemoveAll(bin))
	must(t, unix.Kill(before, unix.SIGKILL))
	anew(t, h, before)
	denied(t, open(bad))
	if code := h.Stop(); code != 0 {
		t.Errorf("the daemon ended with %d", code)
	}
}

// TestGuardIsLost: without its guard the core ends in order, and nobody waits.
func TestGuardIsLost(t *testing.T) {
	need(t)
	h := testhost.Start(t, testhost.Options{Providers: []testhost.Provider{subject("late", "late", "enforce")}})
	core := h.Status().PID
	waits := opening(h.File("file", "FAULT late"))
	held(t, waits)
	h.Signal(unix.SIGKILL)
	allowed(t, result(t, waits))
	until(t, "the core has ended", func() bool { return ended(core) })
}

// TestStopWithWaiters: who waits when the daemon is told to end is answered before it does; and when told again, it
// does not wait for its core.
func TestStopWithWaiters(t *testing.T) {
	need(t)
	h := testhost.Start(t, testhost.Options{Providers: []testhost.Provider{subject("hangs", "hang", "enforce")}})
	paths := make([]string, 100)
	for i := range paths {
		paths[i] = h.File(fmt.Sprintf("file-%d", i), "FAULT")
	}
	waits := together(paths)
	h.Until("they wait", func() bool { return h.Status().Verdicts.InFlight > 0 })
	core := h.Status().PID
	must(t, unix.Kill(core, unix.SIGSTOP))
	h.Signal(unix.SIGTERM)
	h.Signal(unix.SIGINT)
	if code, _ := h.Exited(); code != 128+int(unix.SIGKILL) {
		t.Errorf("the daemon ended with %d", code)
	}
	allowed(t, result(t, waits))
	if !ended(core) {
		t.Error("the core is left")
	}
}

// TestGuardIsReady: its memory is locked, so that answering needs no disk.
func TestGuardIsReady(t *testing.T) {
	need(t)
	h := testhost.Start(t, testhost.Options{Providers: []testhost.Provider{hashlist(t, badText)}})
	status := fmt.Sprintf("/proc/%d/status", h.PID)
	locked, resident := number(t, status, "VmLck"), number(t, status, "VmRSS")
	if locked == 0 {
		t.Errorf("%d kB of %d are locked", locked, resident)
	}
	t.Logf("the guard has %d kB", resident)
}

// TestGuardSleeps: while nobody opens anything, neither the guard nor the core computes.
func TestGuardSleeps(t *testing.T) {
	need(t)
	h := testhost.Start(t, testhost.Options{Providers: []testhost.Provider{hashlist(t, badText)}})
	core := h.Status().PID
	used := func() int { return ticks(t, h.PID) + ticks(t, core) }
	time.Sleep(2 * time.Second) // what starting left behind is not idleness
	before := used()
	time.Sleep(2 * time.Second)
	if n := used() - before; n > 50 { // of 200, or more on a busy host
		t.Errorf("%d hundredths of a second of processor time in two seconds", n)
	}
}

// ticks is the processor time of a process in hundredths of a second; proc_pid_stat(5), fields 14 and 15.
func ticks(t testing.TB, pid int) int {
	t.Helper()
	return statField(t, fmt.Sprintf("/proc/%d", pid), 14) + statField(t, fmt.Sprintf("/proc/%d", pid), 15)
}

// TestShares: on a crowded host the guard and the core with all its threads come before others, a provider does not.
func TestShares(t *testing.T) {
	need(t)
	h := testhost.Start(t, testhost.Options{Providers: []testhost.Provider{hashlist(t, badText)}})
	s := h.Status()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", s.PID))
	must(t, err)
	for _, task := range tasks {
		if n := niceness(t, task); n >= 0 {
			t.Errorf("thread %s of the core has niceness %d", filepath.Base(task), n)
		}
	}
	if n := niceness(t, fmt.Sprintf("/proc/%d", provider(t, s, "hashlist").PID)); n != 0 {
		t.Errorf("the provider has niceness %d", n)
	}
	if n := niceness(t, fmt.Sprintf("/proc/%d", h.PID)); n >= 0 {
		t.Errorf("the guard has niceness %d", n)
	}
}

func niceness(t testing.TB, proc string) int {
	t.Helper()
	return statField(t, proc, 19)
}

// statField is a field of a stat file, as proc_pid_stat(5) counts them.
func statField(t testing.TB, proc string, number int) int {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(proc, "stat"))
	must(t, err)
	_, rest, _ := strings.Cut(string(b), ") ") // the name before it may have blanks; what follows is the third field
	n, err := strconv.Atoi(strings.Fields(rest)[number-3])
	must(t, err)
	return n
}
