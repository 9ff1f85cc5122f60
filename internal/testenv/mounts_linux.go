package testenv

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// parentVariable marks a re-executed test binary; it holds its parent's mount namespace, "mnt:[4026531841]".
const parentVariable = "KEEPOUT_PARENT_MNTNS"

// PrivateMounts runs a package's tests in a mount namespace of their own: call it from TestMain and exit
// with its result. It executes the test binary again, with the same arguments, after CLONE_NEWNS and with
// every mount made private, and returns the child's exit code. Without the right to do so it runs the tests
// where they are: Need then decides for each, and Tmpfs refuses. It also removes what Build left.
func PrivateMounts(m *testing.M) int {
	defer builds.remove()
	if os.Getenv(parentVariable) != "" || Probe(Root) != nil || Probe(MountNS) != nil {
		return m.Run()
	}
	code, err := rerun()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

func rerun() (int, error) {
	here, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return 0, fmt.Errorf("read the mount namespace: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return 0, fmt.Errorf("find the test binary: %w", err)
	}
	// The child dies with the thread that started it (Pdeathsig), so this thread must stay.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.Command(self, os.Args[1:]...) //nolint:noctx // -test.timeout bounds it
	cmd.Env = append(os.Environ(), parentVariable+"="+here)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = privateMounts()
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("tests in a private mount namespace: %w", err)
	}
	// Where -test.timeout did not work, "go test" asks with SIGQUIT for stacks: those worth seeing are the child's.
	quit := make(chan os.Signal, 1)
	signal.Notify(quit, unix.SIGQUIT)
	defer signal.Stop(quit)
	go func() {
		<-quit
		_ = cmd.Process.Signal(unix.SIGQUIT) // gone: its end is what Wait tells
	}()
	err = cmd.Wait()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0, nil
	case errors.As(err, &exit) && exit.Exited():
		return exit.ExitCode(), nil
	default:
		return 0, fmt.Errorf("tests in a private mount namespace: %w", err)
	}
}

// InPrivateMounts reports whether this process was started by PrivateMounts and truly has another mount
// namespace than the process that started it.
func InPrivateMounts() bool {
	parent := os.Getenv(parentVariable)
	here, err := os.Readlink("/proc/self/ns/mnt")
	return parent != "" && err == nil && here != parent
}

// Tmpfs mounts a tmpfs of the given size ("64m"), which every user may enter, and returns its folder. The
// test fails at once outside a private mount namespace. The mount is detached at cleanup even while files
// are open.
func Tmpfs(t testing.TB, size string) string {
	t.Helper()
	if !InPrivateMounts() {
		t.Fatal("mount a tmpfs: not in a private mount namespace; call testenv.PrivateMounts from TestMain")
	}
	dir, err := os.MkdirTemp("", "keepout-tmpfs-")
	if err != nil {
		t.Fatalf("make a mount point: %v", err)
	}
	t.Cleanup(func() { _ = os.Remove(dir) })
	err = unix.Mount("keepout-test", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755,size="+size)
	if err != nil {
		t.Fatalf("mount a tmpfs of %s: %v", size, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return dir
}

// ReadOnly makes a file system that Tmpfs returned read-only. The test fails at once outside a private mount
// namespace.
func ReadOnly(t testing.TB, dir string) {
	t.Helper()
	if !InPrivateMounts() {
		t.Fatal("make a mount read-only: not in a private mount namespace")
	}
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatalf("make %s read-only: %v", dir, err)
	}
}
