package simdisk_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"testing"

	"github.com/keepout-security/keepout/internal/durable"
	"github.com/keepout-security/keepout/internal/simdisk"
)

func draw(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 1)) }

func read(t *testing.T, d *simdisk.Disk, name string) (string, bool) {
	t.Helper()
	f, err := d.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", false
	}
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return string(b), true
}

// seen runs act on many disks, cuts the power after it, and returns every content of /x that was found.
func seen(t *testing.T, act func(d *simdisk.Disk) error) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	for seed := range uint64(400) {
		d := simdisk.New()
		if err := act(d); err != nil {
			t.Fatal(err)
		}
		text, there := read(t, d.Crash(draw(seed)), "/x")
		if !there {
			text = "absent"
		}
		found[text] = true
	}
	return found
}

func write(d *simdisk.Disk, name, text string, sync bool) error {
	f, err := d.Create(name, 0o600)
	if err == nil {
		_, err = f.Write([]byte(text))
	}
	if err == nil && sync {
		err = f.Sync()
	}
	return err
}

func TestWhatIsNotSyncedMayBeLost(t *testing.T) {
	t.Parallel()
	name := seen(t, func(d *simdisk.Disk) error { return write(d, "/x", "text", true) })
	if !name["text"] || !name["absent"] || len(name) != 2 {
		t.Errorf("file synced, folder not: %v, want the text, or no file", name)
	}
	data := seen(t, func(d *simdisk.Disk) error {
		return errors.Join(write(d, "/x", "text", false), d.SyncDir("/"))
	})
	if !data["text"] || !data[""] || data["absent"] || len(data) < 4 {
		t.Errorf("folder synced, file not: %v, want the text, an empty file and torn ones", data)
	}
	both := seen(t, func(d *simdisk.Disk) error {
		return errors.Join(write(d, "/x", "text", true), d.SyncDir("/"))
	})
	if !both["text"] || len(both) != 1 {
		t.Errorf("both synced: %v, want the text", both)
	}
	rename := seen(t, func(d *simdisk.Disk) error {
		return errors.Join(write(d, "/x", "old", true), write(d, "/y", "new", true), d.SyncDir("/"), d.Rename("/y", "/x"))
	})
	if !rename["old"] || !rename["new"] || len(rename) != 2 {
		t.Errorf("renamed over: %v, want old or new", rename)
	}
}

func TestOrderWithinAFolder(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		d := simdisk.New()
		if err := errors.Join(write(d, "/a", "", true), write(d, "/x", "", true)); err != nil {
			t.Fatal(err)
		}
		after := d.Crash(draw(seed))
		if _, x := read(t, after, "/x"); x {
			if _, a := read(t, after, "/a"); !a {
				t.Fatalf("seed %d: the second change is there without the first", seed)
			}
		}
	}
}

func TestPowerCut(t *testing.T) {
	t.Parallel()
	d := simdisk.New()
	if err := durable.WriteFileOn(d, "/x", []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	acts := d.Acts()
	if acts < 6 {
		t.Fatalf("a durable write is %d acts, want create, write, chmod, sync, rename, sync", acts)
	}
	for cut := 1; cut <= acts; cut++ {
		for seed := range uint64(20) {
			d := simdisk.New()
			if err := durable.WriteFileOn(d, "/x", []byte("old"), 0o600); err != nil {
				t.Fatal(err)
			}
			d.CutAt(cut)
			if err := durable.WriteFileOn(d, "/x", []byte("the new one"), 0o600); !errors.Is(err, simdisk.ErrPowerCut) {
				t.Fatalf("cut %d: %v, want a power cut", cut, err)
			}
			if _, err := d.Lstat("/x"); !d.Dead() || !errors.Is(err, simdisk.ErrPowerCut) {
				t.Fatalf("cut %d: the disk answers without power: %v", cut, err)
			}
			if text, _ := read(t, d.Crash(draw(seed)), "/x"); text != "old" && text != "the new one" {
				t.Fatalf("cut %d, seed %d: found %q", cut, seed, text)
			}
		}
	}
}

func TestTreesAndErrors(t *testing.T) {
	t.Parallel()
	d := simdisk.New()
	dir, err := d.MkdirTemp("/")
	if err != nil {
		t.Fatal(err)
	}
	sub := dir + "/sub"
	err = errors.Join(d.Mkdir(sub, 0o555), durable.CreateFileOn(d, sub+"/f", bytes.NewReader([]byte("f")), 0o444),
		d.SyncDir(sub), d.SyncDir(dir), durable.MoveOn(d, dir, "/tree"))
	if err != nil {
		t.Fatal(err)
	}
	after := d.Crash(draw(1))
	if text, _ := read(t, after, "/tree/sub/f"); text != "f" {
		t.Fatalf("found %q", text)
	}
	for what, err := range map[string]error{
		"folder not empty": after.Remove("/tree"),
		"made twice":       after.Mkdir("/tree", 0o700),
		"another folder":   after.Rename("/tree/sub", "/sub"),
		"not there":        after.Rename("/none", "/some"),
	} {
		if err == nil {
			t.Errorf("%s: no error", what)
		}
	}
	if err := durable.DiscardOn(after, "/tree"); err != nil {
		t.Fatal(err)
	}
	if names, err := after.ReadDir("/"); err != nil || len(names) != 0 {
		t.Errorf("left: %v, %v", names, err)
	}
}

func TestDamage(t *testing.T) {
	t.Parallel()
	d := simdisk.New()
	if err := durable.WriteFileOn(d, "/x", []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	if !d.Damage(draw(1), "/x") || d.Damage(draw(1), "/none") {
		t.Fatal("damages what is not there, or not what is")
	}
	if text, _ := read(t, d.Crash(draw(1)), "/x"); text == "text" || len(text) != 4 {
		t.Errorf("found %q, want one bit of it changed", text)
	}
}
