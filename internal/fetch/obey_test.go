package fetch

import (
	"context"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
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

// TestRollBackWaitsForNothing: an order to go back to what the host has is told to the core before anything is fetched,
// together with what was staged before, and however many packages do not come, the host checks in after two turns.
func TestRollBackWaitsForNothing(t *testing.T) {
	t.Parallel()
	dir, digests := stick(t)
	former := "sha256:" + strings.Repeat("f", 64)
	synctest.Test(t, func(t *testing.T) {
		f := stager(t, dir)
		if err := os.MkdirAll(f.o.report(), 0o750); err != nil {
			t.Fatal(err)
		}
		err := update.WriteReport(f.o.report(), &update.Report{Core: "c", Installed: []update.Installed{
			{Provider: "acme-edr", Part: "content", Slot: "former", Digest: former},
		}})
		if err != nil {
			t.Fatal(err)
		}
		list := []*fleetpb.Order{stageOrder(digests["two"])}
		if unfinished, err := f.obey(t.Context(), list, nil); err != nil || unfinished {
			t.Fatalf("unfinished: %v, %v", unfinished, err)
		}
		var first, last []string
		f.mirror.from = punctual{&faulty{
			from: text(""), name: all, then: func(ctx context.Context) (byte, error) {
				if last = toldCore(t, f); first == nil {
					first = last
				}
				return stall(ctx)
			},
		}}
		list = append([]*fleetpb.Order{stageOrder(digests["one"])}, list...)
		for _, digit := range "01234" {
			list = append(list, backOrder("sha256:"+strings.Repeat(string(digit), 64)))
		}
		list = append(list, backOrder(former), backOrder(""))
		begin := time.Now()
		if unfinished, err := f.obey(t.Context(), list, nil); err != nil || !unfinished {
			t.Errorf("unfinished: %v, %v", unfinished, err)
		}
		if took := time.Since(begin); took > 2*f.turn {
			t.Errorf("it checks in after %v", took)
		}
		want := []string{"roll-back " + former, "roll-back ", "stage " + digests["two"]}
		if !slices.Equal(first, want) {
			t.Errorf("before anything came the core was told %q, want %q", first, want)
		}
		if len(last) != len(want)+5 {
			t.Errorf("when the last package is waited for, the core was told %q", last)
		}
	})
}

// TestRollBackTakesItsPart: what never comes does not keep the host from going back with something else.
func TestRollBackTakesItsPart(t *testing.T) {
	t.Parallel()
	dir, digests := stick(t)
	slow, err := blob(digests["one"])
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		f := stager(t, dir)
		f.stalls(func(name string) bool { return name == slow })
		list := []*fleetpb.Order{backOrder(digests["one"]), backOrder(digests["two"])}
		if _, err := f.obey(t.Context(), list, nil); err != nil {
			t.Fatal(err)
		}
		orders, err := update.ReadOrders(os.DirFS(f.o.Staging))
		if err != nil || len(orders.Orders) != 2 || orders.Orders[0].Lacking == "" || orders.Orders[1].Lacking != "" {
			t.Errorf("orders %+v, %v", orders, err)
		}
	})
}

// TestRollBackIsFetchedInTurns: what to go back to is whole one day, however little of it comes in each turn.
func TestRollBackIsFetchedInTurns(t *testing.T) {
	t.Parallel()
	dir, digests := stick(t)
	f := stager(t, dir)
	f.turn = 100 * time.Millisecond
	inBlobs := func(name string) bool { return strings.HasPrefix(name, blobDir) }
	f.mirror.from = &faulty{from: f.mirror.from, name: inBlobs, each: 300, then: stall}
	for range 200 {
		f.fetched = time.Time{} // each looks at metadata, and sweeps
		if _, err := f.obey(t.Context(), []*fleetpb.Order{backOrder(digests["one"])}, nil); err != nil {
			t.Fatal(err)
		}
		orders, err := update.ReadOrders(os.DirFS(f.o.Staging))
		if err != nil || len(orders.Orders) != 1 {
			t.Fatalf("orders %+v, %v", orders, err)
		}
		if orders.Orders[0].Lacking == "" {
			return
		}
	}
	t.Error("it begins anew each time")
}
