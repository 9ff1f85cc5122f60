package verdictcache

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/offheap"
)

// Sizes. A vote takes 32 bytes, and memory is taken from the system as it fills.
const (
	ways    = 8       // places in which one key may be
	sets    = 1 << 15 // a power of two
	Places  = sets * ways
	locks   = 64         // sets that share a lock: one in so many
	maxKept = 1<<16 - 1  // different votes in one epoch; further ones are not remembered
	forever = ^uint32(0) // never expires
)

// entry is one vote. Expiry is in seconds since the table was made.
type entry struct {
	key    Key
	epoch  uint32 // 0: free
	expiry uint32
	vote   uint16 // place among the epoch's votes
}

// Table remembers the votes of one provider. It is safe for concurrent use.
type Table struct {
	base  time.Time
	epoch atomic.Uint32
	hits  atomic.Uint64

	lock    [locks]sync.Mutex
	entries []entry     // used with a lock of the table held, which keeps the table and so the entries alive
	hand    [sets]uint8 // where the next one goes in a full set

	votesMu sync.RWMutex
	votes   []event.Vote // of the epoch
	places  map[event.Vote]uint16
	of      uint32 // the epoch of votes
}

// New makes an empty table.
func New() *Table {
	t := &Table{base: time.Now()}
	t.entries = offheap.Make[entry](t, Places)
	t.epoch.Store(1)
	return t
}

// Epoch is what a vote must be put in with: the one that was current before the provider was asked.
func (t *Table) Epoch() uint32 { return t.epoch.Load() }

// Flush forgets everything at once, and whatever is put in with an earlier epoch. It takes the same time however much
// is remembered.
func (t *Table) Flush() { t.epoch.Add(1) }

// Hits is how many votes were given back.
func (t *Table) Hits() uint64 { return t.hits.Load() }

// set returns the places of a key, and its lock, which is taken.
func (t *Table) set(k Key) (n int, places []entry, unlock *sync.Mutex) {
	n = int(k.a % sets)
	mu := &t.lock[n%locks]
	mu.Lock()
	return n, t.entries[n*ways : (n+1)*ways], mu
}

// Get returns the vote that is remembered under k. It does not allocate.
func (t *Table) Get(k Key, now time.Time) (event.Vote, bool) {
	epoch := t.epoch.Load()
	_, places, mu := t.set(k)
	for i := range places {
		e := &places[i]
		if e.key != k || e.epoch != epoch {
			continue
		}
		place, expiry := e.vote, e.expiry
		mu.Unlock()
		if expiry != forever && t.seconds(now) >= expiry {
			return event.Vote{}, false
		}
		return t.vote(place, epoch)
	}
	mu.Unlock()
	return event.Vote{}, false
}

func (t *Table) vote(place uint16, epoch uint32) (event.Vote, bool) {
	t.votesMu.RLock()
	defer t.votesMu.RUnlock()
	if t.of != epoch || int(place) >= len(t.votes) {
		return event.Vote{}, false
	}
	t.hits.Add(1)
	return t.votes[place], true
}

// Put remembers v under k for as long as life says, or until it is flushed or pushed out when life is 0. It does
// nothing when epoch is not the current one.
func (t *Table) Put(k Key, v event.Vote, epoch uint32, now time.Time, life time.Duration) {
	place, ok := t.intern(v, epoch)
	if !ok || epoch != t.epoch.Load() {
		return
	}
	expiry := forever
	if life > 0 {
		expiry = t.seconds(now.Add(life))
	}
	n, places, mu := t.set(k)
	defer mu.Unlock()
	at := -1
	for i := range places {
		e := &places[i]
		if e.key == k {
			at = i
			break
		}
		if at < 0 && e.epoch != epoch {
			at = i
		}
	}
	if at < 0 {
		at = int(t.hand[n] % ways)
		t.hand[n]++
	}
	places[at] = entry{key: k, epoch: epoch, expiry: expiry, vote: place}
}

// intern returns the place of a vote among those of the epoch: votes differ seldom.
func (t *Table) intern(v event.Vote, epoch uint32) (uint16, bool) {
	t.votesMu.RLock()
	place, known := t.places[v]
	current := t.of == epoch
	t.votesMu.RUnlock()
	if known && current {
		return place, true
	}
	t.votesMu.Lock()
	defer t.votesMu.Unlock()
	if t.of != epoch {
		if epoch != t.epoch.Load() {
			return 0, false
		}
		t.of, t.votes, t.places = epoch, t.votes[:0], map[event.Vote]uint16{}
	}
	if place, known = t.places[v]; known {
		return place, true
	}
	if len(t.votes) >= maxKept {
		return 0, false
	}
	place = uint16(len(t.votes))
	t.votes = append(t.votes, v)
	t.places[v] = place
	return place, true
}

func (t *Table) seconds(now time.Time) uint32 {
	return uint32(max(now.Sub(t.base)/time.Second, 0))
}
