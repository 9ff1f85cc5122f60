// Package bus carries hints between the parts of a control plane: something about this key changed, look again.
//
// It guarantees nothing but speed. A hint may be lost when its subscriber is slow, and then the subscriber is told that
// it missed some; what is true stands in the store. So a bus between processes can take the place of this one without
// any other change.
package bus

import (
	"context"
	"errors"
	"sync"
)

// Hint says what changed.
type Hint struct {
	Topic string
	Key   string // which one; empty for all
}

// Subscription receives the hints of one topic.
type Subscription interface {
	// Next waits for hints and returns all that came since the last call. Missed is set when there were more than
	// the subscription holds: then anything may have changed. It ends with the context's error, or ErrClosed.
	Next(ctx context.Context) (hints []Hint, missed bool, err error)
	// Close ends the subscription. It may be called more than once, and while Next waits.
	Close()
}

// Bus is safe for concurrent use.
type Bus interface {
	// Publish tells all subscribers of the hint's topic. It never waits for one of them.
	Publish(h Hint)
	// Subscribe receives what is published from now on.
	Subscribe(topic string) Subscription
}

// Queued is how many hints a subscription holds.
const Queued = 1024

// Local is a bus within one process. Make it with NewLocal.
type Local struct {
	mu   sync.Mutex
	subs map[string]map[*local]bool
}

var _ Bus = (*Local)(nil)

// NewLocal makes a bus without subscribers.
func NewLocal() *Local { return &Local{subs: map[string]map[*local]bool{}} }

// Publish implements Bus.
func (b *Local) Publish(h Hint) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for s := range b.subs[h.Topic] {
		s.add(h)
	}
}

// Subscribe implements Bus.
func (b *Local) Subscribe(topic string) Subscription {
	s := &local{bus: b, topic: topic, wake: make(chan struct{}, 1), done: make(chan struct{})}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.subs[topic] == nil {
		b.subs[topic] = map[*local]bool{}
	}
	b.subs[topic][s] = true
	return s
}

// local is one subscription; its fields are guarded by mu, which is taken after the bus's.
type local struct {
	bus    *Local
	topic  string
	wake   chan struct{} // holds one token while there is something to fetch
	done   chan struct{}
	mu     sync.Mutex
	hints  []Hint
	missed bool
	closed bool
}

func (s *local) add(h Hint) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.hints) >= Queued {
		s.missed = true
	} else {
		s.hints = append(s.hints, h)
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Next implements Subscription.
func (s *local) Next(ctx context.Context) (hints []Hint, missed bool, err error) {
	select {
	case <-s.wake:
	case <-s.done:
		return nil, false, ErrClosed
	case <-ctx.Done():
		return nil, false, context.Cause(ctx)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	hints, missed = s.hints, s.missed
	s.hints, s.missed = nil, false
	return hints, missed, nil
}

// Close implements Subscription.
func (s *local) Close() {
	s.bus.mu.Lock()
	delete(s.bus.subs[s.topic], s)
	s.bus.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.closed = true
		close(s.done)
	}
}

// ErrClosed ends the Next of a closed subscription.
var ErrClosed = errors.New("the subscription is closed")
