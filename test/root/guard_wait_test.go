package root

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/test/testhost"
)

// TestOnlyOneWaits: a core that hangs on the only event that there is, is ended in time: whether the guard or a reader
// was first to wake for that event, the guard knows of it.
func TestOnlyOneWaits(t *testing.T) {
	need(t)
	h := testhost.Start(t, testhost.Options{Providers: []testhost.Provider{subject("hangs", "hang", "enforce")}})
	for i := range 2 { // who is first is left to chance
		before := h.Status().PID
		path := h.File(fmt.Sprintf("file-%d", i), "FAULT")
		time.Sleep(2 * time.Second) // until the guard sleeps
		waits := opening(path)
		held(t, waits)
		freeze(t, before)
		allowed(t, result(t, waits))
		anew(t, h, before)
	}
}

// TestStormWhileNoCoreReads: openers that are faster than the guard do not keep it from letting a new core take over.
func TestStormWhileNoCoreReads(t *testing.T) {
	need(t)
	h := testhost.Start(t, testhost.Options{Providers: []testhost.Provider{hashlist(t, badText)}})
	before := h.Status().PID
	tr := drive(64, files(t, h.Dir, "good", 50))
	tr.flows(t)
	must(t, unix.Kill(before, unix.SIGKILL))
	anew(t, h, before)
	tr.end(t)
}

// TestFirstStartFails: a daemon that cannot watch what it should says so and ends, also when that comes out late.
func TestFirstStartFails(t *testing.T) {
	need(t)
	opt := testhost.Options{
		Providers: []testhost.Provider{hashlist(t, badText)}, Wait: true, Watch: filepath.Join(t.TempDir(), "none"),
	}
	h := testhost.Prepare(t, opt)
	h.Launch(opt)
	if code, log := h.Exited(); code != 1 || strings.Count(log, "KO-1103") != 1 {
		t.Errorf("it ended with %d:\n%s", code, log)
	}
}

// TestNobodyReadsTheLog: a daemon whose standard error leads nowhere works all the same.
func TestNobodyReadsTheLog(t *testing.T) {
	need(t)
	opt := testhost.Options{Providers: []testhost.Provider{hashlist(t, badText)}}
	h := testhost.Prepare(t, opt)
	bad := h.File("bad", badText)
	r, w, err := os.Pipe()
	must(t, err)
	cmd := exec.CommandContext(context.Background(), filepath.Join(h.Bin, "keepoutd"), "--config", h.Config, "--verbose",
		"--state-dir", h.State, "--run-dir", h.Run, "--providers-dir", h.Providers)
	cmd.Stderr = w
	must(t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	must(t, w.Close())
	_, err = io.ReadFull(r, make([]byte, 16)) // the first line has come
	must(t, err)
	must(t, r.Close())
	h.Until("it votes", func() bool {
		s, err := h.TryStatus()
		return err == nil && !problem(s, "KO-1301") && !problem(s, "KO-1601")
	})
	denied(t, open(bad))
	if s := h.Status(); s.Guard.Cores != 1 {
		t.Errorf("%d cores were started", s.Guard.Cores)
	}
	must(t, cmd.Process.Signal(unix.SIGTERM))
	allowed(t, result(t, ended))
}
