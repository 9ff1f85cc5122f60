package sensor

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/keepout-security/keepout/internal/testenv"
)

// TestVitalSurvivesAnUpgrade: a package manager puts a new file in the place of a vital one, and that is vital at once;
// a file elsewhere does not become vital by claiming the path.
func TestVitalSurvivesAnUpgrade(t *testing.T) {
	testenv.Need(t, testenv.Root)
	dir := t.TempDir()
	libc, upgrade := filepath.Join(dir, "libc"), filepath.Join(dir, "libc.new")
	fresh := func(path string) *os.File {
		t.Helper()
		if err := os.WriteFile(path, []byte("x"), 0o755); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() })
		return f
	}
	vital := func(v *vitalSet, f *os.File, path string) bool { return isVital(t, v, f, path) }
	var v vitalSet
	old := fresh(libc)
	v.resolve([]string{libc})
	next := fresh(upgrade)
	if !vital(&v, old, libc) || vital(&v, next, libc) {
		t.Fatal("before the upgrade the old file is vital, and no other")
	}
	if err := os.Rename(upgrade, libc); err != nil {
		t.Fatal(err)
	}
	if !vital(&v, next, libc) {
		t.Error("after the upgrade the new file is not vital")
	}
}

// isVital looks at an open file that claims a path.
func isVital(t *testing.T, v *vitalSet, f *os.File, path string) bool {
	t.Helper()
	obj, err := identify(int(f.Fd()), new(names))
	if err != nil {
		t.Fatal(err)
	}
	obj.Path = path
	return v.has(&obj.File)
}

// TestOwnIsVital: the platform's own files and folders are vital, as far as only root can change what is there; what
// claims to lie there is not, nor what lies beside.
func TestOwnIsVital(t *testing.T) {
	testenv.Need(t, testenv.Root)
	base := t.TempDir()
	write := func(path string, mode os.FileMode, uid int) {
		t.Helper()
		path = filepath.Join(base, path)
		for _, err := range []error{
			os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte("x"), 0o600), os.Chmod(path, mode),
			os.Chown(path, uid, 0),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	write("state/providers/p/cache", 0o644, 1234)
	write("state/state/slots.json", 0o600, 0)
	write("state/open", 0o666, 0)
	write("state2/file", 0o644, 0)
	write("keepout.yaml", 0o644, 0)
	write("other.yaml", 0o644, 0)
	if err := os.Symlink(filepath.Join(base, "state"), filepath.Join(base, "link")); err != nil {
		t.Fatal(err)
	}
	var v vitalSet
	v.resolve(nil)
	v.protect([]string{filepath.Join(base, "link"), filepath.Join(base, "keepout.yaml"), "/", "relative", ""})
	for _, tt := range []struct {
		file, claims string
		want         bool
	}{
		{"state/state/slots.json", "state/state/slots.json", true},
		{"keepout.yaml", "keepout.yaml", true},
		{"state/providers/p/cache", "state/providers/p/cache", false},
		{"state/open", "state/open", false},
		{"state2/file", "state2/file", false},
		{"other.yaml", "other.yaml", false},
		{"other.yaml", "state/other.yaml", false},
		{"other.yaml", "state/state/slots.json", false},
	} {
		f, err := os.Open(filepath.Join(base, tt.file))
		if err != nil {
			t.Fatal(err)
		}
		if got := isVital(t, &v, f, base+"/"+tt.claims); got != tt.want {
			t.Errorf("%s as %s is vital: %v", tt.file, tt.claims, got)
		}
		_ = f.Close()
	}
}
