package sensor

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/keepout-security/keepout/event"
)

func events(types ...event.Type) map[event.Type]bool {
	set := map[event.Type]bool{}
	for _, t := range types {
		set[t] = true
	}
	return set
}

func TestCovers(t *testing.T) {
	t.Parallel()
	const own, other = 10, 11 // mount ids
	part := watched{path: "/srv/www", mount: own, events: events(event.Open, event.Exec)}
	whole := watched{path: "/data", mount: own, whole: true, events: events(event.Open)}
	creates := watched{path: "/srv", mount: own, events: events(event.Create)}
	for _, c := range []struct {
		name  string
		watch []watched
		typ   event.Type
		path  string
		mount uint64
		want  bool
	}{
		{"below", []watched{part}, event.Open, "/srv/www/a", own, true},
		{"itself", []watched{part}, event.Exec, "/srv/www", own, true},
		{"beside", []watched{part}, event.Open, "/srv/www2/a", own, false},
		{"above", []watched{part}, event.Open, "/srv/a", own, false},
		{"another type", []watched{part}, event.Create, "/srv/www/a", own, false},
		{"through another mount the path proves nothing", []watched{part}, event.Open, "/elsewhere/a", other, true},
		{"another mount, another type", []watched{part}, event.Delete, "/elsewhere/a", other, false},
		{"no path: too long to be read", []watched{part}, event.Open, "", own, true},
		{"no path, mount not known", []watched{part}, event.Open, "", 0, true},
		{"whole file system", []watched{whole}, event.Open, "/anything", own, true},
		{"whole file system, another type", []watched{whole}, event.Exec, "/data/a", own, false},
		{"two watches: the second covers", []watched{part, creates}, event.Create, "/srv/a", own, true},
		{"two watches: types do not mix", []watched{part, creates}, event.Open, "/srv/a", own, false},
		{"no watch", nil, event.Open, "/srv/www/a", own, false},
	} {
		f := &filesystem{watch: c.watch}
		if got := f.covers(c.typ, c.path, c.mount); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestUnder(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		path, dir string
		want      bool
	}{
		{"/srv", "/srv", true},
		{"/srv/a/b", "/srv", true},
		{"/srvx", "/srv", false},
		{"/sr", "/srv", false},
		{"", "/srv", false},
		{"/anything", "/", true},
		{"/", "/", true},
		{"/srv/a", "/srv/a/b", false},
		{"/srv/a (deleted)", "/srv", true},
	} {
		if got := under(c.path, c.dir); got != c.want {
			t.Errorf("under(%q, %q) = %v", c.path, c.dir, got)
		}
	}
}

// TestUnderIsByComponents compares with what filepath.Rel says of clean paths.
func TestUnderIsByComponents(t *testing.T) {
	t.Parallel()
	parts := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "ab"}), 0, 4)
	paths := rapid.Map(parts, func(parts []string) string { return "/" + filepath.Join(parts...) })
	rapid.Check(t, func(t *rapid.T) {
		path, dir := paths.Draw(t, "path"), paths.Draw(t, "dir")
		rel, err := filepath.Rel(dir, path)
		want := err == nil && filepath.IsLocal(rel)
		if got := under(path, dir); got != want {
			t.Fatalf("under(%q, %q) = %v, Rel says %q", path, dir, got, rel)
		}
	})
}

// TestNewScope looks at real paths; it marks nothing.
func TestNewScope(t *testing.T) {
	t.Parallel()
	dir := realPath(t, t.TempDir())
	for _, name := range []string{"in", "in/deep", "out"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink("in", link); err != nil {
		t.Fatal(err)
	}
	s, err := newScope([]Watch{
		{Path: link, Events: []event.Type{event.Open, event.Create}},
		{Path: filepath.Join(dir, "in", "deep"), Events: []event.Type{event.Exec}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(s.filesystems) != 1 {
		t.Fatalf("one folder lies on %d file systems", len(s.filesystems))
	}
	for path, want := range map[string]bool{"in/a": true, "in/deep/a": true, "out/a": false} {
		obj := touch(t, filepath.Join(dir, path))
		f := s.find(&obj.File)
		if f == nil {
			t.Fatalf("%s: its file system is not known", path)
		}
		if f.dev != obj.Dev {
			t.Errorf("%s: device %x, the watch has %x", path, obj.Dev, f.dev)
		}
		if got := f.covers(event.Open, obj.Path, obj.mount); got != want {
			t.Errorf("open of %s: covered %v, want %v", path, got, want)
		}
		if got, want := f.covers(event.Exec, obj.Path, obj.mount), path == "in/deep/a"; got != want {
			t.Errorf("exec of %s: covered %v, want %v", path, got, want)
		}
		if got := s.byFSID(f.fsid); got != f {
			t.Errorf("by its id: %+v", got)
		}
	}
	all := allTypes()
	for _, f := range s.filesystems {
		if got, want := f.mask(permBits, &all), uint64(unix.FAN_OPEN_PERM|unix.FAN_OPEN_EXEC_PERM); got != want {
			t.Errorf("permission mask %#x, want %#x", got, want)
		}
		if got, want := f.mask(notifyBits, &all), uint64(unix.FAN_CREATE); got != want {
			t.Errorf("notify mask %#x, want %#x", got, want)
		}
		if f.remote || f.kind != "local" {
			t.Errorf("a temporary folder is %q, remote %v", f.kind, f.remote)
		}
	}
	if f := s.byFSID([2]int32{-1, -1}); f != nil {
		t.Errorf("an unknown id finds %+v", f)
	}
	if f := s.find(&event.File{Version: event.Version{Dev: ^uint64(0)}, Path: "/nowhere"}); f != nil {
		t.Errorf("an unknown device finds %+v", f)
	}
}

// TestFindByPath: btrfs gives files another device number than the mount has.
func TestFindByPath(t *testing.T) {
	t.Parallel()
	f := &filesystem{dev: 1, watch: []watched{{path: "/srv"}}}
	s := &scope{filesystems: map[uint64]*filesystem{1: f}}
	for path, want := range map[string]*filesystem{"/srv/a": f, "/srv": f, "/etc/a": nil, "": f} {
		if got := s.find(&event.File{Version: event.Version{Dev: 2}, Path: path}); got != want {
			t.Errorf("%q: %v", path, got)
		}
	}
}

// TestMountRoot: the root of a mounted file system stands for all of it. /proc is one everywhere.
func TestMountRoot(t *testing.T) {
	t.Parallel()
	s, err := newScope([]Watch{{Path: "/proc", Events: []event.Type{event.Open}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range s.filesystems {
		if len(f.watch) != 1 || !f.watch[0].whole {
			t.Errorf("watch %+v", f.watch)
		}
	}
}

func TestScopeNeedsItsPaths(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, err := newScope([]Watch{{Path: dir}, {Path: filepath.Join(dir, "none")}}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing path: %v", err)
	}
	if s, err := newScope(nil); err != nil || len(s.filesystems) != 0 {
		t.Errorf("no watch at all: %+v, %v", s, err)
	}
}

func realPath(t *testing.T, path string) string {
	t.Helper()
	resolved, err := filepath.EvalSymlinks(path)
	if err != nil {
		t.Fatal(err)
	}
	return resolved
}

// touch makes or opens a file and identifies it as the sensor would.
func touch(t *testing.T, path string) object {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	obj, err := identify(int(f.Fd()), new(names))
	if err != nil {
		t.Fatal(err)
	}
	obj.Path = pathHint(int(f.Fd()), new(names))
	return obj
}
