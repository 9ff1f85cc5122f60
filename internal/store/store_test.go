package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keepout-security/keepout/internal/durable"
	"github.com/keepout-security/keepout/internal/rollback"
	"github.com/keepout-security/keepout/internal/simdisk"
	"github.com/keepout-security/keepout/internal/store"
	"github.com/keepout-security/keepout/internal/testenv"
)

// rig is a store on a disk in memory, with one provider.
type rig struct {
	t    *testing.T
	disk *simdisk.Disk
	s    *store.Store
	st   rollback.State
	now  time.Time
	v    map[string]rollback.Version
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, disk: simdisk.New(), now: time.Unix(1_700_000_000, 0).UTC(), v: map[string]rollback.Version{}}
	r.open()
	r.resume()
	return r
}

func (r *rig) open() {
	r.t.Helper()
	var err error
	c := store.Config{Dir: "/store", Disk: r.disk, Limits: small, Now: func() time.Time { return r.now }}
	if r.s, err = store.Open(c); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) take(part rollback.Part, label string) rollback.Version {
	r.t.Helper()
	items := []item{{name: "list.txt", body: label}}
	if part == rollback.Engine {
		items = []item{{name: "provider.yaml", body: label}, {name: "acme", mode: 0o755, body: label}}
	}
	p, err := r.s.ImportArchive(part, label, bytes.NewReader(pack(r.t, items)))
	if err != nil {
		r.t.Fatal(err)
	}
	r.v[label] = rollback.Version{Digest: p.Digest, Label: label}
	return r.v[label]
}

func (r *rig) resume() {
	r.t.Helper()
	versions := rollback.Versions{Engine: r.take(rollback.Engine, "e1"), Content: r.take(rollback.Content, "c1")}
	var err error
	var out []rollback.Effect
	if r.st, out, err = r.s.Resume("acme", versions); err != nil || out[0].Act != rollback.Keep {
		r.t.Fatalf("effects %+v, %v", out, err)
	}
	if err := r.s.Commit(r.st); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) step(in rollback.Input) {
	r.t.Helper()
	r.st, _ = r.st.Next(rollback.Defaults(), r.now, in)
	if err := r.s.Commit(r.st); err != nil {
		r.t.Fatal(err)
	}
}

// promote makes new content active at once.
func (r *rig) promote(label string) {
	r.t.Helper()
	r.step(rollback.Input{Kind: rollback.Offered, Part: rollback.Content, Version: r.take(rollback.Content, label)})
	for _, k := range []rollback.Kind{rollback.Checked, rollback.Loaded, rollback.SelfTested, rollback.Measured} {
		r.step(rollback.Input{Kind: k, Part: rollback.Content, Digest: r.v[label].Digest, OK: true})
	}
	r.step(rollback.Input{Kind: rollback.Promote, Part: rollback.Content})
	r.want(label)
}

func (r *rig) want(content string) {
	r.t.Helper()
	if got := r.st.Content.Active.Label; got != content {
		r.t.Fatalf("content %s is active, want %s", got, content)
	}
}

// codes lists the problems.
func (r *rig) codes() string {
	var all []string
	for _, p := range r.s.Problems() {
		all = append(all, p.Code)
	}
	return strings.Join(all, " ")
}

func (r *rig) stored() int {
	r.t.Helper()
	entries, err := r.disk.ReadDir("/store/objects")
	if err != nil {
		r.t.Fatal(err)
	}
	return len(entries)
}

func draw() *rand.Rand { return rand.New(rand.NewPCG(1, 1)) }

// newer returns the paths of the newer and the older copy.
func (r *rig) newer() (newer, older string) {
	r.t.Helper()
	var generation [2]int
	paths := []string{"/store/state/acme/a", "/store/state/acme/b"}
	for i, p := range paths {
		f, err := r.disk.Open(p)
		if err != nil {
			r.t.Fatal(err)
		}
		if _, err := fmt.Fscanf(f, "keepout-slots 1 %d ", &generation[i]); err != nil {
			r.t.Fatal(err)
		}
	}
	if generation[0] > generation[1] {
		return paths[0], paths[1]
	}
	return paths[1], paths[0]
}

func TestOneCopyDamaged(t *testing.T) {
	t.Parallel()
	for _, which := range []string{"newer", "older", "missing"} {
		t.Run(which, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.promote("c2")
			newer, older := r.newer()
			switch which {
			case "newer":
				r.disk.Damage(draw(), newer)
			case "older":
				r.disk.Damage(draw(), older)
			case "missing":
				if err := r.disk.Remove(newer); err != nil {
					t.Fatal(err)
				}
			}
			r.open()
			if got := r.codes(); got != "KO-1701" {
				t.Fatalf("problems %q, want KO-1701", got)
			}
			if n, err := r.s.Collect(); n != 0 || err != nil { // what the older copy names is still there
				t.Errorf("collected %d, %v", n, err)
			}
			r.resume()
			if which == "older" {
				r.want("c2")
			}
			if err := r.s.Verify(r.st.Content.Active.Digest); err != nil {
				t.Error(err)
			}
			kept, err := r.disk.ReadDir("/store/state/acme")
			if err != nil || (which != "missing") != (len(kept) == 3 && strings.HasPrefix(kept[2].Name(), "damaged-")) {
				t.Errorf("kept: %v, %v", kept, err)
			}
			r.open() // healed
			if got := r.codes(); got != "" {
				t.Errorf("problems %q after healing", got)
			}
		})
	}
}

func TestNewerCopyDamagedAfterACollection(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.promote("c2")
	r.step(rollback.Input{Kind: rollback.RollBackNow, Part: rollback.Content}) // the newer copy no longer names c2
	r.want("c1")
	if n, err := r.s.Collect(); n != 0 || err != nil {
		t.Fatalf("collected %d, %v: the older copy names it", n, err)
	}
	newer, _ := r.newer()
	r.disk.Damage(draw(), newer)
	r.open()
	r.resume()
	r.want("c2")
	if got := r.codes(); got != "KO-1701" {
		t.Errorf("problems %q", got)
	}
}

func TestBothCopiesDamaged(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"damaged", "missing", "replaced by a folder"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.promote("c2")
			for _, name := range []string{"a", "b"} {
				name = "/store/state/acme/" + name
				if how == "damaged" {
					r.disk.Damage(draw(), name)
					continue
				}
				if err := r.disk.Remove(name); err != nil {
					t.Fatal(err)
				}
				if how != "missing" {
					if err := r.disk.Mkdir(name, 0o700); err != nil {
						t.Fatal(err)
					}
				}
			}
			r.open()
			if _, err := r.s.Collect(); err == nil {
				t.Error("collects while it is not known what is needed")
			}
			r.resume()
			r.want("c1")
			if got := r.codes(); got != "KO-1702" {
				t.Errorf("problems %q", got)
			}
			r.open()
			r.resume()
			if got := r.codes(); got != "" {
				t.Errorf("problems %q after healing", got)
			}
			r.promote("c2")
		})
	}
}

func TestDamagedCopiesKeptAreBounded(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for range 40 {
		r.promoteAndBack()
		newer, _ := r.newer()
		r.disk.Damage(draw(), newer)
		r.open()
		r.resume()
	}
	entries, err := r.disk.ReadDir("/store/state/acme")
	if err != nil || len(entries) != 2+32 {
		t.Errorf("%d files, %v; want both copies and 32 damaged ones", len(entries), err)
	}
}

func (r *rig) promoteAndBack() {
	r.now = r.now.Add(time.Minute)
	r.step(rollback.Input{Kind: rollback.Tick, Serving: true})
}

func TestPackageDamaged(t *testing.T) {
	t.Parallel()
	for _, file := range []string{"listing", "tree/list.txt"} {
		r := newRig(t)
		r.promote("c2")
		d := r.v["c2"].Digest
		r.disk.Damage(draw(), "/store/objects/"+string(d)+"/"+file)
		if err := r.s.Verify(d); code(err) != "KO-1728" {
			t.Errorf("%s: verified: %v", file, err)
		}
		if _, err := r.s.Path(d); code(err) != "KO-1728" {
			t.Errorf("%s: given out: %v", file, err)
		}
		r.open()
		r.resume()
		r.want("c1")
		if got := r.codes(); got != "KO-1703 KO-1704" {
			t.Errorf("%s: problems %q", file, got)
		}
		if !strings.Contains(r.st.Last.Cause, "is damaged") {
			t.Errorf("%s: cause %q", file, r.st.Last.Cause)
		}
		// Not refused: taken again, it is healed.
		r.take(rollback.Content, "c2")
		if err := r.s.Verify(d); err != nil {
			t.Errorf("%s: not healed: %v", file, err)
		}
		r.promote("c2")
	}
}

func TestVerifyFindsEveryChange(t *testing.T) {
	t.Parallel()
	s := open(t)
	p, err := s.Import(rollback.Engine, lay(t, engine()))
	if err != nil {
		t.Fatal(err)
	}
	root, err := s.Path(p.Digest)
	if err != nil {
		t.Fatal(err)
	}
	lib := filepath.Join(root, "lib")
	for _, dir := range []string{lib, root} {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	away := filepath.Join(t.TempDir(), "lib")
	for name, c := range map[string]struct{ do, undo func() error }{
		"added": {
			func() error { return os.WriteFile(lib+"/new", nil, 0o444) },
			func() error { return os.Remove(lib + "/new") },
		},
		"renamed": {
			func() error { return os.Rename(lib+"/nothing", lib+"/other") },
			func() error { return os.Rename(lib+"/other", lib+"/nothing") },
		},
		"executable": {
			func() error { return os.Chmod(lib+"/nothing", 0o555) },
			func() error { return os.Chmod(lib+"/nothing", 0o444) },
		},
		"folder behind a link": {
			func() error { return errors.Join(os.Rename(lib, away), os.Symlink(away, lib)) },
			func() error { return errors.Join(os.Remove(lib), os.Rename(away, lib)) },
		},
		"link": {
			func() error { return swap(lib+"/nothing", func(n string) error { return os.Symlink("/dev/null", n) }) },
			func() error { return swap(lib+"/nothing", func(n string) error { return os.WriteFile(n, nil, 0o444) }) },
		},
	} {
		if err := c.do(); err != nil {
			t.Fatal(err)
		}
		if err := s.Verify(p.Digest); code(err) != "KO-1728" {
			t.Errorf("%s: %v", name, err)
		}
		if err := c.undo(); err != nil {
			t.Fatal(err)
		}
		if err := s.Verify(p.Digest); err != nil {
			t.Errorf("%s, undone: %v", name, err)
		}
	}
}

func swap(name string, put func(string) error) error {
	if err := os.Remove(name); err != nil {
		return err
	}
	return put(name)
}

func TestCollect(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	x := r.take(rollback.Content, "x")
	y := r.take(rollback.Content, "y")
	release := r.s.Pin(y.Digest)
	r.s.Release(y.Digest)
	if n, err := r.s.Collect(); n != 0 || err != nil {
		t.Fatalf("collected %d, %v: one was just imported, one is pinned", n, err)
	}
	r.s.Release(x.Digest)
	release()
	release() // again is as good as once
	if n, err := r.s.Collect(); n != 2 || err != nil || r.stored() != 2 {
		t.Fatalf("collected %d, %v, %d left", n, err, r.stored())
	}
	if _, err := r.s.Path(x.Digest); code(err) != "KO-1728" {
		t.Errorf("given out though it is gone: %v", err)
	}
	if err := r.s.Forget("acme"); err != nil {
		t.Fatal(err)
	}
	if n, err := r.s.Collect(); n != 2 || err != nil {
		t.Errorf("collected %d, %v of a provider that is gone", n, err)
	}
	r.open()
	if all := r.s.Providers(); len(all) != 0 {
		t.Errorf("providers %v", all)
	}
}

func TestCommitRefuses(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	st := r.st
	st.Content.Active.Digest = rollback.Digest(strings.Repeat("0", 64))
	if err := r.s.Commit(st); code(err) != "KO-1728" {
		t.Errorf("a package that is not there: %v", err)
	}
	if err := r.s.Commit(rollback.New("other")); err == nil {
		t.Error("a provider that was not resumed")
	}
	if _, _, err := r.s.Resume("../x", rollback.Versions{}); err == nil {
		t.Error("an id that leads elsewhere")
	}
}

func TestFullDiskKeepsTheState(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.promote("c2")
	for _, act := range []string{"create", "write", "sync", "rename", "syncdir"} {
		r.disk.Before = func(a, _ string) error {
			if a == act {
				return syscall.ENOSPC
			}
			return nil
		}
		st, _ := r.st.Next(rollback.Defaults(), r.now, rollback.Input{Kind: rollback.RollBackNow, Part: rollback.Content})
		if err := r.s.Commit(st); code(err) != "KO-1708" {
			t.Errorf("%s: %v", act, err)
		}
		r.disk.Before = nil
		r.open()
		r.resume()
		if act != "syncdir" { // then either is right
			r.want("c2")
		}
	}
}

// TestReadOnlyDisk: the platform starts with what is there.
func TestReadOnlyDisk(t *testing.T) {
	testenv.Need(t, testenv.Root, testenv.MountNS)
	dir := testenv.Tmpfs(t, "4m")
	c := store.Config{Dir: filepath.Join(dir, "store"), Limits: small}
	s, err := store.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	src := lay(t, engine())
	p, err := s.Import(rollback.Engine, src)
	if err != nil {
		t.Fatal(err)
	}
	installed := rollback.Versions{Engine: rollback.Version{Digest: p.Digest}}
	st, _, err := s.Resume("acme", installed)
	if err := errors.Join(err, s.Commit(st)); err != nil {
		t.Fatal(err)
	}
	testenv.ReadOnly(t, dir)
	if s, err = store.Open(c); err != nil {
		t.Fatal(err)
	}
	if p, err = s.Import(rollback.Engine, src); err != nil || !p.Already {
		t.Errorf("import of what is there: %+v, %v", p, err)
	}
	if st, _, err = s.Resume("acme", installed); err != nil || !st.Runnable() {
		t.Errorf("resumed %+v, %v", st, err)
	}
	if err := s.Commit(st); code(err) != "KO-1708" {
		t.Errorf("committed: %v", err)
	}
}

func TestProblemsAndListing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.promote("c2")
	for range 3 {
		r.step(rollback.Input{Kind: rollback.Crashed})
	}
	st, ok := r.s.State("acme")
	if !ok || st.Content.Active.Label != "c1" || len(st.Content.Refused) != 1 {
		t.Errorf("state %+v", st)
	}
	problems := r.s.Problems()
	if len(problems) != 1 || problems[0].Title != "acme content c2→c1: 3 crashes in 0s" {
		t.Errorf("problems %+v", problems)
	}
	if all := r.s.Providers(); !slices.Equal(all, []string{"acme"}) {
		t.Errorf("providers %v", all)
	}
}

func TestStateIsPrivate(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "store")
	s, err := store.Open(store.Config{Dir: dir, Disk: durable.OS()})
	if err != nil {
		t.Fatal(err)
	}
	st, _, err := s.Resume("acme", rollback.Versions{})
	if err := errors.Join(err, s.Commit(st)); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]fs.FileMode{"": 0o711, "state": 0o700, "state/acme": 0o700, "state/acme/a": 0o600} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%q: %v, %v; want %v", name, info.Mode(), err, want)
		}
	}
}
