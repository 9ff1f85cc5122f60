package session

import (
	"errors"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/wire"
)

// bell is a sink that tells of votes and keeps nothing.
type bell struct {
	sink
	voted chan uint64
}

func (b *bell) Voted(_ *Session, id uint64, _ event.Vote, _ event.Reason) { b.voted <- id }

// rounds asks one question after the other, and returns what asks the next one.
func rounds(t testing.TB) (next func()) {
	t.Helper()
	b := &bell{sink: sink{ended: make(chan error, 2)}, voted: make(chan uint64, 1)}
	r := readied(newRigFor(t, 1024, &b.sink, b))
	go answerAll(r.auth)
	ev := openEvent(0)
	ev.File.Path, ev.File.Handle, ev.Actor.Comm = "/srv/some/file", "handle", "make"
	return func() {
		ev.ID++
		if err := r.s.Deliver(event.Open, ev, time.Second, -1); err != nil {
			t.Errorf("deliver: %v", err)
			return
		}
		if id := <-b.voted; id != ev.ID {
			t.Errorf("vote on %d, want %d", id, ev.ID)
		}
	}
}

// answerAll is a provider that allows everything and allocates nothing.
func answerAll(c *wire.Conn) {
	r := wire.NewReceiver(c, false, false)
	buf, out := make([]byte, wire.MaxPacket), make([]byte, 0, 512)
	var text wire.Text
	var ev event.Event
	for {
		n, _, err := r.Recv(buf)
		if err != nil {
			return
		}
		if _, ok := wire.ParseEvent(buf[:n], &ev, &text); !ok {
			return
		}
		vote := event.Vote{Action: event.Allow, Confidence: event.Certain, Content: "daily 27800, 3 files"}
		if c.SendWait(wire.AppendVote(out[:0], ev.ID, vote), -1) != nil {
			return
		}
	}
}

// TestHotPathDoesNotAllocate: not for a question, and not for its vote, on either side of the socket.
func TestHotPathDoesNotAllocate(t *testing.T) {
	next := rounds(t)
	if n := testing.AllocsPerRun(500, next); n != 0 {
		t.Errorf("%v allocations a question, want 0", n)
	}
}

// TestCollect: whoever takes a vote, the receiver or one of those who collect, it is handed over exactly once.
func TestCollect(t *testing.T) {
	t.Parallel()
	r := readied(newRig(t, 1024))
	go answerAll(r.auth)
	const votes, collectors = 3000, 3
	stop := make(chan struct{})
	var crowd sync.WaitGroup
	for range collectors {
		crowd.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					r.s.Collect()
				}
			}
		})
	}
	ev := openEvent(0)
	for range votes {
		ev.ID++
		for r.s.Deliver(event.Open, ev, time.Minute, -1) != nil {
			runtime.Gosched() // its credit comes back with the votes
		}
	}
	r.until("all have voted", func(c Counters) bool { return c.Pending == 0 })
	close(stop)
	crowd.Wait()
	seen := map[uint64]int{}
	r.sink.with(func() {
		for _, v := range r.sink.votes {
			seen[v.id]++
		}
	})
	for id := range uint64(votes) {
		if seen[id+1] != 1 {
			t.Errorf("event %d has %d votes", id+1, seen[id+1])
		}
	}
}

// TestCollectSeesAViolation: what the receiver would have ended the session for, Collect does, too.
func TestCollectSeesAViolation(t *testing.T) {
	t.Parallel()
	r := readied(newRig(t, 1024))
	if err := r.auth.Send([]byte("no vote"), -1); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		r.s.Collect()
	}
	if err := <-r.sink.ended; !errors.Is(err, wire.ErrProtocol) {
		t.Errorf("the session ended with %v", err)
	}
	r.s.Wait()
	r.s.Collect() // nothing happens any more
}

// BenchmarkSession is one question and its vote, over the socket to a provider in the same process and back.
func BenchmarkSession(b *testing.B) {
	next := rounds(b)
	b.ReportAllocs()
	for b.Loop() {
		next()
	}
}
