package fetch

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keepout-security/keepout/internal/fleet/fleetpb"
	"github.com/keepout-security/keepout/internal/folder"
	"github.com/keepout-security/keepout/internal/simdisk"
	"github.com/keepout-security/keepout/internal/update"
)

// stager is a fetcher, as a process that has just begun, that stages from a stick.
func stager(t *testing.T, dir string) *fetcher {
	t.Helper()
	from, err := folder.Open(filepath.Join(dir, "stick"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = from.Close() })
	o := &Options{StateDir: dir}
	o.complete()
	m := mirror{from: disk{from}, to: o.Staging, whole: map[string]bool{}}
	return &fetcher{o: o, turn: time.Minute, mirror: m}
}

func stageOrder(digest string) *fleetpb.Order {
	return &fleetpb.Order{Act: fleetpb.Order_ACT_STAGE, Rollout: "r1", Release: &fleetpb.Release{
		Provider: "acme-edr", Channel: fleetpb.Channel_CHANNEL_CONTENT, Digest: digest,
	}}
}

// staging reads all that is staged but the orders.
func staging(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() || e.Name() == update.OrdersFile {
			return err
		}
		files[path], err = os.ReadFile(path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// TestTornFilesAreFetchedAgain: whatever a power cut left of what was staged, the next process stages all of it again.
func TestTornFilesAreFetchedAgain(t *testing.T) {
	t.Parallel()
	dir, digests := stick(t)
	begin := func() string {
		t.Helper()
		f := stager(t, dir)
		list := []*fleetpb.Order{stageOrder(digests["one"]), stageOrder(digests["two"])}
		if unfinished, err := f.obey(t.Context(), list, nil); err != nil || unfinished {
			t.Fatalf("unfinished: %v, %v", unfinished, err)
		}
		orders, err := update.ReadOrders(os.DirFS(f.o.Staging))
		if err != nil || len(orders.Orders) != 2 {
			t.Fatalf("orders %+v, %v", orders, err)
		}
		return f.o.Staging
	}
	at := begin()
	want := staging(t, at)
	orders := filepath.Join(at, update.OrdersFile)
	ordered, err := os.ReadFile(orders)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"blobs/", "1.root.json", "snapshot.json", "targets.json", "timestamp.json"} {
		if !slices.ContainsFunc(slices.Collect(maps.Keys(want)), func(s string) bool { return strings.Contains(s, part) }) {
			t.Fatalf("nothing that is called %s was staged", part)
		}
	}
	for name, tear := range map[string]func([]byte) []byte{
		"empty":  func([]byte) []byte { return nil },
		"halves": func(b []byte) []byte { return b[:len(b)/2] },
		"zeros":  func(b []byte) []byte { return append(b[:len(b)/2:len(b)/2], make([]byte, len(b)-len(b)/2)...) },
	} {
		for path, whole := range want {
			if err := os.WriteFile(path, tear(whole), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(orders, tear(ordered), 0o600); err != nil {
			t.Fatal(err)
		}
		begin()
		if got := staging(t, at); !maps.EqualFunc(got, want, bytes.Equal) {
			for path := range want {
				if !bytes.Equal(got[path], want[path]) {
					t.Errorf("%s: %s is still torn", name, path)
				}
			}
			t.Errorf("%s: %d files, want %d", name, len(got), len(want))
		}
	}
}

// TestTornMetadataIsNotStaged: what a source gives, half written itself, gets no name.
func TestTornMetadataIsNotStaged(t *testing.T) {
	t.Parallel()
	const whole = `{"signed":{"_type":"targets","version":7}}`
	for name, c := range map[string]struct {
		from text
		ok   bool
	}{
		"7.targets.json": {from: whole, ok: true},
		"8.targets.json": {from: whole},
		"7.root.json":    {from: text(whole[:len(whole)/2])},
		"9.root.json":    {from: ""},
	} {
		m := mirror{from: c.from, to: t.TempDir()}
		err := m.once(t.Context(), name)
		left, readErr := os.ReadDir(m.to)
		if readErr != nil || (err == nil) != c.ok || (len(left) == 1) != c.ok {
			t.Errorf("%s: %v, and %v is there", name, err, left)
		}
	}
}

// TestPowerCutTearsNothing: at whatever act the power goes, a file that has its name is whole, and one that was said to
// be staged has it.
func TestPowerCutTearsNothing(t *testing.T) {
	t.Parallel()
	data := bytes.Repeat([]byte("the bytes of a package "), 20)
	for seed := range uint64(50) {
		for cut := 1; ; cut++ {
			rng := rand.New(rand.NewPCG(seed, uint64(cut)))
			d := simdisk.New()
			f, err := d.Create("/blob"+partSuffix, 0o640)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.Write(data); err != nil {
				t.Fatal(err)
			}
			d.CutAt(cut)
			settled := settle(d, f, "/blob")
			after := d.Crash(rng)
			r, err := after.Open("/blob")
			switch {
			case errors.Is(err, fs.ErrNotExist):
				if settled == nil {
					t.Fatalf("seed %d, cut %d: what was staged is gone", seed, cut)
				}
			case err != nil:
				t.Fatal(err)
			default:
				if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, data) {
					t.Fatalf("seed %d, cut %d: %d of %d bytes, %v", seed, cut, len(got), len(data), err)
				}
			}
			if settled == nil {
				break
			}
		}
	}
}
