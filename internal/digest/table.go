package digest

import (
	"crypto/sha256"
	"encoding/hex"
	"hash/maphash"
	"sync"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/offheap"
)

// Sum is a SHA-256.
type Sum [sha256.Size]byte

// Text renders the digest as package event does: lower-case hex.
func (s *Sum) Text() string {
	var b [2 * len(s)]byte
	hex.Encode(b[:], s[:])
	return string(b[:])
}

// Sizes. A digest takes 48 bytes, and memory is taken from the system as the table fills.
const (
	ways   = 4       // places in which one version may be
	sets   = 1 << 15 // a power of two
	locks  = 64      // sets that share a lock: one in so many
	Places = sets * ways
)

// place is one version's digest. The version is known by 128 bits under seeds that nobody outside knows, so that two of
// them cannot be made to share a place; both zero: free.
type place struct {
	a, b uint64
	sum  Sum
}

// Table remembers digests by version. It is safe for concurrent use.
type Table struct {
	first, second maphash.Seed

	lock   [locks]sync.Mutex
	places []place     // used with a lock of the table held, which keeps the table and so the places alive
	hand   [sets]uint8 // where the next one goes in a full set
}

// New makes an empty table.
func New() *Table {
	t := &Table{first: maphash.MakeSeed(), second: maphash.MakeSeed()}
	t.places = offheap.Make[place](t, Places)
	return t
}

// set returns the places of a version, and their lock, which is taken.
func (t *Table) set(v *event.Version) (a, b uint64, n int, unlock *sync.Mutex) {
	a, b = maphash.Comparable(t.first, *v), maphash.Comparable(t.second, *v)|1
	n = int(a % sets)
	unlock = &t.lock[n%locks]
	unlock.Lock()
	return a, b, n, unlock
}

// Get returns the digest that is remembered of a version. It does not allocate.
func (t *Table) Get(v *event.Version) (Sum, bool) {
	a, b, n, mu := t.set(v)
	defer mu.Unlock()
	for i := range ways {
		if p := &t.places[n*ways+i]; p.a == a && p.b == b {
			return p.sum, true
		}
	}
	return Sum{}, false
}

// Put remembers a digest until it is pushed out. The caller has proof that no other content can have this version.
func (t *Table) Put(v *event.Version, sum Sum) {
	a, b, n, mu := t.set(v)
	defer mu.Unlock()
	at := -1
	for i := range ways {
		p := &t.places[n*ways+i]
		if p.a == a && p.b == b {
			at = i
			break
		}
		if at < 0 && p.b == 0 {
			at = i
		}
	}
	if at < 0 {
		at = int(t.hand[n] % ways)
		t.hand[n]++
	}
	t.places[n*ways+at] = place{a, b, sum}
}
