package update

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/keepout-security/keepout/internal/simdisk"
)

// stagedOn reads the orders from a disk that the power came back to.
func stagedOn(t *testing.T, d *simdisk.Disk) (Orders, error) {
	t.Helper()
	r, err := d.Open("/" + OrdersFile)
	if err != nil {
		return Orders{}, err
	}
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, OrdersFile))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.ReadFrom(r); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return ReadOrders(os.DirFS(dir))
}

// TestPowerCutKeepsOrders: at whatever act the power goes, the orders are the old ones or the new ones, and those that
// were said to be written stay.
func TestPowerCutKeepsOrders(t *testing.T) {
	t.Parallel()
	before := Orders{Orders: []Order{{Act: Stage, Provider: "acme-edr", Reason: "the orders before"}}}
	next := Orders{Orders: []Order{{Act: RollBack, Provider: "acme-edr", Reason: "what is ordered now"}}}
	for seed := range uint64(50) {
		for cut := 1; ; cut++ {
			d := simdisk.New()
			if err := writeOrders(d, "/", &before); err != nil {
				t.Fatal(err)
			}
			d.CutAt(cut)
			written := writeOrders(d, "/", &next)
			got, err := stagedOn(t, d.Crash(rand.New(rand.NewPCG(seed, uint64(cut)))))
			old := written != nil && reflect.DeepEqual(got, before)
			if err != nil || !old && !reflect.DeepEqual(got, next) {
				t.Fatalf("seed %d, cut %d: %+v, %v; they were written: %v", seed, cut, got, err, written)
			}
			if written == nil {
				break
			}
		}
	}
}

// TestTheSameOrdersAgainAreDurable: wherever a process that wrote them ended, or the disk refused, they outlive a power
// cut once another call has said that they are written.
func TestTheSameOrdersAgainAreDurable(t *testing.T) {
	t.Parallel()
	before := Orders{Orders: []Order{{Act: Stage, Provider: "acme-edr", Reason: "the orders before"}}}
	next := Orders{Orders: []Order{{Act: RollBack, Provider: "acme-edr", Reason: "what is ordered now"}}}
	for seed := range uint64(50) {
		for cut := 1; ; cut++ {
			d := simdisk.New()
			if err := writeOrders(d, "/", &before); err != nil {
				t.Fatal(err)
			}
			d.CutAt(cut)
			first := writeOrders(d, "/", &next)
			d.Revive()
			if err := writeOrders(d, "/", &next); err != nil {
				t.Fatal(err)
			}
			got, err := stagedOn(t, d.Crash(rand.New(rand.NewPCG(seed, uint64(cut)))))
			if err != nil || !reflect.DeepEqual(got, next) {
				t.Fatalf("seed %d, cut %d: %+v, %v", seed, cut, got, err)
			}
			if first == nil {
				break
			}
		}
	}
}

// TestTheSameOrdersAreNotWrittenAgain: the file is the same one until the orders change, or it is damaged.
func TestTheSameOrdersAreNotWrittenAgain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, OrdersFile)
	write := func(reason string) os.FileInfo {
		t.Helper()
		if err := WriteOrders(dir, &Orders{Orders: []Order{{Act: RollBack, Reason: reason}}}); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info
	}
	first := write("one")
	held, err := os.Open(path) // so that no other file gets its number
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = held.Close() })
	if !os.SameFile(first, write("one")) {
		t.Error("the same orders were written again")
	}
	if os.SameFile(first, write("two")) {
		t.Error("other orders were not written")
	}
	if err := os.WriteFile(path, []byte(`{"version":1,"ord`), 0o600); err != nil {
		t.Fatal(err)
	}
	write("two")
	if o, err := ReadOrders(os.DirFS(dir)); err != nil || o.Orders[0].Reason != "two" {
		t.Errorf("after damage: %+v, %v", o, err)
	}
}
