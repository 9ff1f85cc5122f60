package bench

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/internal/testenv"
)

// TestHungMonitorIsFreed: a monitor that stops in mid-work holds up a measurement only until the limit. The measurement
// says so, nobody waits any more, and the arena is out of the run.
func TestHungMonitorIsFreed(t *testing.T) {
	testenv.Need(t, testenv.Root, testenv.Fanotify, testenv.MountNS)
	bin := testenv.Build(t, "./bench/load", "./bench/responder")
	bed := &bed{bin: bin, s: scale{limit: 2 * time.Second}}
	a := &arena{dir: testenv.Tmpfs(t, "16m"), free: func() {}}
	if _, err := a.measure(bed, "make", a.dir, "20"); err != nil {
		t.Fatal(err)
	}
	pid, end := readyProcess(t, filepath.Join(bin, "responder"), a.dir)
	a.free = end
	if _, err := a.measure(bed, "open", a.dir, "20", "2"); err != nil {
		t.Fatalf("with a monitor that answers: %v", err)
	}
	must(t, unix.Kill(pid, unix.SIGSTOP))
	if _, err := a.measure(bed, "open", a.dir, "20", "2"); !errors.Is(err, errHung) || !a.lost {
		t.Fatalf("with a stopped monitor: %v, lost: %v", err, a.lost)
	}
	if _, err := os.ReadFile(filepath.Join(a.dir, "0", "0")); err != nil {
		t.Errorf("after that: %v", err)
	}
}

// TestResponderRefusesTheHost: a mark on a file system that others use would hold up the machine.
func TestResponderRefusesTheHost(t *testing.T) {
	testenv.Need(t, testenv.Root, testenv.MountNS)
	bin := testenv.Build(t, "./bench/responder")
	within := filepath.Join(testenv.Tmpfs(t, "1m"), "folder")
	must(t, os.Mkdir(within, 0o755))
	for _, dir := range []string{"/nonexistent", within} { // not "/": the test must be harmless when it fails
		if out := failing(t, filepath.Join(bin, "responder"), "-life", "1s", dir); out == "" {
			t.Errorf("it marked the file system of %s", dir)
		}
	}
}
