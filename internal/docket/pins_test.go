package docket_test

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/keepout-security/keepout/event"
)

// pins is a keeper whose object is one file. It remembers what the docket wanted it to.
type pins struct {
	full    atomic.Bool
	broken  atomic.Bool // each lease is, at once
	before  func()      // called before the next Take, once
	mu      sync.Mutex
	writer  bool        // somebody has the object open for writing
	changes int         // how often somebody had it
	since   map[int]int // by descriptor, at Take
	era     uint64
	kept    int
	over    int // objects that are pinned no longer, or are kept
}

func (p *pins) Room(int64) bool { return !p.full.Load() }

func (p *pins) Take(file int) (uint64, bool) {
	p.mu.Lock()
	before := p.before
	p.before = nil
	p.mu.Unlock()
	if before != nil {
		before()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.since == nil {
		p.since = map[int]int{}
	}
	p.since[file] = p.changes
	return p.era, !p.writer
}

func (p *pins) Whole(file int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.since[file] == p.changes && !p.broken.Load()
}

func (p *pins) Keep(_ int, _ *event.Version, era uint64, _ time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if era == p.era {
		p.kept++
		p.over++
	}
	return era == p.era
}

// Kept implements sensor.Keeper.
func (p *pins) Kept(*event.Version) bool { return p.inKernel() > 0 }

// Hold implements sensor.Keeper.
func (p *pins) Hold(bool) {}

func (p *pins) Release(int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over++
}

// ended is how often an object was let go or kept.
func (p *pins) ended() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.over
}

// meanwhile has something done just before the next object is pinned.
func (p *pins) meanwhile(do func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.before = do
}

func (p *pins) Flush() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.era++
	p.kept = 0
}

func (p *pins) set(writer, changed bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.writer = writer
	if changed {
		p.changes++
	}
}

func (p *pins) inKernel() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.kept
}
