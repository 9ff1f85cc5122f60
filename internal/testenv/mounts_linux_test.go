package testenv

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestPrivateMountsIsTrulyAnotherNamespace(t *testing.T) {
	Need(t, Root, MountNS)
	if !InPrivateMounts() {
		t.Fatal("root and able to unshare, yet the tests run in the namespace they were started in")
	}
	here, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(parentVariable, here)
	if InPrivateMounts() {
		t.Error("the mark alone was believed: this namespace is the one recorded as the parent's")
	}
	t.Setenv(parentVariable, "")
	if InPrivateMounts() {
		t.Error("no mark, yet the namespace is taken for private")
	}
}

func TestTmpfs(t *testing.T) {
	Need(t, Root, MountNS)
	var dir string
	t.Run("mounted", func(t *testing.T) {
		dir = Tmpfs(t, "1m")
		if kind := fsType(t, dir); kind != unix.TMPFS_MAGIC {
			t.Fatalf("file system %#x, want tmpfs", kind)
		}
		if err := os.WriteFile(filepath.Join(dir, "big"), make([]byte, 2<<20), 0o600); err == nil {
			t.Error("2 MiB fit into 1 MiB")
		}
		parent, err := os.ReadFile("/proc/" + parentPID() + "/mountinfo")
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(parent), dir) {
			t.Error("the mount leaked to the process that started the tests")
		}
	})
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the mount point is still there after the test: %v", err)
	}
}

func TestReadOnly(t *testing.T) {
	Need(t, Root, MountNS)
	dir := Tmpfs(t, "1m")
	ReadOnly(t, dir)
	if err := os.WriteFile(filepath.Join(dir, "x"), nil, 0o600); !errors.Is(err, unix.EROFS) {
		t.Errorf("write gives %v, want EROFS", err)
	}
}

func TestTmpfsRefusesOutsideAPrivateNamespace(t *testing.T) {
	t.Setenv(parentVariable, "")
	r := record(func(tb testing.TB) { Tmpfs(tb, "1m") })
	if r.outcome != "fatal" || !strings.Contains(r.message, "private mount namespace") {
		t.Errorf("got %q %q, want a fatal refusal", r.outcome, r.message)
	}
}

func fsType(t *testing.T, dir string) int64 {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	return int64(st.Type) //nolint:unconvert // int32 on some architectures
}

func parentPID() string {
	link, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(link)) {
		if pid, found := strings.CutPrefix(line, "PPid:"); found {
			return strings.TrimSpace(pid)
		}
	}
	return "self"
}
