package memexec_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/internal/memexec"
)

// TestLoad: the copy runs, and cannot be changed, also by who opens it anew.
func TestLoad(t *testing.T) {
	t.Parallel()
	f, err := memexec.Load("copy", "/bin/true")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	path := fmt.Sprintf("/proc/self/fd/%d", f.Fd())
	if err := exec.CommandContext(t.Context(), fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd())).Run(); err != nil {
		t.Errorf("run: %v", err)
	}
	if _, err := f.WriteAt([]byte("x"), 0); !errors.Is(err, unix.EPERM) {
		t.Errorf("write: %v", err)
	}
	if again, err := os.OpenFile(path, os.O_RDWR, 0); err == nil {
		if err := again.Truncate(0); !errors.Is(err, unix.EPERM) {
			t.Errorf("truncate: %v", err)
		}
		_ = again.Close()
	}
	if _, err := memexec.Load("none", t.TempDir()+"/none"); !errors.Is(err, unix.ENOENT) {
		t.Errorf("a program that does not exist: %v", err)
	}
}
