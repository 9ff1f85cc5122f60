package docket_test

import (
	"runtime"
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
			p := (&peer{script: answering(allow)}).join(r, "p")
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
