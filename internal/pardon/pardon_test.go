package pardon

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// clock is a time that stands still until a test moves it.
type clock struct{ t time.Time }

func (c *clock) now() time.Time { return c.t }

func newClock() *clock { return &clock{time.Date(2030, 5, 6, 7, 8, 9, 0, time.UTC)} }

func load(t *testing.T, path string, c *clock) *List {
	t.Helper()
	l, err := Load(path, c.now)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func open(t *testing.T, content []byte) *os.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func TestAddAndExpire(t *testing.T) {
	t.Parallel()
	c := newClock()
	l := load(t, filepath.Join(t.TempDir(), "list"), c)
	if l.Any() || len(l.All()) != 0 {
		t.Errorf("a new list holds %v", l.All())
	}
	content := []byte("tool")
	f := open(t, content)
	if reason, ok := l.Check(int(f.Fd()), int64(len(content))); ok {
		t.Errorf("allowed without an allowance: %q", reason)
	}
	p, err := l.Add(" "+strings.ToUpper(digestOf(content))+"\n", time.Hour, "needed")
	want := Pardon{SHA256: digestOf(content), Until: c.t.Add(time.Hour), Reason: "needed"}
	if err != nil || p != want {
		t.Fatalf("got %+v, %v", p, err)
	}
	for range 3 {
		if reason, ok := l.Check(int(f.Fd()), int64(len(content))); !ok || reason != "needed" {
			t.Errorf("not allowed: %q, %v", reason, ok)
		}
	}
	want.Used = 3
	if got := l.All(); !reflect.DeepEqual(got, []Pardon{want}) || !l.Any() {
		t.Errorf("got %+v", got)
	}

	// Prolonging keeps the count and takes the new reason.
	c.t = c.t.Add(30 * time.Minute)
	if p, err := l.Add(digestOf(content), time.Hour, "still"); err != nil || p.Used != 3 || p.Reason != "still" {
		t.Errorf("prolonged: %+v, %v", p, err)
	}
	c.t = c.t.Add(time.Hour - time.Nanosecond)
	if _, ok := l.Check(int(f.Fd()), int64(len(content))); !ok {
		t.Error("over before its end")
	}
	c.t = c.t.Add(time.Nanosecond)
	if reason, ok := l.Check(int(f.Fd()), int64(len(content))); ok {
		t.Errorf("allowed after its end: %q", reason)
	}
	if l.Any() || len(l.All()) != 0 {
		t.Errorf("after its end the list holds %v", l.All())
	}
}

func TestAddRefuses(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "list")
	l := load(t, path, newClock())
	good := digestOf(nil)
	for _, digest := range []string{
		"", good[:63], good + "0", good[:62] + "zz", "sha256:" + good, good[:32] + " " + good[32:],
	} {
		if _, err := l.Add(digest, time.Hour, "x"); !errors.Is(err, ErrDigest) {
			t.Errorf("%q: %v", digest, err)
		}
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) || l.Any() {
		t.Errorf("a refused allowance left something: %v, %v", l.All(), err)
	}
}

// TestAddIsKeptOrNotMade: what cannot be written is not in force, and does not end what was.
func TestAddIsKeptOrNotMade(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "state")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	c := newClock()
	l := load(t, filepath.Join(dir, "list"), c)
	before, err := l.Add(digestOf([]byte("a")), time.Hour, "first")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	for _, content := range []string{"a", "b"} {
		if p, err := l.Add(digestOf([]byte(content)), 2*time.Hour, "second"); err == nil {
			t.Errorf("%s: kept nowhere, but made: %+v", content, p)
		}
	}
	if got := l.All(); !reflect.DeepEqual(got, []Pardon{before}) {
		t.Errorf("in force: %+v", got)
	}
}

func TestReload(t *testing.T) {
	t.Parallel()
	c := newClock()
	path := filepath.Join(t.TempDir(), "list")
	l := load(t, path, c)
	for i := range 5 {
		hours := time.Duration(i+1) * time.Hour
		if _, err := l.Add(digestOf([]byte{byte(i)}), hours, fmt.Sprint("reason ", i)); err != nil {
			t.Fatal(err)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if got, want := load(t, path, c).All(), l.All(); !reflect.DeepEqual(got, want) || len(got) != 5 {
		t.Errorf("after a restart\n%+v, want\n%+v", got, want)
	}
	c.t = c.t.Add(150 * time.Minute)
	if got := load(t, path, c).All(); len(got) != 3 {
		t.Errorf("after two have ended: %+v", got)
	}
}

func TestLoadRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"empty": "", "cut": `[{"sha256": "`, "no list": `{"sha256": "00"}`, "nothing": `[null]`,
		"short": `[{"sha256": "00"}]`, "upper case": `[{"sha256": "` + strings.ToUpper(digestOf(nil)) + `"}]`,
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if l, err := Load(path, time.Now); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v, %v", name, l, err)
		}
	}
	if _, err := Load(dir, time.Now); err == nil {
		t.Error("a folder is a list")
	}
}

func TestLimit(t *testing.T) {
	t.Parallel()
	c := newClock()
	l := load(t, filepath.Join(t.TempDir(), "list"), c)
	for i := range maxPardons { // directly: ten thousand writes to disk prove nothing more
		digest := digestOf(fmt.Append(nil, i))
		l.list[digest] = &Pardon{SHA256: digest, Until: c.t.Add(time.Hour)}
	}
	if _, err := l.Add(digestOf([]byte("one more")), time.Hour, "x"); err == nil || len(l.list) != maxPardons {
		t.Errorf("beyond the limit: %d, %v", len(l.list), err)
	}
	if _, err := l.Add(digestOf([]byte("0")), 2*time.Hour, "x"); err != nil {
		t.Errorf("prolonging at the limit: %v", err)
	}
	c.t = c.t.Add(time.Hour)
	if _, err := l.Add(digestOf([]byte("one more")), time.Hour, "x"); err != nil {
		t.Errorf("after the others have ended: %v", err)
	}
	if got := l.All(); len(got) != 2 {
		t.Errorf("%d are left, want the prolonged and the new one", len(got))
	}
}

// TestCheckReadsExactlySize: what is hashed are the bytes that the sensor saw, whatever is appended meanwhile,
// and the position that others share stays where it is.
func TestCheckReadsExactlySize(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		content := rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "content")
		more := rapid.SampledFrom([]int{0, chunk - 1, chunk, chunk + 1}).Draw(t, "more")
		content = append(content, make([]byte, more)...)
		size := rapid.IntRange(0, len(content)).Draw(t, "size")
		position := rapid.IntRange(0, len(content)).Draw(t, "position")
		path := filepath.Join(dir, "file")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.Seek(int64(position), 0); err != nil {
			t.Fatal(err)
		}
		c := newClock()
		digest := digestOf(content[:size])
		l := &List{now: c.now, list: map[string]*Pardon{digest: {SHA256: digest, Until: c.t.Add(1), Reason: "r"}}}
		if reason, ok := l.Check(int(f.Fd()), int64(size)); !ok || reason != "r" {
			t.Fatalf("the first %d bytes of %d: %q, %v", size, len(content), reason, ok)
		}
		if size > 0 {
			if reason, ok := l.Check(int(f.Fd()), int64(size-1)); ok {
				t.Fatalf("one byte less is allowed, too: %q", reason)
			}
		}
		if at, err := f.Seek(0, 1); err != nil || at != int64(position) {
			t.Fatalf("the position moved from %d to %d, %v", position, at, err)
		}
	})
}

func TestCheckDenies(t *testing.T) {
	t.Parallel()
	c := newClock()
	l := load(t, filepath.Join(t.TempDir(), "list"), c)
	content := []byte("tool")
	if _, err := l.Add(digestOf(content), time.Hour, "x"); err != nil {
		t.Fatal(err)
	}
	f := open(t, content)
	closed := open(t, content)
	fd := closed.Fd()
	closed.Close()
	folder, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer folder.Close()
	for name, try := range map[string]func() (string, bool){
		"negative":   func() (string, bool) { return l.Check(int(f.Fd()), -2) },
		"too large":  func() (string, bool) { return l.Check(int(f.Fd()), maxRead+1) },
		"not open":   func() (string, bool) { return l.Check(1<<20+int(fd), 4) },
		"unreadable": func() (string, bool) { return l.Check(int(folder.Fd()), 4) },
	} {
		if reason, ok := try(); ok {
			t.Errorf("%s: allowed, %q", name, reason)
		}
	}
}
