package fetch

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/keepout-security/keepout/internal/fleet/fleetpb"
	"github.com/keepout-security/keepout/internal/folder"
	"github.com/keepout-security/keepout/internal/update"
)

// staged lists what is staged below a folder, but for the orders, and the folders that it lies in.
func (k *market) staged(name string) (names []string) {
	k.t.Helper()
	k.must(filepath.WalkDir(k.in(name), func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Name() != update.OrdersFile {
			names = append(names, strings.TrimPrefix(path, k.in(name)))
		}
		return err
	}))
	return names
}

// anew is what a host that begins today stages from the stick.
func (k *market) anew() []string {
	k.t.Helper()
	k.must(os.RemoveAll(k.in("anew")))
	k.must(os.MkdirAll(k.in("anew"), 0o755))
	o := Options{StateDir: k.dir, Staging: k.in("anew"), From: k.in("stick"), Once: true}
	k.must(Run(k.t.Context(), o))
	return k.staged("anew")
}

// TestOnlyWhatIsNeededIsStaged: however many versions of metadata and packages a host has seen, and whatever vendors,
// no more is staged than a host that begins today would stage.
func TestOnlyWhatIsNeededIsStaged(t *testing.T) {
	t.Parallel()
	for name, server := range map[string]bool{"without a server": false, "with a server": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newMarket(t, "acme", "zulu")
			f, newest := stager(t, k.dir), map[string]string{}
			round := func(what string) {
				t.Helper()
				k.publish()
				if server {
					var list []*fleetpb.Order
					for _, d := range newest {
						list = append(list, stageOrder(d))
					}
					f.fetched = time.Time{}
					if unfinished, err := f.obey(t.Context(), list, nil); err != nil || unfinished {
						t.Fatalf("%s: unfinished: %v, %v", what, unfinished, err)
					}
				} else {
					k.must(k.once())
				}
				if got, want := k.staged("staging"), k.anew(); !slices.Equal(got, want) {
					t.Errorf("%s: staged is\n%s\nwant\n%s", what, strings.Join(got, "\n"), strings.Join(want, "\n"))
				}
			}
			for n := range uint64(3) {
				for _, vendor := range []string{"acme", "zulu"} {
					newest[vendor] = k.release(vendor, strconv.FormatUint(n, 10), n+1, time.Now())
				}
				round(fmt.Sprint("release ", n+1))
			}
			_, err := k.home["acme"].Rotate("content", "", time.Now())
			k.must(err)
			round("other keys")
			_, err = k.home["ops"].Dismiss("zulu", time.Now())
			k.must(err)
			delete(newest, "zulu")
			round("a vendor less")
		})
	}
}

// TestNothingGoesWhileTheCoreLooks: what a core may be about to read stays until it has looked.
func TestNothingGoesWhileTheCoreLooks(t *testing.T) {
	t.Parallel()
	k := newMarket(t, "acme")
	k.release("acme", "one", 1, time.Now())
	k.publish()
	k.must(k.once())
	before := k.staged("staging")
	dir, err := folder.Open(k.in("staging"))
	k.must(err)
	defer func() { _ = dir.Close() }()
	look, err := dir.Reading()
	k.must(err)
	k.release("acme", "two", 2, time.Now())
	k.publish()
	k.must(k.once())
	for _, name := range before {
		if _, err := os.Stat(k.in("staging", name)); err != nil {
			t.Errorf("gone while the core looks: %v", err)
		}
	}
	k.must(look.Close())
	k.must(k.once())
	if got, want := k.staged("staging"), k.anew(); !slices.Equal(got, want) {
		t.Errorf("staged is %q, want %q", got, want)
	}
}

// TestWhatIsOnItsWayStays: what came so far of a package that is ordered, and of metadata that is not whole yet, is not
// fetched twice.
func TestWhatIsOnItsWayStays(t *testing.T) {
	t.Parallel()
	k := newMarket(t, "acme")
	k.release("acme", "one", 1, time.Now())
	k.publish()
	k.must(k.once())
	name, err := blob(k.release("acme", "two", 2, time.Now()))
	k.must(err)
	k.publish()
	whole, gone := k.in("stick", name), k.file("acme", ".content.json")
	text, err := os.ReadFile(whole)
	k.must(err)
	k.must(os.WriteFile(k.in("staging", name)+partSuffix, text[:9], 0o600))
	k.must(os.Rename(whole, whole+".gone"))
	k.must(os.Rename(gone, gone+".gone"))
	m := stager(t, k.dir).mirror
	for range 2 {
		if _, err := m.catalog(t.Context()); err != nil {
			t.Fatal(err)
		}
		if done, err := m.sweep([]string{"sha256:" + filepath.Base(name)}); err != nil || !done {
			t.Fatalf("swept: %v, %v", done, err)
		}
	}
	got := k.staged("staging")
	for _, want := range []string{"/vendors/acme/" + nextStamp, "/vendors/acme/3.snapshot.json", "/" + name + partSuffix} {
		if !slices.Contains(got, want) {
			t.Errorf("%s is gone: %q", want, got)
		}
	}
}

// TestSweepIsBounded: however much is to go, the core waits for a part of it only, and all goes in the end.
func TestSweepIsBounded(t *testing.T) {
	t.Parallel()
	m := mirror{to: t.TempDir()}
	at := filepath.Join(m.to, sha256Dir)
	if err := os.MkdirAll(at, 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range 2*maxSwept + 1 {
		if err := os.WriteFile(filepath.Join(at, strconv.Itoa(i)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []int{maxSwept + 1, 1, 0, 0} {
		done, err := m.sweep(nil)
		left, readErr := os.ReadDir(at)
		if err := errors.Join(err, readErr); err != nil || len(left) != want || done != (want == 0) {
			t.Errorf("%d are left, want %d; all: %v, %v", len(left), want, done, err)
		}
	}
}
