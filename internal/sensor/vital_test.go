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
	vital := func(v *vitalSet, f *os.File, path string) bool {
		t.Helper()
		obj, err := identify(int(f.Fd()))
		if err != nil {
			t.Fatal(err)
		}
		obj.Path = path
		return v.has(&obj.File)
	}
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
