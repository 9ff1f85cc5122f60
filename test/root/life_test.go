package root

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/control"
	"github.com/keepout-security/keepout/internal/health"
	"github.com/keepout-security/keepout/internal/supervisor"
	"github.com/keepout-security/keepout/internal/testenv"
	"github.com/keepout-security/keepout/test/testhost"
)

// traffic opens files from several goroutines until it is stopped.
type traffic struct {
	stop   chan struct{}
	ended  chan error
	opens  atomic.Uint64
	number int
}

func drive(number int, paths []string) *traffic {
	tr := &traffic{stop: make(chan struct{}), ended: make(chan error, number), number: number}
	for i := range number {
		go func() { tr.ended <- tr.loop(paths, i) }()
	}
	return tr
}

func (tr *traffic) loop(paths []string, next int) error {
	for {
		select {
		case <-tr.stop:
			return nil
		default:
		}
		next++
		if err := open(paths[next%len(paths)]); err != nil {
			return err
		}
		tr.opens.Add(1)
	}
}

// end stops the traffic and checks that no open failed and none hangs.
func (tr *traffic) end(t testing.TB) {
	t.Helper()
	close(tr.stop)
	for range tr.number {
		allowed(t, result(t, tr.ended))
	}
}

// flows waits until more files have been opened.
func (tr *traffic) flows(t testing.TB) {
	t.Helper()
	start := tr.opens.Load()
	until(t, "files are opened", func() bool { return tr.opens.Load() >= start+50 })
}

// running lists the processes of the providers and checks that there are some.
func running(t testing.TB, h *testhost.Host) (pids []int) {
	t.Helper()
	for _, p := range h.Status().Providers {
		if p.PID != 0 {
			pids = append(pids, p.PID)
		}
	}
	if len(pids) == 0 {
		t.Fatal("no provider runs")
	}
	return pids
}

func allEnded(t testing.TB, pids []int) {
	t.Helper()
	until(t, "the providers have ended", func() bool {
		for _, pid := range pids {
			if !ended(pid) {
				return false
			}
		}
		return true
	})
}

// TestStopUnderLoad: however the daemon ends, no open fails or hangs, afterwards nothing is denied, and
// nothing that it started is left.
func TestStopUnderLoad(t *testing.T) {
	need(t)
	for name, signal := range map[string]unix.Signal{"TERM": unix.SIGTERM, "KILL": unix.SIGKILL} {
		t.Run(name, func(t *testing.T) {
			opt := testhost.Options{Providers: []testhost.Provider{
				hashlist(t, badText), subject("hangs", "hang", event.Enforce),
			}, Extra: "budgets: {content: 10s}"}
			h := testhost.Prepare(t, opt)
			good, bad := files(t, h.Dir, "good", 16), h.File("bad", badText)
			hanging := h.File("hangs", "FAULT")
			h.Launch(opt)
			denied(t, open(bad))
			pids := running(t, h)
			waits := opening(hanging)
			tr := drive(8, good)
			tr.flows(t)
			held(t, waits)
			h.Signal(signal)
			if code, _ := h.Exited(); signal == unix.SIGTERM && code != 0 {
				t.Errorf("exit code %d", code)
			}
			allowed(t, result(t, waits))
			tr.flows(t)
			tr.end(t)
			allowed(t, open(bad))
			allEnded(t, pids)
		})
	}
}

// TestAllow: an administrator's exception lifts a denial for one content, survives a restart and ends by
// itself.
func TestAllow(t *testing.T) {
	need(t)
	opt := testhost.Options{Providers: []testhost.Provider{hashlist(t, badText, badScript)}}
	h := testhost.Start(t, opt)
	bad, other := h.File("bad", badText), h.File("other", badScript)
	denied(t, open(bad))
	out, code := command(t, h, "allow", digest(badText), "--for", "1h", "--reason", "false alarm")
	if code != 0 {
		t.Fatalf("allow: %s", out)
	}
	allowed(t, open(bad))
	denied(t, open(other))
	h.Until("the exception is recorded", func() bool {
		for _, rec := range h.Records(bad) {
			if v := rec.Verdict; v.Reason == event.ReasonAllowance && v.Allowed && v.Rule == "false alarm" {
				return true
			}
		}
		return false
	})
	if code := h.Stop(); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	shorten(t, filepath.Join(h.State, "state", "allowances.json"), 3*time.Second)
	h.Launch(opt)
	allowed(t, open(bad))
	h.Until("the exception ends", func() bool { return open(bad) != nil })
	denied(t, open(bad))
	if len(h.Status().Allowed) != 0 {
		t.Error("an exception that is over is still listed")
	}
}

// shorten makes every exception end soon.
func shorten(t testing.TB, file string, d time.Duration) {
	t.Helper()
	b, err := os.ReadFile(file)
	must(t, err)
	until := regexp.MustCompile(`"until": *"[^"]*"`)
	if !until.Match(b) {
		t.Fatalf("%s holds no exception: %s", file, b)
	}
	soon := fmt.Sprintf(`"until": %q`, time.Now().Add(d).UTC().Format(time.RFC3339Nano))
	must(t, os.WriteFile(file, until.ReplaceAll(b, []byte(soon)), 0o600))
}

func reload(h *testhost.Host) error {
	return h.Do(control.Request{Do: "reload"}, func(control.Reply) {})
}

// TestReload: a configuration that is wrong changes nothing; one that adds a watch loses neither the old
// one nor a single open meanwhile; new content is in force soon after.
func TestReload(t *testing.T) {
	need(t)
	list := hashlist(t, badText)
	// Each open shall be an event.
	opt := testhost.Options{Providers: []testhost.Provider{list}, Extra: "kernel_memory: false"}
	h := testhost.Prepare(t, opt)
	good, bad := files(t, h.Dir, "good", 8), h.File("bad", badText)
	second := testenv.Tmpfs(t, "16m")
	there := write(t, filepath.Join(second, "bad"), badText, 0o644)
	h.Launch(opt)
	text, err := os.ReadFile(h.Config)
	must(t, err)

	h.Write(h.Config, string(text)+"unknown: key\n")
	var wrong health.Problem
	if err := reload(h); !errors.As(err, &wrong) || wrong.Code != "KO-2007" {
		t.Errorf("a wrong configuration: %v, want KO-2007", err)
	}
	denied(t, open(bad))
	allowed(t, open(there))

	before := h.Status()
	tr := drive(4, good)
	tr.flows(t)
	h.Write(h.Config, strings.Replace(string(text), "kernel_memory:",
		fmt.Sprintf("  - {path: %s, events: [open, exec]}\nkernel_memory:", second), 1))
	must(t, reload(h))
	tr.flows(t)
	tr.end(t)
	s := h.Status()
	if got, want := given(s)-given(before), tr.opens.Load(); got != want || len(s.Watching) != 2 {
		t.Errorf("%d verdicts on %d opens; watching %v", got, want, s.Watching)
	}
	for reason, n := range s.Sensor.Unasked {
		if n != before.Sensor.Unasked[reason] {
			t.Errorf("%d opens were not judged: %s", n-before.Sensor.Unasked[reason], reason)
		}
	}
	denied(t, open(bad))
	denied(t, open(there))

	writeList(t, list.Content, badScript)
	must(t, reload(h))
	h.Until("the new content is in force", func() bool { return open(bad) == nil })
	denied(t, open(h.File("script", badScript)))
	p := provider(t, h.Status(), "hashlist")
	if v := p.Versions.Content; p.Restarts != 0 || v.Factory == v.Active {
		t.Errorf("%d restarts for new content; versions %+v", p.Restarts, v)
	}
}

// TestMalformedContent: content that cannot be loaded is refused; the old one stays in force and status
// says so.
func TestMalformedContent(t *testing.T) {
	need(t)
	list := hashlist(t, badText)
	h := testhost.Start(t, testhost.Options{Providers: []testhost.Provider{list}})
	bad := h.File("bad", badText)
	write(t, filepath.Join(list.Content, "deny.txt"), "this is not a list\n", 0o644)
	must(t, reload(h))
	pid := provider(t, h.Status(), "hashlist").PID
	h.Until("status says so", func() bool { return problem(h.Status(), "KO-1706") })
	denied(t, open(bad))
	s := provider(t, h.Status(), "hashlist")
	if s.State != supervisor.Running || s.PID != pid || s.Restarts != 0 {
		t.Errorf("provider %+v", s)
	}
	for _, p := range h.Status().Problems {
		if p.Code == "KO-1706" && !strings.Contains(p.Title, "deny.txt:1:1: KO-1007") {
			t.Errorf("the problem does not name the place: %s", p.Title)
		}
	}
}

// TestSecondDaemon: one state folder has one daemon.
func TestSecondDaemon(t *testing.T) {
	need(t)
	h := testhost.Start(t, testhost.Options{Providers: []testhost.Provider{hashlist(t, badText)}})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	second := exec.CommandContext(ctx, filepath.Join(h.Bin, "keepoutd"), "--config", h.Config,
		"--state-dir", h.State, "--run-dir", t.TempDir(), "--providers-dir", h.Providers)
	out, _ := second.CombinedOutput()
	if code := second.ProcessState.ExitCode(); code != 1 || !strings.Contains(string(out), "KO-1101") {
		t.Errorf("exit code %d, %s", code, out)
	}
	denied(t, open(h.File("bad", badText)))
}

// TestFullDisk: when nothing more can be written, verdicts go on and status says what was lost.
func TestFullDisk(t *testing.T) {
	need(t)
	opt := testhost.Options{Providers: []testhost.Provider{hashlist(t, badText)}}
	h := testhost.Prepare(t, opt)
	disk := testenv.Tmpfs(t, "24m") // room for a copy of the engine
	h.State = filepath.Join(disk, "state")
	h.Launch(opt)
	bad := h.File("bad", badText)
	denied(t, open(bad))
	filler, err := os.Create(filepath.Join(disk, "filler"))
	must(t, err)
	defer filler.Close()
	for chunk := make([]byte, 4096); err == nil; {
		_, err = filler.Write(chunk)
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	h.Until("records are lost", func() bool {
		denied(t, open(bad))
		return h.Status().Journal.Lost > 0
	})
	denied(t, open(bad))
	allowed(t, open(h.File("good", goodText)))
	if s := h.Status(); !problem(s, "KO-1401") {
		t.Errorf("problems %v", s.Problems)
	}
}

// TestStartErrors: a daemon that cannot do what it is told ends with code 1 and the place of the mistake.
func TestStartErrors(t *testing.T) {
	need(t)
	for _, c := range []struct {
		name, code string
		spoil      func(t *testing.T, h *testhost.Host, program string)
	}{
		{"unknown provider", "KO-1003", func(t *testing.T, h *testhost.Host, _ string) {
			t.Helper()
			must(t, os.RemoveAll(filepath.Join(h.Providers, "subject")))
		}},
		{"missing executable", "KO-1004", func(t *testing.T, _ *testhost.Host, program string) {
			t.Helper()
			must(t, os.Remove(program))
		}},
		{"changed executable", "KO-1005", func(t *testing.T, _ *testhost.Host, program string) {
			t.Helper()
			f, err := os.OpenFile(program, os.O_WRONLY|os.O_APPEND, 0)
			must(t, err)
			_, err = f.WriteString("more")
			must(t, errors.Join(err, f.Close()))
		}},
		{"unknown key", "KO-1001", func(t *testing.T, h *testhost.Host, _ string) {
			t.Helper()
			h.Write(h.Config, "version: 1\nsurprise: 1\n")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			opt := testhost.Options{Providers: []testhost.Provider{subject("subject", "", event.Enforce)}, Wait: true}
			h := testhost.Prepare(t, opt)
			c.spoil(t, h, filepath.Join(h.Providers, "subject", "subject"))
			h.Launch(opt)
			code, log := h.Exited()
			place := regexp.MustCompile(regexp.QuoteMeta(h.Config) + `:\d+:\d+`)
			if code != 1 || !strings.Contains(log, c.code) || !place.MatchString(log) {
				t.Errorf("exit code %d, want 1, %s and a place in %s:\n%s", code, c.code, h.Config, log)
			}
		})
	}
}
