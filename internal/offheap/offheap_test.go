package offheap

import (
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

type place struct {
	_    [2]uint64
	vote uint16
}

// What is reserved is writable to its end, and nothing that the collector counts.
func TestMakeIsNotOnTheHeap(t *testing.T) {
	const n = 1 << 20
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	owner := new(int64)
	places := Make[place](owner, n)
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 1<<20 {
		t.Errorf("the heap grew by %d bytes for a table", grown)
	}
	if len(places) != n || places[0] != (place{}) || places[n-1] != (place{}) {
		t.Fatalf("%d places, not all zero", len(places))
	}
	places[n-1].vote = 7
	if places[n-1].vote != 7 {
		t.Error("a place does not keep what is written")
	}
	runtime.KeepAlive(owner)
}

// The memory goes with its owner.
func TestMakeGivesBack(t *testing.T) {
	owner := new([64]byte) // not so small that it shares its block with others
	const size = 64 << 20  // nobody else's mappings soon fill the room that it leaves
	places := Make[byte](owner, size)
	places[size-1] = 1
	mapped := func() bool { return unix.Madvise(places, unix.MADV_NORMAL) == nil } // ENOMEM where a page is not mapped
	if !mapped() {
		t.Fatal("not mapped while its owner lives")
	}
	runtime.KeepAlive(owner)
	for end := time.Now().Add(time.Minute); mapped(); {
		if time.Now().After(end) {
			t.Fatal("still mapped a minute after its owner has gone")
		}
		runtime.GC()
		time.Sleep(time.Millisecond)
	}
}

func TestMakeRefusesPointers(t *testing.T) {
	t.Parallel()
	type inner struct{ _ [2]struct{ _ string } }
	defer func() {
		if recover() == nil {
			t.Error("a type with pointers was taken")
		}
	}()
	Make[inner](new(int64), 1)
}

func TestMakeNothing(t *testing.T) {
	t.Parallel()
	if got := Make[place](new(int64), 0); len(got) != 0 {
		t.Errorf("%d places", len(got))
	}
}
