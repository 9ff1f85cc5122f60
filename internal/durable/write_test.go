//go:build linux

package durable

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/keepout-security/keepout/internal/testenv"
)

func TestMain(m *testing.M) { os.Exit(testenv.PrivateMounts(m)) }

func TestWriteFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "state.json")
	for _, step := range []struct {
		data []byte
		mode fs.FileMode
	}{
		{[]byte("one"), 0o600},
		{[]byte("the second is longer"), 0o644},
		{nil, 0o666}, // wider than any usual umask: the mode is exact
		{bytes.Repeat([]byte("x"), 1<<20), 0o640},
	} {
		if err := WriteFile(path, step.data, step.mode); err != nil {
			t.Fatal(err)
		}
		wantFile(t, path, step.data)
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != step.mode {
			t.Errorf("mode is %v, want %v", info.Mode().Perm(), step.mode)
		}
	}
	wantNames(t, dir, "state.json")
}

func TestWriteFileReplacesASymbolicLink(t *testing.T) {
	dir := t.TempDir()
	target, link := filepath.Join(dir, "target"), filepath.Join(dir, "link")
	if err := WriteFile(target, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, link); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(link, []byte("new"), 0o600); err != nil {
		t.Fatal(err)
	}
	wantFile(t, target, []byte("precious"))
	wantFile(t, link, []byte("new"))
}

// faulty is a real temporary file whose named step fails.
type faulty struct {
	*os.File
	step string
}

func (f faulty) fails(step string) error {
	if f.step == step {
		return syscall.EIO
	}
	return nil
}

func (f faulty) Write(data []byte) (int, error) {
	if err := f.fails("write"); err != nil {
		n, _ := f.File.Write(data[:len(data)/2])
		return n, err
	}
	return f.File.Write(data)
}

func (f faulty) Chmod(mode fs.FileMode) error {
	return errors.Join(f.fails("chmod"), f.File.Chmod(mode))
}
func (f faulty) Sync() error  { return errors.Join(f.fails("sync"), f.File.Sync()) }
func (f faulty) Close() error { return errors.Join(f.fails("close"), f.File.Close()) }

// faultyDisk is the real one, whose named step fails.
type faultyDisk struct {
	Disk
	step string
}

func (d faultyDisk) CreateTemp(dir string) (File, error) {
	if d.step == "create" {
		return nil, syscall.EIO
	}
	f, err := os.CreateTemp(dir, tempPrefix+"*")
	return faulty{f, d.step}, err
}

func (d faultyDisk) Rename(from, to string) error {
	if d.step == "rename" {
		return syscall.EIO
	}
	return d.Disk.Rename(from, to)
}

func TestWriteFileKeepsTheOldContentWhenAStepFails(t *testing.T) {
	for _, step := range []string{"create", "write", "chmod", "sync", "close", "rename"} {
		t.Run(step, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "state.json")
			if err := WriteFile(path, []byte("old"), 0o600); err != nil {
				t.Fatal(err)
			}
			err := WriteFileOn(faultyDisk{OS(), step}, path, []byte("new"), 0o600)
			if !errors.Is(err, syscall.EIO) {
				t.Fatalf("error is %v, want EIO", err)
			}
			wantFile(t, path, []byte("old"))
			wantNames(t, dir, "state.json")
		})
	}
}

func TestWriteFileOntoAFolder(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "folder")
	if err := os.MkdirAll(filepath.Join(path, "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(path, []byte("new"), 0o600); err == nil {
		t.Fatal("a folder was replaced by a file")
	}
	wantNames(t, dir, "folder")
}

func TestWriteFileIntoAMissingFolder(t *testing.T) {
	err := WriteFile(filepath.Join(t.TempDir(), "none", "x"), nil, 0o600)
	if !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("error is %v, want not exist", err)
	}
}

func TestWriteFileOnAFullDisk(t *testing.T) {
	testenv.Need(t, testenv.Root, testenv.MountNS)
	dir := testenv.Tmpfs(t, "64k")
	path := filepath.Join(dir, "state.json")
	if err := WriteFile(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := WriteFile(path, make([]byte, 128<<10), 0o600)
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("error is %v, want ENOSPC", err)
	}
	wantFile(t, path, []byte("old"))
	wantNames(t, dir, "state.json")
	// The failed attempt has given its space back.
	if err := WriteFile(path, make([]byte, 32<<10), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestWriteFileInAReadOnlyFolder(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "state.json")
	if err := WriteFile(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, mode := range map[string]fs.FileMode{filepath.Dir(dir): 0o755, dir: 0o555} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := writeAsNobody(path); !errors.Is(err, fs.ErrPermission) {
		t.Fatalf("error is %v, want permission", err)
	}
	wantFile(t, path, []byte("old"))
	wantNames(t, dir, "state.json")
}

// writeAsNobody writes without root's right to pass over permissions: the file system user id belongs to one
// thread (setfsuid(2)), which ends with its goroutine because it stays locked.
func writeAsNobody(path string) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		if os.Geteuid() == 0 {
			if err := syscall.Setfsuid(65534); err != nil {
				result <- err
				return
			}
		}
		result <- WriteFile(path, []byte("new"), 0o600)
	}()
	return <-result
}

func TestOpenAppend(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	f, err := OpenAppend(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	for _, s := range []string{"abc", "def"} {
		if _, err := f.WriteString(s); err != nil {
			t.Fatal(err)
		}
	}
	// After a truncate the next write must land at the new end, not at the old offset.
	if err := f.Truncate(2); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("xyz"); err != nil {
		t.Fatal(err)
	}
	wantFile(t, path, []byte("abxyz"))
	if _, err := OpenAppend(path, 0o600); !errors.Is(err, fs.ErrExist) {
		t.Fatalf("second open gives %v, want exist", err)
	}
}

func TestCleanTemps(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{tempPrefix + "1", tempPrefix + "2", "state.json", ".hidden"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, tempPrefix+"folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	n, err := CleanTemps(dir)
	if n != 2 || err != nil {
		t.Fatalf("CleanTemps = %d, %v, want 2", n, err)
	}
	wantNames(t, dir, ".hidden", tempPrefix+"folder", "state.json")
	if n, err := CleanTemps(filepath.Join(dir, "none")); n != 0 || err != nil {
		t.Fatalf("CleanTemps of a missing folder = %d, %v", n, err)
	}
	if _, err := CleanTemps(filepath.Join(dir, "state.json")); err == nil {
		t.Fatal("CleanTemps of a file has no error")
	}
}

func wantFile(t *testing.T, path string, want []byte) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s holds %.40q (%d bytes), want %.40q (%d bytes)", path, got, len(got), want, len(want))
	}
}

func wantNames(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, entry := range entries {
		got = append(got, entry.Name())
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("%s holds %q, want %q", dir, got, want)
	}
}

func TestOverwrite(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path, link := filepath.Join(dir, "f"), filepath.Join(dir, "l")
	if err := os.WriteFile(path, []byte("0123456789"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if err := Overwrite(path, []byte("abc")); err != nil {
		t.Fatal(err)
	}
	for what, name := range map[string]string{
		"too long": path, "a link": link, "nothing there": path + "x", "a folder": dir,
	} {
		if err := Overwrite(name, make([]byte, 11)); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
	if got, err := os.ReadFile(path); string(got) != "abc3456789" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}
