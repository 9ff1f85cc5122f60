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
	mu      sync.Mutex
	writer  bool        // somebody has the object open for writing
	changes int         // how often somebody had it
	since   map[int]int // by descriptor, at Take
	era     uint64
	kept    int
}

func (p *pins) Room(int64) bool { return !p.full.Load() }

func (p *pins) Take(file int) (uint64, bool) {
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
	}
	return era == p.era
}

// Kept implements sensor.Keeper.
func (p *pins) Kept(*event.Version) bool { return p.inKernel() > 0 }

// Hold implements sensor.Keeper.
func (p *pins) Hold(bool) {}

func (p *pins) Release(int) {}

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
