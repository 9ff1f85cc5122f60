package playground

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
)

const prefix = "keepout-test-"

func TestHomeIsGoneWhenRemoved(t *testing.T) {
	t.Parallel()
	temp := t.TempDir()
	h, err := Claim(temp, prefix)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lock(filepath.Join(h.Dir, LockName)); err == nil {
		t.Error("the folder's lock can be taken twice")
	}
	Sweep(temp, prefix)
	if _, err := os.Stat(h.Dir); err != nil {
		t.Errorf("a folder in use was swept: %v", err)
	}
	if err := os.MkdirAll(filepath.Join(h.Dir, "content", "hashlist"), 0o755); err != nil {
		t.Fatal(err)
	}
	if traces := h.remove(); len(traces) > 0 {
		t.Errorf("left: %v", traces)
	}
	if _, err := os.Stat(h.Dir); !os.IsNotExist(err) {
		t.Errorf("the folder: %v", err)
	}
}

func TestSweep(t *testing.T) {
	t.Parallel()
	temp := t.TempDir()
	dead, err := Claim(temp, prefix)
	if err != nil {
		t.Fatal(err)
	}
	if err := dead.lock.Close(); err != nil { // as the end of both processes does
		t.Fatal(err)
	}
	young := filepath.Join(temp, prefix+"young") // has no lock yet
	other := filepath.Join(temp, "other")
	for _, dir := range []string{young, other} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(other, filepath.Join(temp, prefix+"link")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(other, LockName), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	Sweep(temp, prefix)
	for dir, want := range map[string]bool{dead.Dir: false, young: true, other: true} {
		if _, err := os.Stat(dir); (err == nil) != want {
			t.Errorf("%s is there: %v, want %v", filepath.Base(dir), err == nil, want)
		}
	}
}

func TestChildren(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("/bin/sh", "-c", "read line")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	mine := func() bool {
		return slices.ContainsFunc(Children(os.Getpid()), func(p Process) bool { return p.PID == cmd.Process.Pid })
	}
	if !mine() {
		t.Error("a child is not found")
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // read fails at the end of its input
	if mine() {
		t.Error("a child that is gone is found")
	}
}
