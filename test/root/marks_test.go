package root

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/control"
	"github.com/keepout-security/keepout/internal/sensor"
	"github.com/keepout-security/keepout/internal/sensor/fanotify"
	"github.com/keepout-security/keepout/internal/testenv"
	"github.com/keepout-security/keepout/test/testhost"
)

// asker wants what it is told to want, and counts.
type asker struct {
	wants [event.Delete + 1]atomic.Bool
	asked atomic.Int64
}

func (a *asker) Wants(t event.Type) bool       { return a.wants[t].Load() }
func (a *asker) Could(*event.Event, bool) bool { return true }
func (a *asker) Judge(q *sensor.Question)      { a.asked.Add(1); _ = q.Answer(true) }
func (a *asker) Observe(*event.Event)          {}
func (a *asker) want(s *sensor.Sensor, of ...event.Type) {
	var types sensor.Types
	for _, t := range of {
		types[t] = true
	}
	for _, t := range event.Types() {
		if !types[t] {
			a.wants[t].Store(false)
		}
	}
	s.Want(types)
	for _, t := range of {
		a.wants[t].Store(true)
	}
}

// marks are the permission events of which a process' groups hear from the file system that holds path; proc is its
// folder in /proc.
func marks(t testing.TB, proc, path string) (mask uint64) {
	t.Helper()
	infos, err := filepath.Glob(filepath.Join(proc, "fdinfo", "*"))
	must(t, err)
	for _, info := range infos {
		text, _ := os.ReadFile(info) // it may be closed by now
		mask |= marksIn(string(text), kernelDevice(t, path))
	}
	return mask
}

func marksIn(info string, device uint64) (mask uint64) {
	for line := range strings.Lines(info) {
		var dev, flags, bits, ignored uint64
		_, err := fmt.Sscanf(line, "fanotify sdev:%x mflags:%x mask:%x ignored_mask:%x", &dev, &flags, &bits, &ignored)
		if err == nil && dev == device {
			mask |= bits & (fanotify.OpenPerm | fanotify.OpenExecPerm)
		}
	}
	return mask
}

// kernelDevice is a file system's number as the kernel writes it: 12 bits, then 20 (MKDEV in linux/kdev_t.h).
func kernelDevice(t testing.TB, path string) uint64 {
	t.Helper()
	dev := device(t, path)
	return (dev>>8&0xfff)<<20 | dev&0xff | dev>>12&0xfff00
}

// TestMarksFollowWants: only what somebody wants is marked, from before he relies on it, and everything while it is to
// be proved that the marks work.
func TestMarksFollowWants(t *testing.T) {
	need(t)
	dir := testenv.Tmpfs(t, "16m")
	file := write(t, filepath.Join(dir, "file"), "x", 0o755)
	group, err := fanotify.NewPermission()
	must(t, err)
	a := &asker{}
	s, err := sensor.New(sensor.Config{Group: group, Judge: a, Provider: func(uint32) bool { return false }})
	must(t, err)
	testenv.Watchdog(t, time.Minute, func() { _ = group.Close() })
	must(t, s.Start([]sensor.Watch{{Path: dir, Events: []event.Type{event.Open, event.Exec}}}))
	t.Cleanup(func() { must(t, s.Stop()) })
	const self = "/proc/self"
	for _, c := range []struct {
		name  string
		wants []event.Type
		want  uint64
	}{
		{"nobody wants anything", nil, 0},
		{"execs", []event.Type{event.Exec}, fanotify.OpenExecPerm},
		{"both", []event.Type{event.Open, event.Exec}, fanotify.OpenPerm | fanotify.OpenExecPerm},
		{"what is not watched", []event.Type{event.Create}, 0},
	} {
		a.want(s, c.wants...)
		if got := marks(t, self, dir); got != c.want {
			t.Errorf("%s: marked %#x, want %#x", c.name, got, c.want)
		}
	}
	s.Prove(50 * time.Millisecond)
	if got, want := marks(t, self, dir), uint64(fanotify.OpenPerm|fanotify.OpenExecPerm); got != want {
		t.Errorf("to be proved: marked %#x, want %#x", got, want)
	}
	until(t, "that is over", func() bool { return marks(t, self, dir) == 0 })
	for i := range 20 { // who is told that he will be asked, is
		before := a.asked.Load()
		must(t, actor(t, "open", file).Run())
		if a.asked.Load() != before {
			t.Fatalf("round %d: asked about what nobody wants", i)
		}
		a.want(s, event.Open)
		must(t, actor(t, "open", file).Run())
		if a.asked.Load() == before {
			t.Fatalf("round %d: not asked about what somebody wants", i)
		}
		a.want(s)
	}
	if err := s.Unmarked(); err != nil {
		t.Error(err)
	}
}

// TestMarkThatFails: what could not be marked is said, is not taken for marked, and is marked the next time that it can
// be; then nothing is said of it any more. What is marked on other file systems does not change.
func TestMarkThatFails(t *testing.T) {
	need(t)
	dir, other := testenv.Tmpfs(t, "16m"), testenv.Tmpfs(t, "16m")
	group, err := fanotify.NewPermission()
	must(t, err)
	a := &asker{}
	s, err := sensor.New(sensor.Config{Group: group, Judge: a, Provider: func(uint32) bool { return false }})
	must(t, err)
	testenv.Watchdog(t, time.Minute, func() { _ = group.Close() })
	both := []event.Type{event.Open, event.Exec}
	must(t, s.Start([]sensor.Watch{{Path: dir, Events: both}, {Path: other, Events: both}}))
	t.Cleanup(func() { must(t, s.Stop()) })
	asks := func(name string, here, there int) {
		t.Helper()
		for _, f := range s.Filesystems() {
			want := there
			if f.Path == dir {
				want = here
			}
			if len(f.Asks) != want {
				t.Errorf("%s: of %s arrive %v, want %d", name, f.Path, f.Asks, want)
			}
		}
	}
	a.want(s, event.Exec)
	asks("execs", 1, 1)
	must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"))
	covered := true
	uncover := func() {
		if covered {
			covered = false
			must(t, unix.Unmount(dir, 0))
		}
	}
	t.Cleanup(uncover)
	a.want(s, both...)
	asks("what was mounted there is another one", 1, 2)
	if s.Unmarked() == nil {
		t.Error("nothing is said of what is not marked")
	}
	a.want(s, event.Exec)
	if err := s.Unmarked(); err != nil {
		t.Errorf("nobody wants it any more, and it is said: %v", err)
	}
	a.want(s, both...)
	uncover()
	a.want(s, both...)
	asks("it can be marked again", 2, 2)
	if got, want := marks(t, "/proc/self", dir), uint64(fanotify.OpenPerm|fanotify.OpenExecPerm); got != want {
		t.Errorf("marked %#x, want %#x", got, want)
	}
	if err := s.Unmarked(); err != nil {
		t.Errorf("it is marked, and still said not to be: %v", err)
	}
}

// TestNobodyIsAskedFor: without a provider the kernel asks about nothing, and a checkup makes it ask.
func TestNobodyIsAskedFor(t *testing.T) {
	h := testhost.Start(t, testhost.Options{Mode: event.Monitor, Wait: true})
	h.Until("it watches", func() bool { s, err := h.TryStatus(); return err == nil && len(s.Watching) == 1 })
	file := write(t, filepath.Join(h.Dir, "file"), "x", 0o644)
	proc := fmt.Sprintf("/proc/%d", h.PID)
	if got := marks(t, proc, h.Dir); got != 0 {
		t.Errorf("marked %#x for nobody", got)
	}
	before := h.Status()
	if n := len(before.Watching[0].Asks); n != 0 {
		t.Errorf("status says that %v arrive", before.Watching[0].Asks)
	}
	allowed(t, open(file))
	must(t, h.Do(control.Request{Do: "checkup"}, func(control.Reply) {}))
	allowed(t, open(file))
	h.Until("the second open is counted", func() bool {
		s, err := h.TryStatus()
		return err == nil && s.Sensor.Unasked[event.ReasonNobody] == before.Sensor.Unasked[event.ReasonNobody]+1 &&
			len(s.Watching[0].Asks) == 2
	})
}

// TestExecAgainIsOneEvent: the kernel remembers the open half of an exec that everybody has allowed, so that the next
// one is one event; and only the open half.
func TestExecAgainIsOneEvent(t *testing.T) {
	need(t)
	for name, dir := range kinds() {
		t.Run(name, func(t *testing.T) {
			h := testhost.Start(t, testhost.Options{
				Watch: dir(t), Providers: []testhost.Provider{{ID: "steady", Source: "steady"}},
			})
			program := copyOf(t, "/bin/true", filepath.Join(h.Dir, "program"))
			time.Sleep(50 * time.Millisecond) // its times must be able to show a change
			must(t, execute(t, program))
			until(t, "its open half is remembered", func() bool { return h.Status().Memory.Kept == 1 })
			before := h.Status()
			const again = 5
			for range again {
				must(t, execute(t, program))
			}
			after := h.Status()
			if n := after.Sensor.Unasked[event.ReasonPair] - before.Sensor.Unasked[event.ReasonPair]; n != 0 {
				t.Errorf("%d of %d execs were two events", n, again)
			}
			if n := given(after) - given(before); n != again {
				t.Errorf("%d verdicts on %d execs", n, again)
			}
			if after.Memory.Kept != 1 {
				t.Errorf("%d objects are kept", after.Memory.Kept)
			}
		})
	}
}
