package provider

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/keepout-security/keepout/event"
)

// ErrNoContent reports that an event came without a descriptor: the subscription did not ask for one, the
// manifest does not grant it, or the type has none.
var ErrNoContent = errors.New("event carries no descriptor")

// Event is one event as an engine sees it. It is valid until Vote or Notify returns, and then used for the next one;
// its strings may be kept.
type Event struct {
	event.Event
	Deadline time.Time // a later vote is not counted; zero for notify events

	fd int // -1 without a descriptor

	mu        sync.Mutex
	current   uint64 // the id while it is worked on, otherwise 0
	cancelled bool
	ctx       context.Context
	cancel    context.CancelFunc
}

// Content reads the object. It is an io.ReaderAt over the descriptor, bounded by the size the event states.
func (e *Event) Content() (*io.SectionReader, error) {
	if e.fd < 0 {
		return nil, ErrNoContent
	}
	return io.NewSectionReader(descriptor(e.fd), 0, e.File.Size), nil
}

// FD returns the read-only descriptor for an engine that passes it on, or -1. It is closed after Vote
// returns. Never reopen it through /proc: that is a new open, and the platform would have to ask about it.
func (e *Event) FD() int { return e.fd }

// Context ends when the vote is no longer wanted: another provider has decided, or the deadline has passed.
// It is made on first use, because most engines answer before it matters.
func (e *Event) Context() context.Context {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ctx == nil {
		if e.Deadline.IsZero() {
			e.ctx, e.cancel = context.WithCancel(context.Background())
		} else {
			e.ctx, e.cancel = context.WithDeadline(context.Background(), e.Deadline)
		}
		if e.cancelled {
			e.cancel()
		}
	}
	return e.ctx
}

// stop marks the vote on event id as not wanted any more, if that is the one worked on.
func (e *Event) stop(id uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.current == id {
		e.stopLocked()
	}
}

// hangUp marks whatever is worked on as not wanted any more.
func (e *Event) hangUp() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.current != 0 {
		e.stopLocked()
	}
}

func (e *Event) stopLocked() {
	e.cancelled = true
	if e.cancel != nil {
		e.cancel()
	}
}

// String names the event for a log line.
func (e *Event) String() string {
	return fmt.Sprintf("%s %s #%d", e.Type, e.File.Path, e.ID)
}
