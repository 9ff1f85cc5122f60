package docket

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/keepout-security/keepout/event"
)

// Counts are the verdicts given, by outcome.
type Counts struct {
	Allowed, Denied, WouldDeny, Timeout, Unavailable atomic.Uint64
	Unmatched                                        atomic.Uint64 // no subscription matched
	Remembered                                       atomic.Uint64 // of those allowed, without asking anybody
	Notified                                         atomic.Uint64 // notify events seen
	Hashed, Unhashed                                 atomic.Uint64 // digests computed, and given up
	Prescanned, Interrupted                          atomic.Uint64 // offers voted on, and cancelled
}

func (c *Counts) count(o event.Outcome, n int) {
	counter := &c.Allowed
	switch o {
	case event.Denied:
		counter = &c.Denied
	case event.Timeout:
		counter = &c.Timeout
	case event.Unavailable:
		counter = &c.Unavailable
	case event.Allowed, event.WouldDeny:
	}
	counter.Add(uint64(n))
}

// Totals is a snapshot of Counts.
type Totals struct {
	Allowed     uint64 `json:"allowed"`
	Denied      uint64 `json:"denied"`
	WouldDeny   uint64 `json:"would_deny"` // of those allowed
	Timeout     uint64 `json:"timeout"`
	Unavailable uint64 `json:"unavailable"`
	Unmatched   uint64 `json:"unmatched"`
	Remembered  uint64 `json:"remembered"` // of those allowed, without asking anybody
	Notified    uint64 `json:"notified"`
	Hashed      uint64 `json:"hashed"`      // contents whose digest the platform computed for providers
	Unhashed    uint64 `json:"unhashed"`    // and those for which there was no time
	Prescanned  uint64 `json:"prescanned"`  // files voted on before anybody opened them
	Interrupted uint64 `json:"interrupted"` // such looks that were cancelled because somebody opened the file
	InFlight    int    `json:"in_flight"`
}

// Totals returns how many questions were answered and how; joined questions count each.
func (d *Docket) Totals() Totals {
	return Totals{
		Allowed: d.counts.Allowed.Load(), Denied: d.counts.Denied.Load(),
		WouldDeny: d.counts.WouldDeny.Load(), Timeout: d.counts.Timeout.Load(),
		Unavailable: d.counts.Unavailable.Load(), Unmatched: d.counts.Unmatched.Load(),
		Remembered: d.counts.Remembered.Load(),
		Notified:   d.counts.Notified.Load(), InFlight: int(d.waiting.Load()),
		Prescanned: d.counts.Prescanned.Load(), Interrupted: d.counts.Interrupted.Load(),
		Hashed: d.counts.Hashed.Load(), Unhashed: d.counts.Unhashed.Load(),
	}
}

// Latency is a histogram of how long votes took, from reading the event to the vote. It is safe for concurrent
// use.
type Latency struct {
	mu   sync.Mutex
	h    *hdrhistogram.Histogram
	then *hdrhistogram.Snapshot // at the last Lap

	recent atomic.Int64 // in nanoseconds; written with mu held
}

// NewLatency makes an empty histogram for 1 µs to 60 s at two significant figures.
func NewLatency() *Latency {
	return &Latency{h: hdrhistogram.New(1, 60_000_000, 2)}
}

// Add counts one vote.
func (l *Latency) Add(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	// Out of range cannot be: no vote is awaited that long.
	_ = l.h.RecordValue(max(d.Microseconds(), 1))
	before := l.recent.Load()
	l.recent.Store(before + (int64(d)-before)/recentVotes)
}

// recentVotes is about how many votes Recent looks back.
const recentVotes = 8

// Recent returns how long votes have taken lately: a mean in which the last ones weigh most, and 0 at first.
func (l *Latency) Recent() time.Duration { return time.Duration(l.recent.Load()) }

// Quantiles are in microseconds; zero without votes.
type Quantiles struct {
	P50 int64 `json:"p50"`
	P99 int64 `json:"p99"`
}

// Quantiles returns the median and the 99th percentile.
func (l *Latency) Quantiles() Quantiles {
	l.mu.Lock()
	defer l.mu.Unlock()
	return Quantiles{P50: l.h.ValueAtQuantile(50), P99: l.h.ValueAtQuantile(99)}
}

// Lap returns the quantiles of the votes since the last Lap, or since the beginning. One caller only can use it.
func (l *Latency) Lap() Quantiles {
	l.mu.Lock()
	now := l.h.Export()
	l.mu.Unlock()
	lap := *now
	lap.Counts = append([]int64(nil), now.Counts...)
	if l.then != nil {
		for i := range lap.Counts {
			lap.Counts[i] -= l.then.Counts[i]
		}
	}
	l.then = now
	h := hdrhistogram.Import(&lap)
	return Quantiles{P50: h.ValueAtQuantile(50), P99: h.ValueAtQuantile(99)}
}
