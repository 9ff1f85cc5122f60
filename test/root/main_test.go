package root

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/internal/sandbox"
	"github.com/keepout-security/keepout/internal/testenv"
)

// patience bounds every wait for something that is quick on an idle machine.
const patience = 20 * time.Second

func TestMain(m *testing.M) {
	if sandbox.IsLauncher() {
		os.Exit(sandbox.Launch())
	}
	if act := os.Getenv(actVariable); act != "" {
		os.Exit(perform(act, os.Args[1:]))
	}
	os.Exit(testenv.PrivateMounts(m))
}

func need(t testing.TB, more ...testenv.Capability) {
	t.Helper()
	testenv.Need(t, append([]testenv.Capability{testenv.Root, testenv.Fanotify, testenv.MountNS}, more...)...)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// until waits for a condition.
func until(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if cond() {
			return
		}
	}
	t.Fatalf("waited in vain until %s", what)
}

// open opens and closes a file as any program would.
func open(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return f.Close()
}

// opening opens a file on a goroutine and delivers the result.
func opening(path string) <-chan error {
	done := make(chan error, 1)
	go func() { done <- open(path) }()
	return done
}

// result waits for an opener.
func result(t testing.TB, done <-chan error) error {
	t.Helper()
	select {
	case err := <-done:
		return err
	case <-time.After(patience):
		t.Fatal("the opener still waits")
		return nil
	}
}

// held checks that nothing comes out of done for a while.
func held(t testing.TB, done <-chan error) {
	t.Helper()
	select {
	case err := <-done:
		t.Fatalf("the opener was not held: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
}

func denied(t testing.TB, err error) {
	t.Helper()
	if !errors.Is(err, unix.EPERM) {
		t.Errorf("got %v, want EPERM", err)
	}
}

func allowed(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Errorf("got %v, want success", err)
	}
}

// write makes a file with the mode given, whatever the umask.
func write(t testing.TB, path, content string, mode os.FileMode) string {
	t.Helper()
	must(t, os.WriteFile(path, []byte(content), mode))
	must(t, os.Chmod(path, mode))
	return path
}

// copyOf copies a program of the host into a folder.
func copyOf(t testing.TB, program, to string) string {
	t.Helper()
	b, err := os.ReadFile(program)
	must(t, err)
	return write(t, to, string(b), 0o755)
}

// bind mounts a folder at a second place.
func bind(t testing.TB, from string) string {
	t.Helper()
	to := mountPoint(t)
	mounted(t, to, unix.Mount(from, to, "", unix.MS_BIND, ""))
	return to
}

func mountPoint(t testing.TB) string {
	t.Helper()
	if !testenv.InPrivateMounts() {
		t.Fatal("mount: not in a private mount namespace")
	}
	dir, err := os.MkdirTemp("", "keepout-root-")
	must(t, err)
	must(t, os.Chmod(dir, 0o755))
	t.Cleanup(func() { _ = os.Remove(dir) })
	return dir
}

func mounted(t testing.TB, at string, err error) {
	t.Helper()
	must(t, err)
	t.Cleanup(func() {
		if err := unix.Unmount(at, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", at, err)
		}
	})
}

// ext4 makes a small ext4 on a loop device and mounts it.
func ext4(t testing.TB) string {
	t.Helper()
	testenv.Need(t, testenv.Loop)
	to := mountPoint(t)
	image := filepath.Join(t.TempDir(), "image")
	must(t, os.WriteFile(image, nil, 0o600))
	must(t, os.Truncate(image, 16<<20))
	run(t, "mkfs.ext4", "-q", image)
	out, err := exec.CommandContext(t.Context(), "mount", "-o", "loop", image, to).CombinedOutput()
	if err != nil {
		t.Fatalf("mount: %v %s", err, out)
	}
	mounted(t, to, nil)
	return to
}

func run(t testing.TB, name string, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v %s", name, err, out)
	}
}

// handleOf is the identity of a file as the kernel gives it; looking raises no event.
func handleOf(t testing.TB, path string) string {
	t.Helper()
	h, _, err := unix.NameToHandleAt(unix.AT_FDCWD, path, 0)
	must(t, err)
	return fmt.Sprintf("%d:%x", h.Type(), h.Bytes())
}
