package sensor

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/testenv"
)

func nativeUint32(s string) uint32 { return binary.NativeEndian.Uint32([]byte(s)) }

// act of process pid on file number ino.
func actOf(pid, ino int) *event.Event {
	return &event.Event{
		Actor: event.Process{PID: int32(pid), Token: uint64(pid) + 1000},
		File:  event.File{Version: event.Version{Dev: 1, Ino: uint64(ino)}},
	}
}

// TestPairs: an open is taken once, and only for an exec that was expected and is among the newest.
func TestPairs(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		p := new(pairs)
		waiting := map[[2]int]bool{} // by process and file
		for range rapid.IntRange(0, 200).Draw(t, "acts") {
			who := [2]int{rapid.IntRange(1, 4).Draw(t, "pid"), rapid.IntRange(1, 4).Draw(t, "ino")}
			if rapid.Bool().Draw(t, "expect") {
				p.expect(actOf(who[0], who[1]), time.Time{})
				waiting[who] = true
				continue
			}
			expected := false
			for ino := 1; ino <= 4; ino++ {
				expected = expected || waiting[[2]int{who[0], ino}]
			}
			if got := p.expects(int32(who[0])); got != expected {
				t.Fatalf("process %d: expected %v, want %v", who[0], got, expected)
			}
			if got := p.take(actOf(who[0], who[1])); got != waiting[who] {
				t.Fatalf("process %d, file %d: taken %v, want %v", who[0], who[1], got, waiting[who])
			}
			delete(waiting, who)
		}
	})
}

func TestPairsAreExact(t *testing.T) {
	t.Parallel()
	p := new(pairs)
	if p.take(actOf(1, 1)) {
		t.Error("an empty table gives something away")
	}
	p.expect(actOf(1, 1), time.Time{})
	for name, change := range map[string]func(*event.Event){
		"another process": func(e *event.Event) { e.Actor.PID = 2 },
		"a reused number": func(e *event.Event) { e.Actor.Token = 7 },
		"another file":    func(e *event.Event) { e.File.Ino = 2 },
		"a changed file":  func(e *event.Event) { e.File.MtimeNS = 1 },
	} {
		e := actOf(1, 1)
		if change(e); p.take(e) {
			t.Errorf("%s passes for the second half", name)
		}
	}
	if !p.take(actOf(1, 1)) {
		t.Error("the second half is not known")
	}
	p.expect(actOf(1, 1), time.Time{}.Add(-pairTime))
	if p.take(actOf(1, 1)) {
		t.Error("what comes long afterwards passes for the second half")
	}
	p.expect(actOf(1, 1), time.Time{})
	if !p.take(actOf(1, 1)) {
		t.Error("the second half is not known after one that came late")
	}
	if p.take(actOf(1, 1)) {
		t.Error("the second half counts twice")
	}
}

// TestPairsAreBounded: the newest execs are remembered, the table never grows beyond its bound.
func TestPairsAreBounded(t *testing.T) {
	t.Parallel()
	p := new(pairs)
	const n = 3*maxPairs + 5
	for i := range n {
		p.expect(actOf(1, i), time.Time{})
	}
	if len(p.index) > maxPairs || p.of[1] != maxPairs {
		t.Errorf("%d entries, %d of process 1; bound %d", len(p.index), p.of[1], maxPairs)
	}
	taken := 0
	for i := range n {
		if p.take(actOf(1, i)) {
			if taken++; i < n-maxPairs {
				t.Fatalf("number %d of %d is still there", i, n)
			}
		}
	}
	if taken != maxPairs {
		t.Errorf("%d are remembered, want the newest %d", taken, maxPairs)
	}
	// The same exec again and again: its older places in the ring do not push out the newest.
	for range 2*maxPairs + 1 {
		p.expect(actOf(2, 2), time.Time{})
	}
	for i := range maxPairs - 1 {
		p.expect(actOf(3, i), time.Time{})
	}
	if !p.take(actOf(2, 2)) {
		t.Error("the newest place of a repeated exec was forgotten with an older one")
	}
}

func TestVitalSet(t *testing.T) {
	t.Parallel()
	testenv.Need(t, testenv.Root) // only root's files can be vital
	dir := t.TempDir()
	create := func(name string, mode os.FileMode, uid int) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(path, uid, -1); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := create("good", 0o755, 0)
	link := filepath.Join(dir, "link")
	if err := os.Symlink("good", link); err != nil {
		t.Fatal(err)
	}
	linked := create("linked-only", 0o555, 0)
	if err := os.Symlink(linked, linked+"-name"); err != nil {
		t.Fatal(err)
	}
	refused := []string{
		create("somebody's", 0o755, 1000), create("group may write", 0o775, 0), create("all may write", 0o757, 0),
	}
	var v vitalSet
	v.resolve(append(refused, good, link, linked+"-name", dir, filepath.Join(dir, "none"), "/dev/null"))
	has := func(path string) bool {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		obj, err := identify(int(f.Fd()), new(names))
		if err != nil {
			t.Fatal(err)
		}
		return v.has(&obj.File)
	}
	for path, want := range map[string]bool{
		good: true, linked: true, link: true, dir: false, "/dev/null": false,
		refused[0]: false, refused[1]: false, refused[2]: false,
	} {
		if got := has(path); got != want {
			t.Errorf("%s: vital %v, want %v", path, got, want)
		}
	}

	// The set is older than the file's owner and mode.
	if err := os.Chmod(good, 0o777); err != nil {
		t.Fatal(err)
	}
	if has(good) {
		t.Error("a file that all may write by now is still vital")
	}
	if err := os.Chmod(good, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(good, []byte("upgraded"), 0o600); err != nil {
		t.Fatal(err)
	}
	if !has(good) {
		t.Error("root's own change of the content ends being vital")
	}
	if v.resolve(nil); has(good) {
		t.Error("what is no longer named is still vital")
	}
}

// TestVitalNeedsRoot holds the same without privileges.
func TestVitalNeedsRoot(t *testing.T) {
	t.Parallel()
	var v vitalSet
	v.set.Store(&map[vitalKey]struct{}{{dev: 1, ino: 2}: {}})
	at := event.Version{Dev: 1, Ino: 2}
	for _, c := range []struct {
		file event.File
		want bool
	}{
		{event.File{Version: at, Mode: unix.S_IFREG | 0o755}, true},
		{event.File{Version: at, Mode: unix.S_IFREG | 0o755, UID: 1}, false},
		{event.File{Version: at, Mode: unix.S_IFREG | 0o775}, false},
		{event.File{Version: at, Mode: unix.S_IFREG | 0o757}, false},
		{event.File{Version: event.Version{Dev: 1, Ino: 3}, Mode: 0o755}, false},
		{event.File{Version: event.Version{Dev: 2, Ino: 2}, Mode: 0o755}, false},
	} {
		if got := v.has(&c.file); got != c.want {
			t.Errorf("%+v: vital %v, want %v", c.file, got, c.want)
		}
	}
	for _, path := range DefaultVital() {
		if !filepath.IsAbs(path) || filepath.Clean(path) != path {
			t.Errorf("built-in path %q", path)
		}
	}
}
