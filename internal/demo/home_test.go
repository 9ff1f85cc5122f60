package demo

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
)

func TestHomeIsGoneWhenRemoved(t *testing.T) {
	t.Parallel()
	temp := t.TempDir()
	h, err := claim(temp)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lock(filepath.Join(h.dir, lockName)); err == nil {
		t.Error("the folder's lock can be taken twice")
	}
	sweep(temp)
	if _, err := os.Stat(h.dir); err != nil {
		t.Errorf("a folder in use was swept: %v", err)
	}
	if err := furnish(h.dir, []string{"hashlist"}); err != nil {
		t.Fatal(err)
	}
	if traces := h.remove(); len(traces) > 0 {
		t.Errorf("left: %v", traces)
	}
	if _, err := os.Stat(h.dir); !os.IsNotExist(err) {
		t.Errorf("the folder: %v", err)
	}
}

func TestSweep(t *testing.T) {
	t.Parallel()
	temp := t.TempDir()
	dead, err := claim(temp)
	if err != nil {
		t.Fatal(err)
	}
	if err := dead.lock.Close(); err != nil { // as the end of both processes does
		t.Fatal(err)
	}
	young := filepath.Join(temp, homePattern+"young") // has no lock yet
	other := filepath.Join(temp, "other")
	for _, dir := range []string{young, other} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(other, filepath.Join(temp, homePattern+"link")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(other, lockName), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	sweep(temp)
	for dir, want := range map[string]bool{dead.dir: false, young: true, other: true} {
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
		return slices.ContainsFunc(children(os.Getpid()), func(p process) bool { return p.pid == cmd.Process.Pid })
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
