package fleet

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/keepout-security/keepout/internal/fleet/store"
)

// Bounds of what is collected before it is written.
const (
	flushEvery = 200 * time.Millisecond
	flushAt    = 500 // check-ins
)

// writer collects what check-ins change, the latest of each host, and writes them in batches. What a crash loses the
// hosts say again; what must not be lost goes through the conductor.
type writer struct {
	store store.Store
	log   *slog.Logger

	mu      sync.Mutex
	pending map[string]store.CheckIn
	full    chan struct{}
}

func newWriter(s store.Store, log *slog.Logger) *writer {
	return &writer{store: s, log: log, pending: map[string]store.CheckIn{}, full: make(chan struct{}, 1)}
}

// add never waits: there is one entry for each host.
func (w *writer) add(c store.CheckIn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if old, ok := w.pending[c.Host]; ok {
		if c.Labels == nil {
			c.Labels = old.Labels
		}
		if c.Installed == nil {
			c.Installed = old.Installed
		}
	}
	w.pending[c.Host] = c
	if len(w.pending) >= flushAt {
		select {
		case w.full <- struct{}{}:
		default:
		}
	}
}

// run writes until ctx ends, and then what is left.
func (w *writer) run(ctx context.Context) {
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			w.flush(context.WithoutCancel(ctx))
			return
		case <-tick.C:
		case <-w.full:
		}
		w.flush(ctx)
	}
}

func (w *writer) flush(ctx context.Context) {
	w.mu.Lock()
	taken := w.pending
	if len(taken) == 0 {
		w.mu.Unlock()
		return
	}
	w.pending = make(map[string]store.CheckIn, min(len(taken), flushAt))
	w.mu.Unlock()
	batch := make([]store.CheckIn, 0, min(len(taken), flushAt))
	for _, c := range taken {
		if batch = append(batch, c); len(batch) == flushAt {
			w.write(ctx, batch)
			batch = batch[:0]
		}
	}
	w.write(ctx, batch)
}

func (w *writer) write(ctx context.Context, batch []store.CheckIn) {
	if len(batch) == 0 {
		return
	}
	if err := w.store.Update(ctx, func(tx store.Tx) error { return tx.CheckIns(batch) }); err != nil {
		w.log.Error("check-ins were not written; hosts say it again", slog.Int("hosts", len(batch)), slog.Any("error", err))
	}
}
