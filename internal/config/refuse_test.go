package config

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestRefused holds the exact words for everything that can be wrong in a configuration, from
// testdata/refused.txt: an input, and what is said about it.
func TestRefused(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("testdata/refused.txt")
	if err != nil {
		t.Fatal(err)
	}
	cases := strings.Split(string(text), "=== in\n")[1:]
	if len(cases) < 40 {
		t.Fatalf("%d cases", len(cases))
	}
	for _, c := range cases {
		in, want, ok := strings.Cut(c, "=== out\n")
		if !ok {
			t.Fatalf("no output in %q", c)
		}
		l, err := Parse("keepout.yaml", []byte(in))
		if err == nil {
			t.Errorf("accepted: %+v\n%s", l, in)
			continue
		}
		if got := err.Error() + "\n"; got != want {
			t.Errorf("for\n%s\ngot  %swant %s", in, got, want)
		}
	}
}

// TestRefusedWhole are inputs that no text file can hold.
func TestRefusedWhole(t *testing.T) {
	t.Parallel()
	const explain = ". Next: keepout config explain lists every key"
	deep := bytes.NewBufferString("version: 1\nwatch:\n")
	for i := range maxIndent {
		fmt.Fprintf(deep, "%*s:\n", i+2, "a")
	}
	for _, c := range []struct{ name, in, want string }{
		{"empty", "", "f:1:1: KO-1001: the file is empty" + explain},
		{"program", "\x7fELF\x02\x01\x01\x00\x00", "f:1:1: KO-1001: the file is text, want keys with values" + explain},
		{"dashes", strings.Repeat("- ", 100_000), "f:1:81: KO-1001: too deeply nested" + explain},
		{"brackets", strings.Repeat("[\n", 100_000), "f:17:1: KO-1001: too deeply nested" + explain},
		{"indented", deep.String(), "f:82:81: KO-1001: too deeply nested" + explain},
		{"huge", strings.Repeat("#", maxFile+1), "f:1:1: KO-1001: the file is over 1 MiB. Next: shorten it"},
	} {
		if _, err := Parse("f", []byte(c.in)); err == nil || err.Error() != c.want {
			t.Errorf("%s: got %v, want %s", c.name, err, c.want)
		}
	}
}

func TestErrorsAreBounded(t *testing.T) {
	t.Parallel()
	var keys, entries bytes.Buffer
	entries.WriteString("version: 1\nvital:\n")
	for i := range 5000 {
		fmt.Fprintf(&keys, "k%d: 1\n", i)
		fmt.Fprintf(&entries, "  - relative%d\n", i)
	}
	for _, in := range [][]byte{keys.Bytes(), entries.Bytes()} {
		_, err := Parse("f", in)
		if err == nil {
			t.Fatal("accepted")
		}
		if n := strings.Count(err.Error(), "KO-"); n != maxErrors {
			t.Errorf("%d errors are told, want %d", n, maxErrors)
		}
	}
}

func TestLoad(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := write("good.yaml", "\uFEFFversion: 1\r\nmode: enforce\r\n")
	l, err := Load(good)
	if err != nil || l.Mode != "enforce" {
		t.Errorf("a byte order mark and CRLF: %+v, %v", l, err)
	}
	for path, want := range map[string]string{
		write("bad.yaml", "version: 1\r\nx: 1\r\n"): ":2:1: KO-1001: unknown key \"x\"",
		filepath.Join(dir, "none.yaml"): ":1:1: KO-1001: open: no such file or directory. " +
			"Next: create the file, or name another",
		dir: ":1:1: KO-1001: read: is a directory. Next: name a file that can be read",
		write("huge.yaml", strings.Repeat("#", maxFile+1)): ":1:1: KO-1001: the file is over 1 MiB. Next: shorten it",
	} {
		if _, err := Load(path); err == nil || !strings.HasPrefix(err.Error(), path+want) {
			t.Errorf("got  %v\nwant %s%s", err, path, want)
		}
	}
}
