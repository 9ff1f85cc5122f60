package content

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"

	"pgregory.net/rapid"
)

func ranged(t testing.TB, text string) Range {
	t.Helper()
	var r Range
	if err := r.UnmarshalText([]byte(text)); err != nil {
		t.Fatal(err)
	}
	return r
}

// valid fails the test for a schema with errors.
func valid(t testing.TB, s *Schema) *Schema {
	t.Helper()
	s.Validate(func(at, _, format string, args ...any) { t.Fatalf("%s: %s", at, fmt.Sprintf(format, args...)) })
	return s
}

// channel is a table with every type of field, separated by commas.
func channel(t testing.TB) *Schema {
	t.Helper()
	return valid(t, &Schema{Files: []File{{
		Names: []string{"*.csv"}, Size: 1 << 10, Format: "lines", Separator: ",", Comment: "#", Line: 64,
		Lines: ranged(t, "1..3"),
		Fields: []Field{
			{Name: "kind", Type: "enum", Values: []string{"ipc", "file"}},
			{Name: "level", Type: "int", Range: ranged(t, "-1..10"), Wildcard: "*"},
			{Name: "path", Type: "regex", Pattern: "/[a-z/]*", Length: ranged(t, "..20")},
			{Name: "mask", Type: "hex", Length: ranged(t, "2..4"), Optional: true, Wildcard: "*"},
			{Name: "note", Type: "text", Length: ranged(t, "0.."), Optional: true, Rest: true},
		},
	}}})
}

func TestLines(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, text, want string }{
		{"good", "# all types\nipc,3,/a,ff00,a, b # c\n\nfile,*,/\nipc,-1,/a,*,", ""},
		{"windows", "ipc,3,/a\r\nfile,3,/b\r\n", ""},
		{"word", "net,3,/a\n", `f/a.csv:1:1: KO-1007: found "net": field 1, kind, is one of [ipc file].`},
		{"number", "ipc,3.5,/a", `f/a.csv:1:5: KO-1007: found "3.5": field 2, level, is a whole number. Next: correct the ` +
			"field, or write * for any"},
		{"range", "ipc,11,/a", `f/a.csv:1:5: KO-1007: found 11: field 2, level, is in -1..10.`},
		{"pattern", "ipc,1,/a\nipc,1,a/", `f/a.csv:2:7: KO-1007: found "a/": field 3, path, does not match /[a-z/]*.`},
		{"length", "ipc,1,/" + strings.Repeat("a", 20), `f/a.csv:1:7: KO-1007: found 21 bytes: field 3, path, has ..20.`},
		{"hex", "ipc,1,/,0x10", `f/a.csv:1:10: KO-1007: found 'x': field 4, mask, consists of hex digits.`},
		{"digits", "ipc,1,/,1", `f/a.csv:1:9: KO-1007: found 1 hex digits: field 4, mask, has 2..4.`},
		{"too few", "ipc,1", `f/a.csv:1:6: KO-1007: line has 2 fields: the schema has 3 to 5. Next: add path`},
		{"empty", "ipc,,/", `f/a.csv:1:5: KO-1007: found "": field 2, level, is a whole number.`},
		{"wildcard elsewhere", "*,1,/", `f/a.csv:1:1: KO-1007: found "*": field 1, kind, is one of`},
		{"no content", "# only\n\n", `f/a.csv: KO-1007: 0 lines of content: the schema wants 1..3. Next: complete the file`},
		{
			"many lines", "ipc,1,/\nipc,1,/\nipc,1,/\nipc,1,/",
			`f/a.csv:4:1: KO-1007: line 4 of content: the schema wants 1..3.`,
		},
		{
			"long line", "ipc,1,/\n#" + strings.Repeat("x", 64),
			`f/a.csv:2:65: KO-1007: line longer than 64 bytes: the schema `,
		},
		{"two", "net,1,/\nipc,1", "f/a.csv:1:1: KO-1007: found \"net\": field 1, kind, is one of [ipc file]. Next: " +
			"correct the field, or the line\nf/a.csv:2:6: KO-1007: line has 2 fields"},
		{"large", strings.Repeat("\n", 1025), "f/a.csv: KO-1007: the file is too large: the schema allows 1KiB. Next: "},
	} {
		err := CheckFS(t.Context(), fstest.MapFS{"a.csv": {Data: []byte(c.text)}}, "f", channel(t))
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.HasPrefix(err.Error(), c.want)) {
			t.Errorf("%s:\ngot  %v\nwant %s", c.name, err, c.want)
		}
	}
}

// TestFieldCount is the case of July 2024: one field more than the engine is given.
func TestFieldCount(t *testing.T) {
	t.Parallel()
	for _, separator := range []string{"", ","} {
		s := &Schema{Files: []File{{Names: []string{"291"}, Size: 1 << 10, Format: "lines", Separator: separator}}}
		for i := range 20 {
			s.Files[0].Fields = append(s.Files[0].Fields, Field{Name: fmt.Sprintf("input %d", i+1), Type: "text"})
		}
		between := separator
		if between == "" {
			between = "  "
		}
		line := func(n int) fs.FS {
			return fstest.MapFS{"291": {Data: []byte(strings.Repeat("*"+between, n-1) + "x")}}
		}
		if err := CheckFS(t.Context(), line(20), "c", valid(t, s)); err != nil {
			t.Errorf("20 fields: %v", err)
		}
		for n, want := range map[int]string{21: "line has 21 fields: the schema has 20", 19: "line has 19 fields"} {
			if err := CheckFS(t.Context(), line(n), "c", s); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%d fields: %v", n, err)
			}
		}
	}
}

func TestFolder(t *testing.T) {
	t.Parallel()
	file := func(size int) *fstest.MapFile { return &fstest.MapFile{Data: make([]byte, size)} }
	strict := &Schema{Total: 100, Files: []File{
		{Names: []string{"*.sig", "sub/*.sig"}, Count: ranged(t, "1..2"), Size: 80, Format: "opaque"},
	}}
	lax := &Schema{Others: "ignore", Files: strict.Files}
	for _, c := range []struct {
		name string
		s    *Schema
		fsys fstest.MapFS
		want string
	}{
		{"good", strict, fstest.MapFS{"a.sig": file(80), "sub/b.sig": file(20)}, ""},
		{"total", strict, fstest.MapFS{"a.sig": file(80), "sub/b.sig": file(21)}, "f: KO-1007: 101 bytes in all files"},
		{"size", strict, fstest.MapFS{"a.sig": file(81)}, "f/a.sig: KO-1007: the file is too large: the schema allows 80B"},
		{"none", strict, fstest.MapFS{}, "f: KO-1007: 0 files named *.sig, sub/*.sig: the schema wants 1..2."},
		{"three", strict, fstest.MapFS{"a.sig": file(1), "b.sig": file(1), "c.sig": file(1)}, "f: KO-1007: 3 files named"},
		{
			"other", strict,
			fstest.MapFS{"a.sig": file(1), "x/y": file(1)},
			"f/x/y: KO-1007: the file has no place in the content",
		},
		{"ignored", lax, fstest.MapFS{"a.sig": file(1), "x/y": file(999), "sub/y": file(999)}, ""},
		{"device", strict, fstest.MapFS{"a.sig": {Mode: fs.ModeDevice}}, "f/a.sig: KO-1007: it is not a regular file"},
		{
			"terminal", strict,
			fstest.MapFS{"a.sig": file(1), "\x1b[2J": file(1)},
			"f/\uFFFD[2J: KO-1007: the file has no place",
		},
	} {
		err := CheckFS(t.Context(), c.fsys, "f", valid(t, c.s))
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.HasPrefix(err.Error(), c.want)) {
			t.Errorf("%s:\ngot  %v\nwant %s", c.name, err, c.want)
		}
	}
}

// TestRealFolder: nothing holds up a check or leads it out of the folder.
func TestRealFolder(t *testing.T) {
	t.Parallel()
	dir, outside := t.TempDir(), filepath.Join(t.TempDir(), "secret.sig")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.WriteFile(outside, []byte("x"), 0o600))
	must(os.WriteFile(filepath.Join(dir, "a.sig"), []byte("x"), 0o600))
	must(os.Symlink("a.sig", filepath.Join(dir, "b.sig")))
	s := valid(t, &Schema{Files: []File{{Names: []string{"*.sig"}, Size: 80, Format: "text"}}})
	if err := Check(t.Context(), dir, s); err != nil {
		t.Errorf("a link within: %v", err)
	}
	if err := Check(t.Context(), outside, s); err != nil {
		t.Errorf("one file: %v", err)
	}
	for name, put := range map[string]func(string) error{
		"link":  func(at string) error { return os.Symlink(outside, at) },
		"pipe":  func(at string) error { return syscall.Mkfifo(at, 0o600) },
		"loop":  func(at string) error { return os.Symlink("bad.sig", at) },
		"large": func(at string) error { return os.WriteFile(at, bytes.Repeat([]byte("x"), 81), 0o600) },
	} {
		at := filepath.Join(dir, "bad.sig")
		must(put(at))
		var refused *Refused
		if err := Check(t.Context(), dir, s); !errors.As(err, &refused) || len(refused.Mistakes) != 1 ||
			refused.Mistakes[0].File != at {
			t.Errorf("%s: %v", name, err)
		}
		must(os.Remove(at))
	}
	if err := Check(t.Context(), filepath.Join(dir, "gone"), s); err == nil ||
		!strings.Contains(err.Error(), "gone: KO-1007: the content cannot be read: no such file or directory") {
		t.Errorf("a folder that is not there: %v", err)
	}
}

func TestBounds(t *testing.T) {
	t.Parallel()
	many := fstest.MapFS{"a.csv": {Data: bytes.Repeat([]byte("x\n"), 500)}}
	s := channel(t)
	s.Files[0].Lines = Range{}
	var refused *Refused
	if err := CheckFS(t.Context(), many, "f", s); !errors.As(err, &refused) || !refused.More ||
		len(refused.Mistakes) != maxMistakes ||
		!strings.HasSuffix(err.Error(), "\nand more: only the first 20 mistakes are told") {
		t.Errorf("500 mistakes: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := CheckFS(ctx, many, "f", s); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	deep := fstest.MapFS{strings.Repeat("d/", maxDepth+2) + "a.csv": {}}
	if err := CheckFS(t.Context(), deep, "f", s); err == nil || !strings.Contains(err.Error(), "too many folders") {
		t.Errorf("deep: %v", err)
	}
}

// endless is a file that goes on forever.
type endless struct{ read int64 }

func (e *endless) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = 'x'
	}
	e.read += int64(len(b))
	return len(b), nil
}

// TestMemoryIsBounded: what grows while it is read, or has no line end, is given up.
func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	for _, unit := range []io.Reader{&endless{}, repeated("ipc,1,/\n")} {
		s := channel(t)
		s.Files[0].Lines = Range{}
		s.Files[0].Size = 1 << 20
		c := &check{ctx: t.Context(), schema: s, at: "f"}
		c.read("a.csv", &s.Files[0], unit)
		if len(c.mistakes) != 1 {
			t.Errorf("%d mistakes", len(c.mistakes))
		}
		if e, ok := unit.(*endless); ok && e.read > 1<<18 {
			t.Errorf("read %d bytes of a line of at most 64", e.read)
		}
	}
}

// repeated is a text without end.
type repeated string

func (r repeated) Read(b []byte) (int, error) {
	n := 0
	for n+len(r) <= len(b) {
		n += copy(b[n:], r)
	}
	return n, nil
}

func TestRange(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringMatching(`-?[0-9]{0,19}(\.{0,3}-?[0-9]{0,19})?`).Draw(t, "text")
		var r, again Range
		if r.UnmarshalText([]byte(text)) != nil {
			if r != (Range{}) {
				t.Fatalf("%q is refused and became %v", text, r)
			}
			return
		}
		if r.Min > r.Max || !r.set {
			t.Fatalf("%q became %v", text, r)
		}
		if r.String() == ".." {
			return // both ends were written out
		}
		if err := again.UnmarshalText([]byte(r.String())); err != nil || again != r {
			t.Fatalf("%q became %v, %v and %v", text, r, r.String(), again)
		}
	})
}

// FuzzCheck: any bytes are accepted, or refused with a place in a line that is safe for a terminal; and what one line
// consists of does not depend on the lines around it.
func FuzzCheck(f *testing.F) {
	for _, text := range []string{
		"", "ipc,1,/a,ff,note", "ipc,1\n#x\n\xff", "\uFEFFa", "ipc,,,,,,", "\r\n\r", "a\x00b", strings.Repeat("x,", 100),
	} {
		f.Add([]byte(text), true)
		f.Add([]byte(text), false)
	}
	f.Fuzz(func(t *testing.T, b []byte, table bool) {
		s := channel(t)
		if !table {
			s.Files[0] = File{Names: s.Files[0].Names, Size: 1 << 10, Format: "text"}
		}
		s.Files[0].Lines = Range{}
		err := CheckFS(t.Context(), fstest.MapFS{"a.csv": {Data: b}}, "f", valid(t, s))
		twice := CheckFS(t.Context(), fstest.MapFS{"a.csv": {Data: append(append(b[:len(b):len(b)], '\n'), b...)}}, "f", s)
		if err != nil && twice == nil || err == nil && twice != nil && len(b) < 500 {
			t.Errorf("once: %v, twice: %v", err, twice)
		}
		var refused *Refused
		if err == nil || !errors.As(err, &refused) {
			return
		}
		if n := len(refused.Mistakes); n == 0 || n > maxMistakes {
			t.Errorf("%d mistakes", n)
		}
		for line := range strings.Lines(err.Error()) {
			if line = strings.TrimSuffix(line, "\n"); Printable(line) != line || len(line) > 500 {
				t.Errorf("not safe for a terminal: %q", line)
			}
		}
		for _, m := range refused.Mistakes {
			if m.Line < 0 || m.Line > 0 && (m.Column < 1 || m.Column > DefaultLine+2) || m.Why == "" || m.Next == "" {
				t.Errorf("incomplete: %+v", m)
			}
		}
	})
}

// BenchmarkMillion checks a million digests with names, the size that hashlist promises to load.
func BenchmarkMillion(b *testing.B) {
	line := strings.Repeat("0f", 32) + " Some.Malware.Name\n"
	text := strings.Repeat(line, 1_000_000)
	s := valid(b, &Schema{Files: []File{{
		Names: []string{"deny.txt"}, Size: 256 << 20, Format: "lines", Comment: "#",
		Fields: []Field{
			{Name: "sha256", Type: "hex", Length: ranged(b, "64")},
			{Name: "name", Type: "text", Length: ranged(b, "1..200"), Optional: true, Rest: true},
		},
	}}})
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		c := &check{ctx: b.Context(), schema: s, at: "f"}
		c.read("deny.txt", &s.Files[0], strings.NewReader(text))
		if len(c.mistakes) > 0 {
			b.Fatal(c.mistakes[0])
		}
	}
}
