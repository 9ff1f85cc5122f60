//go:build unix

package esp_test

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/keepout-security/keepout/internal/boot"
	"github.com/keepout-security/keepout/internal/recovery/esp"
)

func prepared(t *testing.T) *esp.Dir {
	t.Helper()
	d := esp.Open(filepath.Join(t.TempDir(), "keepout"))
	if err := d.Prepare(); err != nil {
		t.Fatal(err)
	}
	return d
}

func keep(t *testing.T, d *esp.Dir, failures int) {
	t.Helper()
	s := boot.New()
	s.Failures = failures
	if err := d.Keep(&s); err != nil {
		t.Fatal(err)
	}
}

func TestStateComesBack(t *testing.T) {
	t.Parallel()
	d := prepared(t)
	for n := range 5 {
		keep(t, d, n)
		if p := esp.Open(d.Path()).State(); p.State.Failures != n || p.Errs != [2]error{} {
			t.Errorf("%d: %+v", n, p)
		}
	}
}

// TestATornWriteLosesOneStep: whatever becomes of the copy that was being written, the one before it is there.
func TestATornWriteLosesOneStep(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(path string, data []byte) error{
		"half written": func(p string, data []byte) error {
			return os.WriteFile(p, append(data[:70:70], make([]byte, len(data)-70)...), 0o600)
		},
		"cut short": func(p string, data []byte) error { return os.WriteFile(p, data[:40], 0o600) },
		"removed":   func(p string, _ []byte) error { return os.Remove(p) },
		"a folder": func(p string, _ []byte) error {
			return errors.Join(os.Remove(p), os.Mkdir(p, 0o700))
		},
	} {
		d := prepared(t)
		keep(t, d, 1)
		before := d.State()
		keep(t, d, 2)
		newest := []string{esp.StateA, esp.StateB}[before.Write]
		data, err := os.ReadFile(d.Join(newest))
		if err != nil {
			t.Fatal(err)
		}
		if err := damage(d.Join(newest), data); err != nil {
			t.Fatal(err)
		}
		after := esp.Open(d.Path())
		if p := after.State(); p.State.Failures != 1 || p.Lost || p.Errs[before.Write] == nil {
			t.Errorf("%s: %+v", name, p)
		}
	}
}

func TestBothCopiesBad(t *testing.T) {
	t.Parallel()
	d := prepared(t)
	keep(t, d, 3)
	for _, name := range []string{esp.StateA, esp.StateB} {
		if err := os.WriteFile(d.Join(name), []byte("garbage"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d = esp.Open(d.Path())
	if p := d.State(); !p.Lost || p.State.Failures != 0 {
		t.Errorf("%+v", p)
	}
	keep(t, d, 1) // and it can be written again
	if p := esp.Open(d.Path()).State(); p.Lost || p.State.Failures != 1 {
		t.Errorf("after writing: %+v", p)
	}
}

// TestKeepNeedsNoRoom: once prepared, nothing is created any more, as on a full disk. A read-only folder stands for it,
// whoever runs the test: as root it is not enforced, so the list of files is compared, too.
func TestKeepNeedsNoRoom(t *testing.T) {
	t.Parallel()
	d := prepared(t)
	before := tree(t, d.Path())
	if err := os.Chmod(d.Path(), 0o500); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(d.Path(), 0o700) })
	for n := range 4 {
		keep(t, d, n)
		if err := d.LeaveCrumb(boot.Crumb{Provider: "p"}); err != nil {
			t.Fatal(err)
		}
	}
	if after := tree(t, d.Path()); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

// tree lists names, sizes and inodes: a file that was replaced is another one.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		b.WriteString(path + " " + inode(info) + "\n")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestCrumbComesBack(t *testing.T) {
	t.Parallel()
	d := prepared(t)
	want := boot.Crumb{Boot: "b", Provider: "acme-av", Engine: "7.2", Content: "291"}
	if err := d.LeaveCrumb(want); err != nil {
		t.Fatal(err)
	}
	if got := esp.Open(d.Path()).Crumb(); got != want {
		t.Errorf("got %+v", got)
	}
	if err := os.WriteFile(d.Join(esp.CrumbFile), []byte("torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := d.Crumb(); got != (boot.Crumb{}) {
		t.Errorf("a torn crumb: %+v", got)
	}
}

func TestIntents(t *testing.T) {
	t.Parallel()
	d := prepared(t)
	for _, name := range []string{"b.json", "a.json"} {
		if err := d.LeaveIntent(esp.Intent{Name: name, Data: []byte(name)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(d.Join(esp.Intents), "huge"), make([]byte, esp.MaxIntent+1), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := d.Intents()
	if len(got) != 2 || got[0].Name != "a.json" || string(got[1].Data) != "b.json" || err == nil {
		t.Errorf("%+v, %v", got, err)
	}
	if err := d.RemoveIntent("a.json"); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{"../state-a.json", ".hidden", "x/y"} {
		if d.LeaveIntent(esp.Intent{Name: bad}) == nil || bad != ".hidden" && d.RemoveIntent(bad) == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

// TestAnIntentNeedsNoFolder: arming makes the state and nothing else.
func TestAnIntentNeedsNoFolder(t *testing.T) {
	t.Parallel()
	d := esp.Open(t.TempDir())
	if err := d.LeaveIntent(esp.Intent{Name: "a.json", Data: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	if got, err := d.Intents(); len(got) != 1 || err != nil {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestFindAndPlace(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	if _, err := esp.Find(root); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nothing armed: %v", err)
	}
	if got := esp.Place(root); got != filepath.Join(root, "boot", "keepout") {
		t.Errorf("without an ESP: %s", got)
	}
	if err := os.MkdirAll(filepath.Join(root, "boot", "efi", "EFI"), 0o700); err != nil {
		t.Fatal(err)
	}
	want := filepath.Join(root, "boot", "efi", "keepout")
	if got := esp.Place(root); got != want {
		t.Errorf("with an ESP: %s", got)
	}
	if err := esp.Open(want).Prepare(); err != nil {
		t.Fatal(err)
	}
	if got, err := esp.Find(root); got != want || err != nil {
		t.Errorf("found %s, %v", got, err)
	}
}

func TestRecoverable(t *testing.T) {
	t.Parallel()
	d := prepared(t)
	for _, step := range []struct {
		name string
		want bool
	}{{esp.KernelB, false}, {esp.ImageA, false}, {esp.ImageB, true}} {
		if err := os.WriteFile(d.Join(step.name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := d.Recoverable(); got != step.want {
			t.Errorf("with %s: %v", step.name, got)
		}
	}
}

// TestBundlesMakeRoom: as many old bundles go as it takes, the oldest first, and nothing else; what fails for another
// reason costs none.
func TestBundlesMakeRoom(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		fits  int // bundles beside which there is room; below 0: none
		least int
		err   error
		left  int
	}{
		"room":        {fits: esp.MaxBundles, left: esp.MaxBundles},
		"a little":    {fits: 3, left: 2},
		"only alone":  {fits: 0, left: 0},
		"not at all":  {fits: -1, err: syscall.ENOSPC, left: 0},
		"the newest":  {fits: 0, least: 1, err: syscall.ENOSPC, left: 1},
		"beside it":   {fits: 1, least: 1, left: 1},
		"all":         {fits: 0, least: esp.MaxBundles, err: syscall.ENOSPC, left: esp.MaxBundles},
		"broken disk": {fits: -1, err: syscall.EIO, left: esp.MaxBundles},
	} {
		d := prepared(t)
		if err := os.Mkdir(d.Join(esp.Diag), 0o700); err != nil {
			t.Fatal(err)
		}
		names := []string{"crash-1.json"}
		for i := range esp.MaxBundles {
			names = append(names, esp.BundlePrefix+string(rune('a'+i)))
		}
		for _, file := range names {
			if err := os.WriteFile(filepath.Join(d.Join(esp.Diag), file), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		bundles := func() []string {
			found, _ := filepath.Glob(filepath.Join(d.Join(esp.Diag), esp.BundlePrefix+"*"))
			return found
		}
		full := cmp.Or(c.err, error(syscall.ENOSPC))
		err := d.WithRoom(c.least, func() error {
			if len(bundles()) > c.fits {
				return full
			}
			return nil
		})
		left := bundles()
		if !errors.Is(err, c.err) || len(left) != c.left {
			t.Errorf("%s: %v, %q", name, err, left)
		}
		if len(left) > 0 && filepath.Base(left[len(left)-1]) != names[len(names)-1] {
			t.Errorf("%s: the newest went, and %q stay", name, left)
		}
		if _, err := os.Stat(filepath.Join(d.Join(esp.Diag), names[0])); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestForgetIntents: what cannot be read goes as well, and nothing else.
func TestForgetIntents(t *testing.T) {
	t.Parallel()
	d := prepared(t)
	if gone, err := d.ForgetIntents(); len(gone) > 0 || err != nil {
		t.Fatalf("where none were left: %q, %v", gone, err)
	}
	if err := d.LeaveIntent(esp.Intent{Name: "a.json", Data: []byte("a")}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(d.Join(esp.Intents), "huge"), make([]byte, esp.MaxIntent+1), 0o600); err != nil {
		t.Fatal(err)
	}
	gone, err := d.ForgetIntents()
	left, readErr := os.ReadDir(d.Join(esp.Intents))
	if err := errors.Join(err, readErr); err != nil || len(left) > 0 || strings.Join(gone, " ") != "a.json huge" {
		t.Errorf("gone are %q, there are %v: %v", gone, left, err)
	}
	if _, err := os.Stat(d.Join(esp.StateA)); err != nil {
		t.Error(err)
	}
}
