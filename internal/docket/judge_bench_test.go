package docket_test

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/docket"
	"github.com/keepout-security/keepout/internal/sensor"
)

// nothing is a trail and a kernel that only count.
type nothing struct{ answers atomic.Int64 }

func (n *nothing) Record(event.Record) {}

func (n *nothing) Flush() {}

func (n *nothing) Answer(int, bool) error {
	n.answers.Add(1)
	return nil
}

// TestAskingDoesNotAllocate: in steady state, a question that is asked of three providers costs less than a tenth of an
// allocation, both ends together: what there are, are pieces of memory for many questions.
func TestAskingDoesNotAllocate(t *testing.T) {
	r, n := newRig(t), &nothing{}
	d := docket.New(r.ruling, n, n, func() {})
	t.Cleanup(d.Close)
	r.d = d
	var members []*docket.Member
	for _, id := range []string{"a", "b", "c"} {
		p := (&peer{lean: true}).join(r, id)
		p.Standing, p.Memory = docket.NewStanding(docket.Watch{ID: id, Numbers: docket.DefaultNumbers()}), docket.NewMemory()
		members = append(members, p.Member)
	}
	d.SetMembers(members)
	id := uint64(0)
	ask := func() {
		id++
		ev := event.Event{ID: id, Type: event.Open, Time: time.Now()}
		ev.File.Path, ev.File.Handle, ev.File.Ino = "/srv/file", "handle of the file", id%64
		d.Judge(sensor.NewQuestion(ev, -1, n, nil))
		for n.answers.Load() < int64(id) {
			runtime.Gosched()
		}
	}
	for range 300 {
		ask()
	}
	const runs = 500
	if got := float64(allocated(func() {
		for range runs {
			ask()
		}
	})) / runs; got > limit() {
		t.Errorf("%.2f allocations a question", got)
	}
}

// limit is how many allocations a question may cost: some more under the race detector, which makes each sync.Pool lose
// a quarter of what it is given.
func limit() float64 {
	var p sync.Pool
	for range 100 {
		p.Put(new(int))
		if p.Get() == nil {
			return 5
		}
	}
	return 0.1
}

// allocated counts the allocations of all goroutines; testing.AllocsPerRun rounds them down.
func allocated(do func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	do()
	runtime.ReadMemStats(&after)
	return after.Mallocs - before.Mallocs
}

// BenchmarkJudge is one question put to one provider over its sockets, from question to answer, without and with a
// standing. The allocations count both ends, provider included.
func BenchmarkJudge(b *testing.B) {
	for name, standing := range map[string]*docket.Standing{
		"plain": nil, "standing": docket.NewStanding(docket.Watch{ID: "p", Numbers: docket.DefaultNumbers()}),
	} {
		b.Run(name, func(b *testing.B) {
			r, n := newRig(b), &nothing{}
			r.d = docket.New(r.ruling, n, n, func() {})
			b.Cleanup(r.d.Close)
			p := (&peer{lean: true}).join(r, "p")
			p.Standing = standing
			r.d.SetMembers([]*docket.Member{p.Member})
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				ev := event.Event{ID: uint64(i + 1), Type: event.Open, Time: time.Now()}
				ev.File.Path, ev.File.Handle, ev.File.Ino = "/srv/file", "handle of the file", uint64(i%64)
				r.d.Judge(sensor.NewQuestion(ev, -1, n, nil))
				for n.answers.Load() <= int64(i) {
					runtime.Gosched()
				}
			}
		})
	}
}
