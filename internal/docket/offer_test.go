package docket_test

import (
	"testing"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/docket"
	pb "github.com/keepout-security/keepout/wire/keepoutpb"
)

// offer offers the file, as the sensor does, and returns when that is over.
func (r *remembering) offer(t *testing.T) {
	t.Helper()
	q, id := r.opened(t)
	r.d.Offer(q)
	if len(r.kernel.of(id)) != 0 {
		t.Error("an offer was answered")
	}
}

// TestOfferIsRemembered: who opens a file that was offered finds the votes, but no denial; there is no record of it.
func TestOfferIsRemembered(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		vote   pb.Action
		before func(r *remembering, p *peer)
		asked  [2]int64 // after the offer, and after the open
	}{
		{"allowed", allow, nil, [2]int64{1, 1}},
		{"denied", deny, nil, [2]int64{1, 2}},
		{"in mode monitor", allow, func(r *remembering, _ *peer) { r.ruling.mode = event.Monitor }, [2]int64{0, 1}},
		{"a writer is there", allow, func(r *remembering, _ *peer) { r.pins.set(true, false) }, [2]int64{0, 1}},
		{"a writer comes", allow, func(r *remembering, _ *peer) { r.pins.broken.Store(true) }, [2]int64{1, 2}},
		{"without a memory", allow, func(_ *remembering, p *peer) { p.Memory = nil }, [2]int64{0, 1}},
		{"known", allow, func(r *remembering, _ *peer) { r.offer(r.t.(*testing.T)) }, [2]int64{1, 1}},
		{"while somebody waits", allow, func(r *remembering, p *peer) {
			held := r.with("held", &peer{script: silent, prefix: "/held"})
			r.members(p, held)
			r.d.Judge(r.question("/held/f"))
		}, [2]int64{1, 2}}, // the one is about what is held
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRemembering(t)
			r.t = t
			p := r.with("p", &peer{script: answering(tt.vote)})
			r.members(p)
			if tt.before != nil {
				tt.before(r, p)
			}
			r.offer(t)
			r.until("it was offered", func() bool { return p.asked.Load() == tt.asked[0] })
			records := len(r.trail.records())
			if tt.name == "while somebody waits" {
				return
			}
			if records != 0 || r.d.Totals().Allowed != 0 || r.d.Totals().InFlight != 0 {
				t.Errorf("%d records, %+v", records, r.d.Totals())
			}
			if allowed := r.ask(t, nil); allowed != (tt.vote == allow) {
				t.Errorf("allowed %v", allowed)
			}
			r.until("the open was asked about, or not", func() bool { return p.asked.Load() == tt.asked[1] })
		})
	}
}

// TestOfferIsInterrupted: whoever opens the file that is being looked at does not wait for that.
func TestOfferIsInterrupted(t *testing.T) {
	t.Parallel()
	r := newRemembering(t)
	first := true
	p := r.with("p", &peer{script: func(*pb.Event, int) (pb.Action, bool) {
		silence := first
		first = false
		return allow, !silence
	}})
	r.d.SetMembers([]*docket.Member{p.Member})
	over := make(chan struct{})
	go func() {
		defer close(over)
		r.offer(t)
	}()
	r.until("the provider looks at it", func() bool { return p.asked.Load() == 1 })
	if !r.ask(t, nil) {
		t.Error("denied")
	}
	<-over
	if got := r.d.Totals(); got.Interrupted != 1 || got.Prescanned != 0 {
		t.Errorf("%+v", got)
	}
	r.until("nothing is owed", func() bool { c := p.Session.Counters(); return c.Pending == 0 && c.Bypassed == 1 })
}

// TestOfferEndsWithTheDocket: nobody waits for an offer when the docket closes.
func TestOfferEndsWithTheDocket(t *testing.T) {
	t.Parallel()
	r := newRemembering(t)
	p := r.with("p", &peer{script: silent})
	r.d.SetMembers([]*docket.Member{p.Member})
	over := make(chan struct{})
	go func() {
		defer close(over)
		r.offer(t)
	}()
	r.until("the provider looks at it", func() bool { return p.asked.Load() == 1 })
	r.d.Close()
	<-over
	r.offer(t) // returns at once
}
