package fetch

import (
	"context"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/keepout-security/keepout/internal/fleet/fleetpb"
	"github.com/keepout-security/keepout/internal/update"
)

// punctual is a source that gives nothing when the time is over, as one behind a network does.
type punctual struct{ source }

func (p punctual) open(ctx context.Context, name string, offset int64) (io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return p.source.open(ctx, name, offset)
}

// stalls makes a fetcher's source say nothing about some files.
func (f *fetcher) stalls(name func(string) bool) {
	f.mirror.from = punctual{&faulty{from: f.mirror.from, name: name, then: stall}}
}

// toldCore reads what the core is told: act and digest.
func toldCore(t *testing.T, f *fetcher) (acts []string) {
	t.Helper()
	orders, err := update.ReadOrders(os.DirFS(f.o.Staging))
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range orders.Orders {
		acts = append(acts, string(o.Act)+" "+o.Digest)
	}
	return acts
}

// TestWhatIsStagedStays: a package that is whole stays in the list of the core, whatever comes of the others and of the
// metadata, and over a restart; the core would forget its nonce otherwise.
func TestWhatIsStagedStays(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		blob, meta bool // that are slow
	}{
		"a slow package before it": {blob: true},
		"slow metadata":            {meta: true},
		"both":                     {blob: true, meta: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, digests := stick(t)
			one, err := blob(digests["one"])
			if err != nil {
				t.Fatal(err)
			}
			slow := func(name string) bool {
				return c.blob && name == one || c.meta && strings.HasSuffix(name, "timestamp.json")
			}
			first := stager(t, dir)
			list := []*fleetpb.Order{stageOrder(digests["two"])}
			if unfinished, err := first.obey(t.Context(), list, nil); err != nil || unfinished {
				t.Fatalf("unfinished: %v, %v", unfinished, err)
			}
			if c.blob {
				list = []*fleetpb.Order{stageOrder(digests["one"]), list[0]}
			}
			again := stager(t, dir)
			again.staged = stagedBefore(again.o.Staging)
			for process, f := range map[string]*fetcher{"the same process": first, "another process": again} {
				f.turn, f.fetched = 100*time.Millisecond, time.Time{}
				f.stalls(slow)
				if unfinished, err := f.obey(t.Context(), list, nil); err != nil || unfinished != c.blob {
					t.Errorf("%s: unfinished: %v, %v", process, unfinished, err)
				}
				if got := toldCore(t, f); len(got) != 1 || got[0] != "stage "+digests["two"] {
					t.Errorf("%s: the core is told %q", process, got)
				}
			}
		})
	}
}

// TestWhatIsNoLongerNamedGoes: a package that the operator's metadata names no more does not stay.
func TestWhatIsNoLongerNamedGoes(t *testing.T) {
	t.Parallel()
	dir, digests := stick(t)
	f, gone := stager(t, dir), "sha256:"+strings.Repeat("0", 64)
	f.staged = map[string]update.Order{gone: {Act: update.Stage, Digest: gone}}
	list := []*fleetpb.Order{stageOrder(gone), stageOrder(digests["two"])}
	if _, err := f.obey(t.Context(), list, nil); err == nil {
		t.Error("nobody is told that a package is not named")
	}
	if got := toldCore(t, f); len(got) != 1 || got[0] != "stage "+digests["two"] {
		t.Errorf("the core is told %q", got)
	}
}

// TestSlowPackageTakesItsPart: a package that never comes does not keep the one after it from being staged.
func TestSlowPackageTakesItsPart(t *testing.T) {
	t.Parallel()
	dir, digests := stick(t)
	slow, err := blob(digests["one"])
	if err != nil {
		t.Fatal(err)
	}
	f := stager(t, dir)
	f.turn = 200 * time.Millisecond
	f.stalls(func(name string) bool { return name == slow })
	for range 50 { // a busy disk may need more than one
		list := []*fleetpb.Order{stageOrder(digests["one"]), stageOrder(digests["two"])}
		unfinished, err := f.obey(t.Context(), list, nil)
		if err != nil || !unfinished {
			t.Fatalf("unfinished: %v, %v", unfinished, err)
		}
		if got := toldCore(t, f); len(got) == 1 && got[0] == "stage "+digests["two"] {
			return
		}
	}
	t.Errorf("the core is told %q", toldCore(t, f))
}
