package roster

import "sync"

// mailbox takes what a lineage shall do, in order and without ever making the sender wait: its members report to it
// from goroutines that it may be waiting for. What is in it is bounded by what its few senders have going on.
type mailbox struct {
	mu    sync.Mutex
	queue []func()
	full  chan struct{}
}

func newMailbox() *mailbox { return &mailbox{full: make(chan struct{}, 1)} }

func (b *mailbox) put(do func()) {
	b.mu.Lock()
	b.queue = append(b.queue, do)
	b.mu.Unlock()
	select {
	case b.full <- struct{}{}:
	default:
	}
}

// take returns the oldest, or nil.
func (b *mailbox) take() func() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.queue) == 0 {
		return nil
	}
	do := b.queue[0]
	b.queue[0] = nil
	if b.queue = b.queue[1:]; len(b.queue) == 0 {
		b.queue = nil
	}
	return do
}
