package provider

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/wire"
)

// worker works on one vote at a time. It allocates nothing for one: the event and its buffers are used again, and the
// event's strings come in pieces.
type worker struct {
	r    *runner
	from *wire.Receiver
	ev   Event
	text wire.Text
	in   []byte
	out  []byte
}

func newWorker(r *runner, eager bool) *worker {
	return &worker{
		r: r, from: wire.NewReceiver(r.auth, true, eager),
		in: make([]byte, wire.MaxPacket), out: make([]byte, 0, 1024),
	}
}

// loop answers events until the auth socket ends. It keeps its thread, so that the kernel wakes it directly. The vote
// is sent before anything else is done.
func (w *worker) loop() error {
	runtime.LockOSThread()
	for {
		n, file, err := w.r.crew.take(w.from, w.in)
		if err != nil {
			w.r.crew.dismiss()
			if errors.Is(err, io.EOF) {
				return nil
			}
			return fmt.Errorf("auth socket: %w", err)
		}
		asked, err := w.read(w.in[:n], file)
		if err == nil && asked {
			w.out = wire.AppendVote(w.out[:0], w.ev.ID, w.r.vote(&w.ev))
			err = w.r.auth.SendWait(w.out, -1)
		}
		closeFile(file)
		if asked {
			w.r.processed.Add(1)
			w.ev.end()
		}
		if err != nil {
			return fmt.Errorf("auth socket: %w", err)
		}
	}
}

// read reads a packet into the worker's event, and reports whether it is one.
func (w *worker) read(packet []byte, file int) (asked bool, err error) {
	received := time.Now()
	stamp, ok := wire.ParseEvent(packet, &w.ev.Event, &w.text)
	if !ok {
		m, err := wire.DecodeToProvider(packet)
		if err != nil || m.GetEvent() == nil { // a later minor version may send more
			return false, err //nolint:wrapcheck // the caller does
		}
		w.ev.Event = wire.EventFromProto(m.GetEvent())
		stamp = wire.StampFromProto(m.GetEvent())
	}
	w.ev.begin(file, received, stamp.Budget)
	return true, nil
}

// vote asks the engine.
func (r *runner) vote(ev *Event) Vote {
	if !ev.Type.Valid() || r.engine.Vote == nil {
		return Abstain()
	}
	content := r.content.Load() // of before: a reload may end meanwhile
	vote := r.engine.Vote(ev)
	if vote.Action == event.Read && (ev.fd >= 0 || r.draining.Load()) {
		vote.Action = event.Abstain // there is nothing more to read, or nobody who would send it
	}
	if vote.Content == "" {
		vote.Content = *content
	}
	return vote
}

// crew shares the auth socket among the workers. While events come, those that are free wait at it, and the kernel
// wakes one for each. When none has come for a while, all but one go to rest, so that the next event wakes one thread
// and not all. Whoever takes an event and leaves nobody behind calls one that rests: a quick vote never waits for a
// slow one.
type crew struct {
	watching atomic.Int32 // at the socket

	mu      sync.Mutex
	called  sync.Cond
	resting int
	calls   int // not yet heard
	over    bool
}

func newCrew() *crew {
	c := &crew{}
	c.called.L = &c.mu
	return c
}

// take waits for one packet.
func (c *crew) take(from *wire.Receiver, buf []byte) (n, file int, err error) {
	c.watching.Add(1)
	for {
		n, file, err = from.Soon(buf)
		if errors.Is(err, wire.ErrQuiet) {
			if c.rest() {
				continue
			}
			if err = from.Await(); err == nil {
				continue
			}
		}
		if c.watching.Add(-1) == 0 {
			c.call()
		}
		return n, file, err
	}
}

// rest waits for a call, unless nobody else is at the socket.
func (c *crew) rest() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return false
	}
	if c.watching.Add(-1) == 0 {
		c.watching.Add(1)
		return false
	}
	c.resting++
	for c.calls == 0 && !c.over {
		c.called.Wait()
	}
	if c.calls > 0 {
		c.calls-- // whoever called has counted us in
		return true
	}
	c.resting--
	c.watching.Add(1)
	return true
}

// call sends one that rests back to the socket.
func (c *crew) call() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.resting > 0 {
		c.resting--
		c.calls++
		c.watching.Add(1)
		c.called.Signal()
	}
}

// dismiss lets everybody see for themselves that the socket has ended.
func (c *crew) dismiss() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
	c.called.Broadcast()
}

// begin makes the event the one that is worked on. The rest of it is filled in.
func (e *Event) begin(file int, received time.Time, budget time.Duration) {
	e.fd, e.Deadline = file, time.Time{}
	if budget > 0 && e.Type.Auth() {
		e.Deadline = received.Add(budget)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.current, e.cancelled, e.ctx, e.cancel = e.ID, false, nil, nil
}

// end releases what the event holds.
func (e *Event) end() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stopLocked()
	e.current, e.ctx, e.cancel = 0, nil, nil
	e.Event = event.Event{} // nothing of it is kept alive for the next one
}
