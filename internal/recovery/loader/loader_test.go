//go:build linux

package loader

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keepout-security/keepout/internal/recovery/esp"
	"github.com/keepout-security/keepout/internal/testenv"
)

func TestEntryNames(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]EntryName{
		"debian.conf":       {Stem: "debian", Ext: ".conf"},
		"debian+3.conf":     {Stem: "debian", Ext: ".conf", Counted: true, Left: 3},
		"debian+2-1.efi":    {Stem: "debian", Ext: ".efi", Counted: true, Left: 2, Done: 1},
		"a+b+0-3.conf":      {Stem: "a+b", Ext: ".conf", Counted: true, Done: 3},
		"a+b.conf":          {Stem: "a+b", Ext: ".conf"},
		"a+.conf":           {Stem: "a+", Ext: ".conf"},
		"a+3-.conf":         {Stem: "a+3-", Ext: ".conf"},
		"a++3.conf":         {Stem: "a+", Ext: ".conf", Counted: true, Left: 3},
		"a+-3.conf":         {Stem: "a+-3", Ext: ".conf"},
		"+3.conf":           {Stem: "+3", Ext: ".conf"},
		"6.1.0+deb12.conf":  {Stem: "6.1.0+deb12", Ext: ".conf"},
		"6.1.0+d+3-0.EFI":   {Stem: "6.1.0+d", Ext: ".EFI", Counted: true, Left: 3},
		"x+99999999999.efi": {Stem: "x+99999999999", Ext: ".efi"},
	} {
		if got, err := ParseEntryName(name); got != want || err != nil {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	for _, bad := range []string{"", "x", "x.txt", "../x.conf", "a/b.conf", "x+3"} {
		if _, err := ParseEntryName(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

// TestCountLeavesOneName: whatever names an entry has, one is left, with a counter, and nobody else's is touched.
func TestCountLeavesOneName(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		before []string // the newest last
		after  string
	}{
		"after a good boot":     {[]string{"d+2-1.conf"}, "d+2-1.conf"},
		"blessed by systemd":    {[]string{"d.conf"}, "d.conf"},
		"plain one written new": {[]string{"d+2-1.conf", "d.conf"}, "d.conf"},
		"counted one newer":     {[]string{"d.conf", "d+2-1.conf"}, "d+2-1.conf"},
		"already there":         {[]string{"d+0-3.conf", "d+3.conf"}, "d+3.conf"},
		"the target is older":   {[]string{"d+3.conf", "d+0-3.conf"}, "d+0-3.conf"},
	} {
		dir := t.TempDir()
		others := []string{"other.conf", "dd+3.conf", "d+x.conf", "d.efi"}
		for i, file := range append(slices.Clone(others), c.before...) {
			path := filepath.Join(dir, file)
			at := time.Unix(int64(1_700_000_000+i*10), 0)
			if err := errors.Join(os.WriteFile(path, []byte(file), 0o600), os.Chtimes(path, at, at)); err != nil {
				t.Fatal(err)
			}
		}
		entry, _ := ParseEntryName("d.conf")
		if err := Count(dir, entry, 3); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		want := append(slices.Clone(others), "d+3.conf")
		slices.Sort(want)
		if got := list(t, dir); !slices.Equal(got, want) {
			t.Errorf("%s: %v", name, got)
		}
		if text, err := os.ReadFile(filepath.Join(dir, "d+3.conf")); string(text) != c.after || err != nil {
			t.Errorf("%s: the content is that of %s", name, text)
		}
	}
	entry, _ := ParseEntryName("d.conf")
	if err := Count(t.TempDir(), entry, 3); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no entry: %v", err)
	}
}

func list(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestEnv(t *testing.T) {
	t.Parallel()
	var e Env
	for name, value := range map[string]string{"a": "1", "b": `back\slash`, "c": "two\nlines", "d": "x=y"} {
		e.Set(name, value)
	}
	block, err := e.Encode()
	if err != nil || len(block) != EnvSize {
		t.Fatalf("%d bytes, %v", len(block), err)
	}
	got, err := ParseEnv(block)
	if err != nil || got.Get("b") != `back\slash` || got.Get("c") != "two\nlines" || got.Get("d") != "x=y" {
		t.Errorf("%+v, %v", got, err)
	}
	got.Set("a", "")
	if got.Get("a") != "" || len(got.pairs) != 3 {
		t.Errorf("not removed: %+v", got)
	}
	for _, bad := range []string{
		"", "x", string(block[:EnvSize-1]), string(block) + "#", strings.Replace(string(block), "a=1", "a 1", 1),
	} {
		if _, err := ParseEnv([]byte(bad)); err == nil {
			t.Errorf("%.30q is accepted", bad)
		}
	}
	e.Set("long", strings.Repeat("x", EnvSize))
	if _, err := e.Encode(); err == nil {
		t.Error("a block that is too long")
	}
}

// TestGrubReadsOurBlock lets GRUB's own tool read what this package writes, and the other way round.
func TestGrubReadsOurBlock(t *testing.T) {
	t.Parallel()
	testenv.Need(t, testenv.GRUB)
	file := filepath.Join(t.TempDir(), "grubenv")
	var e Env
	e.Set("keepout_left", "3")
	e.Set("odd", `a\b`)
	block, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, block, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("grub-editenv", file, "list").Output(); err != nil ||
		string(out) != "keepout_left=3\nodd=a\\b\n" {
		t.Errorf("grub-editenv lists %q, %v", out, err)
	}
	if out, err := exec.Command("grub-editenv", file, "set", `odd=c\d`, "new=1").CombinedOutput(); err != nil {
		t.Fatalf("%s %v", out, err)
	}
	block, err = os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseEnv(block)
	if err != nil || got.Get("odd") != `c\d` || got.Get("new") != "1" || got.Get("keepout_left") != "3" {
		t.Errorf("%+v, %v", got, err)
	}
}

func FuzzParseEnv(f *testing.F) {
	var e Env
	e.Set("keepout_left", "3")
	block, _ := e.Encode()
	f.Add(block)
	f.Fuzz(func(t *testing.T, data []byte) {
		env, err := ParseEnv(data)
		if err != nil {
			return
		}
		again, err := env.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := ParseEnv(again); err != nil || !slices.Equal(got.pairs, env.pairs) {
			t.Fatalf("%+v comes back as %+v, %v", env, got, err)
		}
	})
}

func FuzzParseEntryName(f *testing.F) {
	f.Add("debian+2-1.conf")
	f.Fuzz(func(t *testing.T, name string) {
		e, err := ParseEntryName(name)
		if err != nil {
			return
		}
		if again, err := ParseEntryName(e.With(3)); err != nil || again.Plain() != e.Plain() || again.Left != 3 {
			t.Fatalf("%q: %+v, again %+v, %v", name, e, again, err)
		}
	})
}

func TestEFIVariables(t *testing.T) {
	t.Parallel()
	v := Variables{Dir: t.TempDir()}
	if _, err := v.Get("LoaderInfo"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nothing set: %v", err)
	}
	if err := v.Set("LoaderEntryOneShot", "-keepout-recovery-2.conf"); err != nil {
		t.Fatal(err)
	}
	if got, err := v.Get("LoaderEntryOneShot"); got != "-keepout-recovery-2.conf" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	data, err := os.ReadFile(v.path("LoaderEntryOneShot"))
	if err != nil || string(data[:8]) != "\x07\x00\x00\x00-\x00k\x00" || string(data[len(data)-2:]) != "\x00\x00" {
		t.Errorf("% x", data)
	}
}

// sd is a machine that systemd-boot started.
func sd(t *testing.T, vars map[string]string, entries ...string) (Loader, string) {
	t.Helper()
	root := t.TempDir()
	efivars := filepath.Join(root, "sys", "firmware", "efi", "efivars")
	dir := esp.Open(filepath.Join(root, "efi", "keepout"))
	folder := filepath.Join(root, "efi", "loader", "entries")
	for _, d := range []string{efivars, folder, filepath.Join(root, "efi", "EFI", "Linux")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := dir.Prepare(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{esp.KernelA, esp.ImageA} {
		if err := os.WriteFile(dir.Join(name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	v := Variables{Dir: efivars}
	vars["LoaderInfo"] = "systemd-boot 252.39"
	for name, text := range vars {
		if err := v.Set(name, text); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range entries {
		if strings.HasSuffix(name, ".efi") {
			name = filepath.Join("..", "..", "EFI", "Linux", name)
		}
		if err := os.WriteFile(filepath.Join(folder, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return Detect(root, dir), filepath.Join(root, "efi")
}

func TestSystemdBoot(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		vars    map[string]string
		entries []string
		left    int
		after   string
	}{
		"counting": {
			map[string]string{"LoaderBootCountPath": `\loader\entries\debian+1-2.conf`},
			[]string{"debian+1-2.conf"},
			1, "loader/entries/debian+3.conf",
		},
		"blessed before us": {
			map[string]string{"LoaderBootCountPath": `\loader\entries\debian+2-1.conf`},
			[]string{"debian.conf"},
			2, "loader/entries/debian+3.conf",
		},
		"not counting": {
			map[string]string{"LoaderEntrySelected": "debian.conf"},
			[]string{"Debian.conf"},
			-1, "loader/entries/Debian+3.conf",
		},
		"a unified image": {
			map[string]string{"LoaderBootCountPath": `\EFI\Linux\debian+0-3.efi`},
			[]string{"debian+0-3.efi"},
			0, "EFI/Linux/debian+3.efi",
		},
	} {
		l, efi := sd(t, c.vars, append(c.entries, RecoveryEntry, "other.conf")...)
		if l.Kind() != SystemdBoot || l.Left() != c.left || !l.CanRecover() {
			t.Errorf("%s: %s, %d left, %v", name, l.Kind(), l.Left(), l.CanRecover())
		}
		if err := l.Arm(3, 0); err != nil || l.Left() != 3 {
			t.Errorf("%s: %v, %d left", name, err, l.Left())
		}
		for _, file := range []string{c.after, "loader/entries/-keepout-recovery-2+1.conf", "loader/entries/other.conf"} {
			if _, err := os.Stat(filepath.Join(efi, filepath.FromSlash(file))); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if err := errors.Join(l.ToRecovery(), l.ToMenu()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDetect(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	dir := esp.Open(filepath.Join(root, "boot", "keepout"))
	if err := dir.Prepare(); err != nil {
		t.Fatal(err)
	}
	l := Detect(root, dir)
	if l.Kind() != Unknown || l.Left() != -1 || l.CanRecover() || l.ToRecovery() == nil {
		t.Errorf("%s", l.Kind())
	}
	if err := os.WriteFile(dir.Join(esp.GrubEnv), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	l = Detect(root, dir)
	if l.Kind() != GRUB || l.Left() != -1 || l.CanRecover() {
		t.Errorf("%s with an empty block: %d left", l.Kind(), l.Left())
	}
	if err := l.Arm(3, 1); err != nil || l.Left() != 3 {
		t.Errorf("armed: %v, %d left", err, l.Left())
	}
	if err := l.ToMenu(); err != nil || l.Left() != 0 {
		t.Errorf("at the menu: %v, %d left", err, l.Left())
	}
}
