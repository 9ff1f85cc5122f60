package docket_test

import (
	"strconv"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/docket"
	"github.com/keepout-security/keepout/internal/sensor"
	pb "github.com/keepout-security/keepout/wire/keepoutpb"
)

const (
	allow   = pb.Action_ACTION_ALLOW
	deny    = pb.Action_ACTION_DENY
	unknown = pb.Action(77)
)

// TestVerdict is each way to a verdict, on one question.
func TestVerdict(t *testing.T) {
	t.Parallel()
	short := func(m docket.Member) *docket.Member {
		m.Metadata, m.Content = 50*time.Millisecond, 50*time.Millisecond
		return &m
	}
	closed := docket.Member{FailClosed: true}
	for _, c := range []struct {
		name    string
		peers   []*peer
		outcome event.Outcome
		reason  event.Reason
		by      string
		allowed bool
	}{
		{
			"all allow",
			[]*peer{{script: answering(allow)}, {script: answering(allow)}},
			event.Allowed, event.ReasonVoted, "platform", true,
		},
		{
			"one denies",
			[]*peer{{script: answering(allow)}, {script: answering(deny)}},
			event.Denied, event.ReasonDenied, "p1", false,
		},
		{
			"nobody waits after a denial",
			[]*peer{{script: silent}, {script: answering(deny)}},
			event.Denied, event.ReasonDenied, "p1", false,
		},
		{
			"unknown action abstains",
			[]*peer{{script: answering(unknown)}},
			event.Allowed, event.ReasonVoted, "platform", true,
		},
		{
			"silence",
			[]*peer{{script: silent, Member: short(docket.Member{})}},
			event.Timeout, event.ReasonDeadline, "platform", true,
		},
		{
			"silence, fail closed",
			[]*peer{{script: silent, Member: short(closed)}},
			event.Timeout, event.ReasonDeadline, "p0", false,
		},
		{
			"no credit",
			[]*peer{{script: answering(allow), poor: true, Member: &docket.Member{}}},
			event.Unavailable, event.ReasonNoCredit, "platform", true,
		},
		{
			"no credit, fail closed",
			[]*peer{{script: answering(allow), poor: true, Member: &closed}},
			event.Unavailable, event.ReasonNoCredit, "p0", false,
		},
		{"audit provider denies", []*peer{{script: answering(allow)}, {
			script: answering(deny), Member: &docket.Member{Mode: event.Audit},
		}}, event.WouldDeny, event.ReasonVoted, "p1", true},
		{
			"only audit",
			[]*peer{{script: answering(deny), Member: &docket.Member{Mode: event.Audit}}},
			event.WouldDeny, event.ReasonOnlyAudit, "p0", true,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			for i, p := range c.peers {
				p.join(r, "p"+strconv.Itoa(i))
			}
			r.members(c.peers...)
			q := r.question("object")
			if got := r.judge(q); got != c.allowed {
				t.Errorf("answered %v", got)
			}
			v := r.verdict(1)
			if v.Outcome != c.outcome || v.Reason != c.reason || v.DecidedBy != c.by || v.Allowed != c.allowed {
				t.Errorf("verdict %+v", v)
			}
			if len(v.Ballots) != len(c.peers) {
				t.Errorf("%d ballots", len(v.Ballots))
			}
			r.exactlyOnce(1)
			if n := given(r.d.Totals()); n != 1 || r.d.Totals().InFlight != 0 {
				t.Errorf("totals %+v", r.d.Totals())
			}
			r.until("no vote is owed", func() bool {
				for _, p := range c.peers {
					if p.Session.Counters().Pending != 0 {
						return false
					}
				}
				return true
			})
		})
	}
}

// TestDeadline: silence is answered at 80 % of the budget and counted where it belongs.
func TestDeadline(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	const budget = 200 * time.Millisecond
	p := (&peer{script: silent, Member: &docket.Member{Metadata: budget, Content: time.Hour}}).join(r, "p")
	r.members(p)
	start := time.Now()
	r.judge(r.question("object"))
	if took := time.Since(start); took < budget*80/100 {
		t.Errorf("answered after %v, before 80 %% of %v", took, budget)
	}
	r.until("it is counted as late", func() bool { return p.Session.Counters().Late == 1 })
}

// TestGivenUpBeforeDelivery: a vote that is given up before the event was delivered to that provider is not
// owed afterwards. A provider that hangs would otherwise lose its credit for good.
func TestGivenUpBeforeDelivery(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	// That this one loses its vote lets the case look at the clock.
	first := (&peer{script: silent, poor: true}).join(r, "first")
	second := (&peer{script: silent}).join(r, "second")
	r.members(first, second)
	q := r.question("object")
	q.Event.Time = time.Now().Add(-time.Hour) // a reader that was kept from running
	r.judge(q)
	r.verdict(1)
	c := second.Session.Counters()
	if c.Pending != 0 || c.Delivered != c.Late {
		t.Errorf("the second provider still owes a vote: %+v", c)
	}
}

func TestSingleFlight(t *testing.T) {
	t.Parallel()
	const n = 20
	for name, byActor := range map[string]bool{"shared": false, "by actor": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			release := make(chan struct{})
			p := (&peer{byActor: byActor, script: func(*pb.Event, int) (pb.Action, bool) {
				<-release
				return deny, true
			}}).join(r, "p")
			r.members(p)
			for range n {
				r.d.Judge(r.question("same"))
			}
			r.d.Judge(r.question("other"))
			if got := r.d.Totals().InFlight; got != n+1 {
				t.Errorf("%d in flight, want %d", got, n+1)
			}
			close(release)
			r.until("all are answered", func() bool { return r.kernel.count() == n+1 })
			r.exactlyOnce(n + 1)
			want := uint64(2)
			if byActor {
				want = n + 1 // without a token, processes cannot be told apart
			}
			if got := p.Session.Counters().Delivered; got != want {
				t.Errorf("asked %d times, want %d", got, want)
			}
			if v := r.verdict(1); !byActor && v.Shared != n-1 {
				t.Errorf("shared by %d, want %d", v.Shared, n-1)
			}
			if got := r.d.Totals().Denied; got != n+1 {
				t.Errorf("%d denied", got)
			}
		})
	}
}

// TestOverload: what goes beyond the bound is answered at once by the failure policies.
func TestOverload(t *testing.T) {
	t.Parallel()
	for name, failClosed := range map[string]bool{"open": false, "closed": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			p := (&peer{script: silent, Member: &docket.Member{FailClosed: failClosed}}).join(r, "p")
			r.members(p)
			for range docket.MaxInFlight {
				r.d.Judge(r.question("same")) // they share one question, and each is in flight
			}
			if n := r.kernel.count(); n != 0 {
				t.Errorf("%d answered too early", n)
			}
			q := r.question("one more")
			if got := r.judge(q); got == failClosed {
				t.Errorf("allowed: %v", got)
			}
			v := r.verdict(docket.MaxInFlight + 1)
			if v.Reason != event.ReasonOverload || v.Outcome != event.Unavailable || v.Allowed == failClosed {
				t.Errorf("verdict %+v", v)
			}
			p.Session.End(nil)
			r.until("all are answered", func() bool { return r.kernel.count() == docket.MaxInFlight+1 })
			r.exactlyOnce(docket.MaxInFlight + 1)
		})
	}
}

func TestSessionEnds(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	gone := (&peer{script: silent}).join(r, "gone")
	other := (&peer{script: answering(allow)}).join(r, "other")
	r.members(gone, other)
	for i := range 32 {
		r.d.Judge(r.question(strconv.Itoa(i)))
	}
	r.until("they are asked", func() bool {
		return gone.asked.Load() == 32 && other.Session.Counters().Answered == 32
	})
	if n := r.kernel.count(); n != 0 {
		t.Errorf("%d answered too early", n)
	}
	gone.Session.End(nil)
	r.until("all are answered", func() bool { return r.kernel.count() == 32 })
	r.exactlyOnce(32)
	if v := r.verdict(1); v.Outcome != event.Unavailable || v.Reason != event.ReasonLost || !v.Allowed {
		t.Errorf("verdict %+v", v)
	}
	if !r.judge(r.question("after")) { // it is still on the panel
		t.Error("denied")
	}
}

// TestPardon: a denial waits for the administrator's exceptions, and only a denial.
func TestPardon(t *testing.T) {
	t.Parallel()
	for name, pardoned := range map[string]bool{"pardoned": true, "not pardoned": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			looking := make(chan struct{})
			r.ruling.pardons.Store(true)
			r.ruling.pardon = func(int, int64) (string, bool) { <-looking; return "why", pardoned }
			p := (&peer{script: answering(deny)}).join(r, "p")
			r.members(p)
			q := r.object("object")
			r.d.Judge(q)
			r.until("the vote is there", func() bool { return p.Session.Counters().Answered == 1 })
			p.Session.End(nil) // changes nothing any more
			if n := r.kernel.count(); n != 0 || len(r.trail.records()) != 0 {
				t.Error("answered or recorded before the exceptions were looked at")
			}
			close(looking)
			r.until("it is answered", func() bool { return r.kernel.count() == 1 })
			v := r.verdict(1)
			if got := r.kernel.of(1)[0]; got != pardoned || v.Allowed != pardoned {
				t.Errorf("answered %v, recorded %+v", got, v)
			}
			if pardoned && (v.Outcome != event.Allowed || v.Reason != event.ReasonAllowance || v.Rule != "why") {
				t.Errorf("verdict %+v", v)
			}
			if !pardoned && (v.Outcome != event.Denied || v.Rule != "rule") {
				t.Errorf("verdict %+v", v)
			}
			r.exactlyOnce(1)
		})
	}
}

// TestClose: what is pending is answered by policy, and nothing is asked afterwards.
func TestClose(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	p := (&peer{script: silent}).join(r, "p")
	r.members(p)
	for i := range 8 {
		r.d.Judge(r.question(strconv.Itoa(i % 4)))
	}
	r.d.Close()
	r.until("all are answered", func() bool { return r.kernel.count() == 8 })
	r.judge(r.question("late"))
	r.d.Close()
	r.exactlyOnce(9)
	for _, id := range []uint64{1, 9} {
		if v := r.verdict(id); v.Reason != event.ReasonShutdown || !v.Allowed || v.Outcome != event.Unavailable {
			t.Errorf("verdict %+v", v)
		}
	}
	if n := p.asked.Load(); n > 4 {
		t.Errorf("asked %d times", n)
	}
}

// TestWhoIsAsked: who wants opens only is asked about an exec as an open when the kernel will not ask again.
func TestWhoIsAsked(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	seen := make(chan pb.EventType, 8)
	opens := []pb.EventType{pb.EventType_EVENT_TYPE_OPEN}
	p := (&peer{types: opens, script: func(ev *pb.Event, _ int) (pb.Action, bool) {
		seen <- ev.GetType()
		return allow, true
	}}).join(r, "p")
	if r.d.Wants(event.Open) {
		t.Error("opens are wanted by nobody")
	}
	r.members(p)
	for typ, want := range map[event.Type]bool{event.Open: true, event.Exec: true, event.Create: false} {
		if r.d.Wants(typ) != want {
			t.Errorf("wants %v: %v", typ, !want)
		}
	}
	exec := func(withOpen bool) *sensor.Question {
		q := r.question("program")
		q.Event.Type, q.WithOpen = event.Exec, withOpen
		return q
	}
	r.judge(exec(true))
	if got := <-seen; got != pb.EventType_EVENT_TYPE_OPEN {
		t.Errorf("asked about %v", got)
	}
	r.judge(exec(false))
	if n := p.asked.Load(); n != 1 || r.d.Totals().Unmatched != 1 {
		t.Errorf("asked %d times; %+v", n, r.d.Totals())
	}
	r.exactlyOnce(2)
}

func TestObserve(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	p := (&peer{types: []pb.EventType{pb.EventType_EVENT_TYPE_CREATE}}).join(r, "p")
	r.members(p)
	r.d.Observe(&event.Event{ID: 1, Type: event.Create})
	r.d.Observe(&event.Event{ID: 2, Type: event.Delete})
	if c := p.Session.Counters(); c.Notified != 1 || r.d.Totals().Notified != 2 {
		t.Errorf("%+v, %+v", c, r.d.Totals())
	}
}

// TestExactlyOnce: eight readers, providers that vote, lie, hang and die, and a shutdown in the middle: every
// question is answered once, and no descriptor is closed while it is still being delivered.
func TestExactlyOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.ruling.pardons.Store(true)
	r.ruling.pardon = func(file int, _ int64) (string, bool) { return "why", file%2 == 0 }
	descriptor := pb.Access_ACCESS_DESCRIPTOR
	budget := func() *docket.Member {
		return &docket.Member{Metadata: 20 * time.Millisecond, Content: 20 * time.Millisecond}
	}
	peers := []*peer{
		{access: descriptor, script: answering(allow), Member: budget()},
		{access: descriptor, Member: budget(), script: func(ev *pb.Event, _ int) (pb.Action, bool) {
			return []pb.Action{allow, deny, unknown}[ev.GetId()%3], ev.GetId()%7 != 0
		}},
		{credit: 16, access: descriptor, script: silent, Member: budget()},
	}
	for i, p := range peers {
		p.join(r, "p"+strconv.Itoa(i))
	}
	r.members(peers...)
	const readers, each = 8, 150
	var reading sync.WaitGroup
	for range readers {
		reading.Go(func() {
			for i := range each {
				r.d.Judge(r.object(strconv.Itoa(i % 40)))
			}
		})
	}
	reading.Go(func() {
		r.until("half are answered", func() bool { return r.kernel.count() > readers*each/2 })
		peers[1].Session.End(nil)
		r.until("more are answered", func() bool { return r.kernel.count() > readers*each*3/4 })
		r.d.Close()
	})
	reading.Wait()
	r.until("all are answered", func() bool { return r.kernel.count() == readers*each })
	r.until("nothing is in flight", func() bool { return r.d.Totals().InFlight == 0 })
	r.exactlyOnce(readers * each)
	if n := given(r.d.Totals()); n != readers*each {
		t.Errorf("%d questions are accounted for, want %d: %+v", n, readers*each, r.d.Totals())
	}
	for i, p := range peers {
		p.Session.End(nil)
		if n := p.wrongFile.Load(); n != 0 {
			t.Errorf("provider %d got %d descriptors of something else", i, n)
		}
		if c := p.Session.Counters(); c.Delivered != c.Answered+c.Late+c.Bypassed {
			t.Errorf("provider %d: %+v", i, c)
		}
	}
	r.until("all are recorded", func() bool {
		n := 0
		for _, rec := range r.trail.records() {
			n += 1 + int(rec.Verdict.Shared)
		}
		return n == readers*each
	})
}

// TestAnyPanel: whoever is on the panel, each question gets exactly one answer, and one that no policy
// forbids.
func TestAnyPanel(t *testing.T) {
	t.Parallel()
	scripts := map[string]func(*pb.Event, int) (pb.Action, bool){
		"allow": answering(allow), "deny": answering(deny), "unknown": answering(unknown), "silent": silent,
	}
	rapid.Check(t, func(rt *rapid.T) {
		r := newRig(t)
		var peers []*peer
		mayDeny := false
		for i := range rapid.IntRange(0, 4).Draw(rt, "providers") {
			does := rapid.SampledFrom([]string{"allow", "deny", "unknown", "silent"}).Draw(rt, "does")
			m := &docket.Member{
				Metadata: 10 * time.Millisecond, Content: 10 * time.Millisecond,
				FailClosed: rapid.Bool().Draw(rt, "closed"),
				Mode:       rapid.SampledFrom([]event.Mode{event.Enforce, event.Audit}).Draw(rt, "mode"),
			}
			if rapid.Bool().Draw(rt, "standing") {
				m.Standing = standing(new(news), func(w *docket.Watch) {
					w.Numbers.Breaker.Misses = rapid.IntRange(1, 3).Draw(rt, "misses")
					w.Numbers.Storm.Objects = rapid.IntRange(1, 3).Draw(rt, "objects")
					w.Owned = func(string) bool { return true }
				})
			}
			p := &peer{script: scripts[does], credit: rapid.Uint32Range(1, 3).Draw(rt, "credit"), Member: m}
			p.poor = rapid.Bool().Draw(rt, "poor")
			peers = append(peers, p.join(r, "p"+strconv.Itoa(i)))
			mayDeny = mayDeny || m.Mode == event.Enforce && (m.FailClosed || does == "deny")
		}
		r.members(peers...)
		n := rapid.IntRange(1, 6).Draw(rt, "questions")
		for range n {
			r.d.Judge(r.question(rapid.SampledFrom([]string{"a", "b"}).Draw(rt, "object")))
		}
		if rapid.Bool().Draw(rt, "close") {
			r.d.Close()
		}
		r.until("all are answered", func() bool { return r.kernel.count() == n })
		r.until("nothing is in flight", func() bool { return r.d.Totals().InFlight == 0 })
		r.exactlyOnce(n)
		if got := r.d.Totals(); given(got) != uint64(n) {
			rt.Fatalf("%d questions, %+v", n, got)
		}
		for id := range uint64(n) {
			if !r.kernel.of(id + 1)[0] && !mayDeny {
				rt.Fatalf("question %d was denied", id+1)
			}
		}
		for _, p := range peers {
			if c := p.Session.Counters(); c.Delivered != c.Answered+c.Late+c.Bypassed+c.Pending {
				rt.Fatalf("%s: %+v", p.ID, c)
			}
		}
	})
}
