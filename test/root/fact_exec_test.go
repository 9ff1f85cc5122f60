package root

import (
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/internal/sensor/fanotify"
	"github.com/keepout-security/keepout/internal/testenv"
)

// loader is the dynamic loader of this machine's programs.
const loader = "/lib64/ld-linux-x86-64.so.2"

// TestFactExecAsksTwice: execve(2) asks about the program as an exec and then, in the same process, as an
// open, for ELF and scripts alike; an interpreter that is told the name only opens it.
func TestFactExecAsksTwice(t *testing.T) {
	need(t)
	dir := testenv.Tmpfs(t, "16m")
	program := copyOf(t, "/bin/true", filepath.Join(dir, "program"))
	script := write(t, filepath.Join(dir, "script"), "#!/bin/sh\nexit 0\n", 0o755)
	l := listen(t, dir, both, nil)
	for _, c := range []struct {
		name, file string
		argv       []string
		want       []string
	}{
		{"program", program, []string{program}, []string{"exec", "open"}},
		{"script", script, []string{script}, []string{"exec", "open", "open"}}, // the shell opens it once more
		{"script by its interpreter", script, []string{"/bin/sh", script}, []string{"open"}},
		{"program by the loader", program, []string{loader, program}, []string{"open"}},
	} {
		before := len(l.of(inode(t, c.file)))
		// By an actor: to start a program, Go waits for its exec with the scheduler's processor held, so that a
		// collection of garbage in that moment stops for good a process that is itself the one to answer.
		cmd := actor(t, "exec", c.argv...)
		if err := cmd.Run(); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		got := masks(l.of(inode(t, c.file))[before:], cmd.Process.Pid)
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// TestFactMemoryIsNotSeen documents a limit: a program that exists only in memory (memfd_create(2)) belongs
// to no file system that is watched, and no event arrives when it is executed.
func TestFactMemoryIsNotSeen(t *testing.T) {
	need(t)
	dir := testenv.Tmpfs(t, "16m")
	program := copyOf(t, "/bin/true", filepath.Join(dir, "program"))
	l := listen(t, dir, both, nil)
	if err := actor(t, "fexec", program).Run(); err != nil {
		t.Fatal(err)
	}
	seen := l.of(inode(t, program))
	if len(seen) != 1 || seen[0].mask != fanotify.OpenPerm || l.count() != 1 {
		t.Errorf("%d events, %v: want the one open that read the program, and no exec", l.count(), seen)
	}
}

// TestFactMountsDoNotEvade: a file-system mark sees an open through a bind mount and from another mount
// namespace.
func TestFactMountsDoNotEvade(t *testing.T) {
	need(t)
	dir := testenv.Tmpfs(t, "16m")
	write(t, filepath.Join(dir, "file"), "content", 0o644)
	other := bind(t, dir)
	l := listen(t, dir, fanotify.OpenPerm, refuse)
	denied(t, open(filepath.Join(other, "file")))
	cmd := actor(t, "open", filepath.Join(dir, "file"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
	if _ = cmd.Run(); cmd.ProcessState.ExitCode() != exitEPERM {
		t.Errorf("from another mount namespace: %v, want EPERM", cmd.ProcessState)
	}
	if n := l.count(); n != 2 {
		t.Errorf("%d events, want 2", n)
	}
}
