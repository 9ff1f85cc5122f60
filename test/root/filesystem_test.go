package root

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/sensor"
	"github.com/keepout-security/keepout/internal/sensor/fanotify"
	"github.com/keepout-security/keepout/internal/testenv"
	"github.com/keepout-security/keepout/test/testhost"
)

// fuse mounts a folder a second time through a FUSE daemon and returns the mount and the daemon.
func fuse(t testing.TB, from string) (string, *os.Process) {
	t.Helper()
	to := mountPoint(t)
	before := device(t, to) // before bindfs starts, which may mount at once
	cmd := exec.CommandContext(t.Context(), "bindfs", "-f", from, to)
	var out strings.Builder
	cmd.Stderr = &out
	must(t, cmd.Start())
	over := make(chan struct{})
	go func() { _ = cmd.Wait(); close(over) }()
	t.Cleanup(func() {
		_ = unix.Unmount(to, unix.MNT_DETACH)
		_ = cmd.Process.Kill() // SIGKILL also ends a stopped process
		<-over
	})
	until(t, "bindfs has mounted", func() bool {
		select {
		case <-over:
			t.Fatalf("bindfs ended: %s", out.String())
		default:
		}
		return device(t, to) != before
	})
	return to, cmd.Process
}

func device(t testing.TB, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Stat(path, &st))
	return st.Dev
}

// alsoWatch is a configuration line that adds a watch.
func alsoWatch(path string) string { return fmt.Sprintf("  - {path: %s, events: [open, exec]}", path) }

// TestRemoteFilesystem: files on FUSE are allowed unasked, which is counted and said; and when its daemon
// stops, nobody waits but those who open files there.
func TestRemoteFilesystem(t *testing.T) {
	need(t, testenv.FUSE)
	behind := testenv.Tmpfs(t, "16m")
	write(t, filepath.Join(behind, "bad"), badText, 0o644)
	remote, daemon := fuse(t, behind)
	h := testhost.Start(t, testhost.Options{
		Providers: []testhost.Provider{hashlist(t, badText)}, Extra: alsoWatch(remote), Wait: true,
	})
	h.Until("the provider votes", func() bool {
		s, err := h.TryStatus()
		return err == nil && !problem(s, "KO-1301") && !problem(s, "KO-1601")
	})
	local := h.File("bad", badText)
	denied(t, open(local))
	allowed(t, open(filepath.Join(remote, "bad")))
	s := h.Status()
	if n := s.Sensor.Unasked[event.ReasonRemote]; n != 1 || !problem(s, "KO-1201") {
		t.Errorf("%d opens counted as remote, want 1; problems %v", n, s.Problems)
	}

	must(t, daemon.Signal(unix.SIGSTOP))
	waits := opening(filepath.Join(remote, "bad"))
	held(t, waits)
	for range 20 {
		start := time.Now()
		denied(t, result(t, opening(local)))
		if took := time.Since(start); took > time.Second {
			t.Errorf("an open elsewhere took %v", took)
		}
	}
	must(t, daemon.Signal(unix.SIGCONT))
	allowed(t, result(t, waits))
}

// TestStopBesideADeadServer: a file system whose server does not answer delays neither a reload, which says so, nor
// the end of the daemon.
func TestStopBesideADeadServer(t *testing.T) {
	need(t, testenv.FUSE)
	behind := testenv.Tmpfs(t, "16m")
	write(t, filepath.Join(behind, "file"), "hello", 0o644)
	remote, daemon := fuse(t, behind)
	h := testhost.Start(t, testhost.Options{
		Providers: []testhost.Provider{hashlist(t, badText)}, Extra: alsoWatch(remote), Wait: true,
	})
	h.Until("both are watched", func() bool { s, err := h.TryStatus(); return err == nil && len(s.Watching) == 2 })
	must(t, daemon.Signal(unix.SIGSTOP))
	waits := opening(filepath.Join(remote, "file"))
	held(t, waits)
	h.Signal(unix.SIGHUP)
	h.Until("the reload has been refused", func() bool { return strings.Contains(h.Log(), "does not answer") })
	if code := h.Stop(); code != 0 {
		t.Errorf("the daemon ended with %d", code)
	}
	must(t, daemon.Signal(unix.SIGCONT))
	allowed(t, result(t, waits))
}

// TestOverlay: a file that is opened through an overlay is judged, whether the overlay or what lies below
// it is watched, or both.
func TestOverlay(t *testing.T) {
	need(t)
	layers := testenv.Tmpfs(t, "16m")
	for _, dir := range []string{"lower", "upper", "work"} {
		must(t, os.Mkdir(filepath.Join(layers, dir), 0o755))
	}
	write(t, filepath.Join(layers, "lower", "bad"), badText, 0o644)
	write(t, filepath.Join(layers, "lower", "good"), goodText, 0o644)
	over := mountPoint(t)
	options := fmt.Sprintf("lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work", layers)
	mounted(t, over, unix.Mount("overlay", over, "overlay", 0, options))
	for name, opt := range map[string]testhost.Options{
		"overlay": {Watch: over}, "layers": {Watch: layers}, "both": {Watch: over, Extra: alsoWatch(layers)},
	} {
		t.Run(name, func(t *testing.T) {
			opt.Providers = []testhost.Provider{hashlist(t, badText)}
			h := testhost.Start(t, opt)
			before := given(h.Status())
			denied(t, result(t, opening(filepath.Join(over, "bad"))))
			allowed(t, result(t, opening(filepath.Join(over, "good"))))
			if n := given(h.Status()) - before; n < 2 || n > 4 {
				t.Errorf("%d verdicts on two opens", n)
			}
			fresh := write(t, filepath.Join(over, "fresh-"+name), badText, 0o644) // in the upper layer
			denied(t, result(t, opening(fresh)))
		})
	}
}

// TestLease: somebody who holds a lease on a file of his own does not stop the readers, which the kernel
// makes open that file; only who opens that file is refused.
func TestLease(t *testing.T) {
	need(t)
	h := testhost.Start(t, testhost.Options{Providers: []testhost.Provider{hashlist(t, badText)}})
	bad := h.File("bad", badText)
	var leases []*os.File
	for i := range 16 { // more than there are readers
		f, err := os.OpenFile(h.File(fmt.Sprintf("leased-%d", i), goodText), os.O_RDWR, 0)
		must(t, err)
		t.Cleanup(func() { _ = f.Close() })
		until(t, "the provider has closed the file, so that it can be leased", func() bool {
			_, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_WRLCK)
			return err == nil
		})
		leases = append(leases, f)
	}
	for _, f := range leases {
		opening(f.Name())
	}
	start := time.Now()
	denied(t, result(t, opening(bad)))
	if took := time.Since(start); took > time.Second {
		t.Errorf("an open elsewhere took %v", took)
	}
	must(t, leases[0].Close())
	allowed(t, result(t, opening(leases[0].Name())))
}

// gallery is a judge that only looks.
type gallery struct {
	mu   sync.Mutex
	seen []event.Event
}

func (g *gallery) Wants(event.Type) bool         { return true }
func (g *gallery) Could(*event.Event, bool) bool { return true }
func (g *gallery) Judge(q *sensor.Question)      { _ = q.Answer(true) }
func (g *gallery) Observe(ev *event.Event) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.seen = append(g.seen, *ev)
}

func (g *gallery) acts(dir string) (acts []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, ev := range g.seen {
		act := ev.Type.String() + " " + strings.TrimPrefix(ev.File.Path, dir)
		var actSb197 strings.Builder
		for _, part := range []string{ev.Name, strings.TrimPrefix(ev.NewDir, dir), ev.NewName} {
			if part != "" {
				actSb197.WriteString(" " + part)
			}
		}
		act += actSb197.String()
		acts = append(acts, act)
	}
	return acts
}

// TestNotifyEvents: what has happened is told with its folder and names, in order, and by whom.
func TestNotifyEvents(t *testing.T) {
	need(t)
	dir := testenv.Tmpfs(t, "16m")
	must(t, os.Mkdir(filepath.Join(dir, "one"), 0o755))
	must(t, os.Mkdir(filepath.Join(dir, "two"), 0o755))
	g := &gallery{}
	group, err := fanotify.NewPermission()
	must(t, err)
	s, err := sensor.New(sensor.Config{Group: group, Judge: g, Provider: func(uint32) bool { return false }})
	must(t, err)
	stop := sync.OnceFunc(func() { must(t, s.Stop()) })
	testenv.Watchdog(t, patience, stop)
	t.Cleanup(stop)
	must(t, s.Start([]sensor.Watch{{Path: dir, Events: []event.Type{
		event.Create, event.CloseWrite, event.Rename, event.Delete,
	}}}))
	shell := exec.CommandContext(t.Context(), "/bin/sh", "-c", "echo x > one/a && mv one/a two/b && rm two/b")
	shell.Dir = dir
	must(t, shell.Run())
	// The path of a file is looked up after the act, so the one of close-write may be a later name, or gone.
	want := []string{"create /one a", "rename /one a /two b", "delete /two b"}
	until(t, "all acts are told", func() bool { return len(g.acts(dir)) > len(want) })
	acts := g.acts(dir)
	rest := slices.DeleteFunc(slices.Clone(acts), func(a string) bool {
		return strings.HasPrefix(a, "close-write")
	})
	if !slices.Equal(rest, want) || len(acts) != len(want)+1 {
		t.Errorf("%q, want %q and one close-write", acts, want)
	}
	if strings.HasPrefix(acts[0], "close-write") {
		t.Errorf("%q: written before it was created", acts)
	}
	for _, ev := range g.seen {
		if ev.Actor.PID == 0 || ev.Actor.PID == int32(os.Getpid()) || ev.ID == 0 {
			t.Errorf("%+v", ev)
		}
	}
}
