package owned

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// hosting makes a root folder with dpkg's lists.
func hosting(t testing.TB, packages map[string]string) string {
	t.Helper()
	root := t.TempDir()
	dir := filepath.Join(root, filepath.Dir(lists))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range packages {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestOwned(t *testing.T) {
	t.Parallel()
	root := hosting(t, map[string]string{
		"base-files.list":   "/.\n/etc\n/etc/debian_version\n/bin\n/usr\n/usr/share\n/usr/share/doc/x y\n",
		"libc6:amd64.list":  "/.\n/lib\n/lib/x86_64-linux-gnu\n/lib/x86_64-linux-gnu/libc.so.6\n",
		"coreutils.list":    "/usr/bin/ls\n/bin/true",
		"coreutils.md5sums": "0123  /usr/bin/not-a-list\n",
		"odd.list":          "relative/path\n\n/\n",
	})
	s := New()
	if s.Owned("/usr/bin/ls") {
		t.Error("owned before anything was read")
	}
	if err := s.Load(root); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{
		"/etc/debian_version":                 true,
		"/usr/share/doc/x y":                  true,
		"/usr/bin/ls":                         true,
		"/bin/ls":                             true, // the same file where /bin is a link
		"/usr/bin/true":                       true,
		"/usr/lib/x86_64-linux-gnu/libc.so.6": true,
		"/bin":                                true, // not seen to be a folder, and no file either: harmless
		"/etc":                                false,
		"/usr":                                false,
		"/usr/bin/not-a-list":                 false,
		"/usr/bin/l":                          false,
		"/usrbin/ls":                          false,
		"relative/path":                       false,
		"":                                    false,
		"/":                                   false,
	} {
		if got := s.Owned(path); got != want {
			t.Errorf("%q is owned: %v", path, got)
		}
	}
	if n := s.Len(); n != 6 {
		t.Errorf("%d paths, want 6", n)
	}
	if err := s.Load(t.TempDir()); err != nil || s.Owned("/usr/bin/ls") {
		t.Errorf("without dpkg nothing is owned: %v", err)
	}
}

// TestBounds: beyond the bound nothing is kept, and it is said; a list that cannot be read costs its own paths only.
func TestBounds(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	for i := range MaxPaths + 10 {
		fmt.Fprintf(&b, "/p/%d\n", i)
	}
	s := New()
	if err := s.Load(hosting(t, map[string]string{"big.list": b.String()})); !errors.Is(err, ErrTooMany) {
		t.Errorf("got %v", err)
	}
	if n := s.Len(); n > MaxPaths || n < MaxPaths-10 {
		t.Errorf("%d paths are kept", n)
	}
	root := hosting(t, map[string]string{"good.list": "/usr/bin/good\n"})
	if err := os.Mkdir(filepath.Join(root, filepath.Dir(lists), "bad.list"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := s.Load(root); err == nil || !s.Owned("/usr/bin/good") {
		t.Errorf("got %v, and the good list is in force: %v", err, s.Owned("/usr/bin/good"))
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("/.\n/etc\n/etc/x\n"))
	f.Add([]byte("\n\n//\n/a\n/a/\n/a/b"))
	f.Add([]byte("/a\n/ab\n/a b\x00\n/.x"))
	f.Fuzz(func(t *testing.T, text []byte) {
		lines := map[string]bool{}
		for _, l := range bytes.Split(text, []byte{'\n'}) {
			lines[string(l)] = true
		}
		n := 0
		parse(text, func(path []byte) bool {
			n++
			if len(path) < 2 || path[0] != '/' || !lines[string(path)] {
				t.Fatalf("%q is no line of the list, or no path", path)
			}
			return true
		})
		if last := bytes.LastIndexByte(text, '\n'); last < len(text)-1 {
			if l := text[last+1:]; len(l) > 1 && l[0] == '/' && string(l) != "/." && n == 0 {
				t.Fatalf("the last line %q is lost", l)
			}
		}
		stopped := 0
		parse(text, func([]byte) bool { stopped++; return false })
		if stopped > 1 {
			t.Fatal("it went on after it was stopped")
		}
	})
}

// BenchmarkLoad reads what the packages of this machine own, where there is dpkg.
func BenchmarkLoad(b *testing.B) {
	s := New()
	b.ReportAllocs()
	for range b.N {
		if err := s.Load("/"); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(s.Len()), "paths")
}
