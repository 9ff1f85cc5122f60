//go:build linux

package durable

import (
	"bufio"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	first, err := Lock(path)
	if err != nil {
		t.Fatal(err)
	}
	wantFile(t, path, []byte(strconv.Itoa(os.Getpid())+"\n"))

	_, err = Lock(path)
	if !errors.Is(err, ErrLocked) {
		t.Fatalf("second lock gives %v, want ErrLocked", err)
	}
	want := "another keepoutd (pid " + strconv.Itoa(os.Getpid()) + ") uses this state folder"
	if err.Error() != want {
		t.Errorf("error is %q, want %q", err, want)
	}

	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := Lock(path)
	if err != nil {
		t.Fatalf("lock after Close: %v", err)
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestLockOfAnUnreadableOwner(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	l, err := Lock(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	for _, text := range []string{"", "no number", "-7", strings.Repeat("9", 100)} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Lock(path)
		var locked *LockedError
		if !errors.As(err, &locked) || locked.PID != 0 {
			t.Errorf("owner %q gives %v, want a LockedError without a pid", text, err)
		}
	}
}

func TestLockIgnoresAStaleFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	if err := os.WriteFile(path, []byte("1234567890\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := Lock(path)
	if err != nil {
		t.Fatal(err)
	}
	wantFile(t, path, []byte(strconv.Itoa(os.Getpid())+"\n"))
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// lockVariable makes the test binary take the lock it names and wait for its standard input to close.
const lockVariable = "KEEPOUT_TEST_LOCK"

func TestLockEndsWithItsProcess(t *testing.T) {
	if path := os.Getenv(lockVariable); path != "" {
		l, err := Lock(path)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		os.Stdout.WriteString("locked\n")
		_, _ = io.Copy(io.Discard, os.Stdin)
		return
	}
	path := filepath.Join(t.TempDir(), "lock")
	child := exec.Command(os.Args[0], "-test.run=^TestLockEndsWithItsProcess$")
	child.Env = append(os.Environ(), lockVariable+"="+path)
	stdin, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stdin.Close() })
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "locked\n" {
		t.Fatalf("child says %q, %v", line, err)
	}

	_, err = Lock(path)
	var locked *LockedError
	if !errors.As(err, &locked) || locked.PID != child.Process.Pid {
		t.Fatalf("lock gives %v, want pid %d", err, child.Process.Pid)
	}

	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait()
	l, err := Lock(path)
	if err != nil {
		t.Fatalf("lock after the owner died: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}
