package provider

import (
	"errors"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/wire"
)

const patience = 10 * time.Second

// shift is a crew of workers and the platform's end of its auth socket.
type shift struct {
	t    testing.TB
	r    *runner
	auth *wire.Conn
	from *wire.Receiver
	id   uint64
	out  []byte
	in   []byte
	raw  wire.RawVote
}

func newShift(t testing.TB, eager bool, e Engine) *shift {
	t.Helper()
	ours, file, err := wire.Pair(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := wire.NewConn(fd)
	if err != nil {
		t.Fatal(err)
	}
	s := &shift{
		t: t, auth: ours, from: wire.NewReceiver(ours, false, false), in: make([]byte, wire.MaxPacket),
		r: &runner{engine: e, auth: theirs, crew: newCrew()},
	}
	content := "content 1"
	s.r.content.Store(&content)
	var working sync.WaitGroup
	for range e.workers() {
		w := newWorker(s.r, eager)
		s.r.workers = append(s.r.workers, w)
		working.Go(func() {
			if err := w.loop(); err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(func() {
		ours.Shutdown()
		working.Wait()
		if err := errors.Join(ours.Close(), theirs.Close(), file.Close()); err != nil {
			t.Error(err)
		}
	})
	return s
}

// ask sends the next question and returns its id.
func (s *shift) ask(path string) uint64 {
	s.id++
	ev := event.Event{ID: s.id, Type: event.Open, Time: time.Unix(0, 0)}
	ev.File.Path, ev.File.Handle = path, "handle"
	var err error
	s.out, err = wire.AppendEvent(s.out[:0], &ev, wire.Stamp{Type: event.Open, Budget: time.Minute})
	if err == nil {
		err = s.auth.SendWait(s.out, -1)
	}
	if err != nil {
		s.t.Errorf("ask: %v", err)
	}
	return s.id
}

// vote waits for the next vote.
func (s *shift) vote() uint64 {
	n, _, err := s.from.Recv(s.in)
	if err != nil || !wire.ParseVote(s.in[:n], &s.raw) {
		s.t.Errorf("no vote: %v", err)
	}
	return s.raw.ID
}

// TestLoopDoesNotAllocate: the SDK does not, between the engine's votes.
func TestLoopDoesNotAllocate(t *testing.T) {
	s := newShift(t, false, Engine{Workers: 2, Vote: func(*Event) Vote { return Allow() }})
	wrong := false
	n := testing.AllocsPerRun(500, func() { wrong = s.ask("/srv/a") != s.vote() || wrong })
	if n != 0 || wrong {
		t.Errorf("%v allocations a vote, want 0 (%v)", n, wrong)
	}
}

// TestQuickVotesPassSlowOnes: as long as one worker is free, a question is answered, after a burst and after silence,
// however many of the others are held up.
func TestQuickVotesPassSlowOnes(t *testing.T) {
	t.Parallel()
	const workers = 4
	for _, eager := range []bool{true, false} {
		t.Run("eager "+strconv.FormatBool(eager), func(t *testing.T) {
			t.Parallel()
			release := make(chan struct{})
			s := newShift(t, eager, Engine{Workers: workers, Vote: func(ev *Event) Vote {
				if ev.File.Path == "/slow" {
					<-release
				}
				return Allow()
			}})
			for range 3 {
				for slow := range workers { // how many are held up
					for range slow {
						s.ask("/slow")
					}
					for range 20 {
						if id := s.ask("/quick"); s.vote() != id {
							t.Errorf("vote on %d, want %d", s.raw.ID, id)
						}
					}
					for range slow {
						release <- struct{}{}
						s.vote()
					}
					time.Sleep(30 * time.Millisecond) // they go to rest
				}
			}
		})
	}
}

// TestEventIsUsedAgain: what an engine kept of an event stays, and a cancellation meets the vote that it is meant for.
func TestEventIsUsedAgain(t *testing.T) {
	t.Parallel()
	var kept []string
	first := make(chan *Event)
	s := newShift(t, false, Engine{Workers: 1, Vote: func(ev *Event) Vote {
		kept = append(kept, ev.File.Path)
		first <- ev
		select {
		case <-ev.Context().Done():
			return Abstain()
		case <-time.After(patience):
			return Allow()
		}
	}})
	for i := range 50 {
		id := s.ask("/srv/" + strconv.Itoa(i))
		ev := <-first
		ev.stop(id - 1) // too late, and not for this one
		if ctx := ev.Context(); ctx.Err() != nil {
			t.Fatalf("vote %d is cancelled for another: %v", id, ctx.Err())
		}
		ev.stop(id)
		if s.vote() != id {
			t.Fatalf("vote on %d, want %d", s.raw.ID, id)
		}
		if v, _ := s.raw.Vote(); v.Action != event.Abstain {
			t.Fatalf("vote %d was not cancelled", id)
		}
	}
	for i, path := range kept {
		if path != "/srv/"+strconv.Itoa(i) {
			t.Errorf("what was kept of event %d is now %q", i, path)
		}
	}
}
