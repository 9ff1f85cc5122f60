package docket_test

import (
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/arbiter"
	"github.com/keepout-security/keepout/internal/docket"
	pb "github.com/keepout-security/keepout/wire/keepoutpb"
)

// news collects what becomes of a standing.
type news struct {
	mu   sync.Mutex
	list []docket.Change
}

func (n *news) hear(c docket.Change) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.list = append(n.list, c)
}

// of returns what was heard of one kind.
func (n *news) of(what string) (list []docket.Change) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.list {
		if c.What == what {
			list = append(list, c)
		}
	}
	return list
}

// standing makes the standing of provider "p", whose breaker tries again soon.
func standing(n *news, change func(*docket.Watch)) *docket.Standing {
	w := docket.Watch{ID: "p", Numbers: docket.DefaultNumbers(), Tell: n.hear}
	w.Numbers.Breaker.FirstWait, w.Numbers.Breaker.ProbeEvery = 10*time.Millisecond, time.Millisecond
	if change != nil {
		change(&w)
	}
	return docket.NewStanding(w)
}

// sometimes is a script that can be changed.
type sometimes struct{ action atomic.Int32 }

const silence = -1

func (s *sometimes) set(a pb.Action) { s.action.Store(int32(a)) }

func (s *sometimes) script(*pb.Event, int) (pb.Action, bool) {
	a := s.action.Load()
	return pb.Action(a), a != silence
}

// TestBreaker: a provider that hangs costs three waits; then its policy votes at once and it is not asked, until it has
// answered copies well.
func TestBreaker(t *testing.T) {
	t.Parallel()
	for name, failClosed := range map[string]bool{"open": false, "closed": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, n := newRig(t), new(news)
			does := new(sometimes)
			does.set(silence)
			st := standing(n, func(w *docket.Watch) { w.Numbers.Breaker.FirstWait = time.Hour })
			p := (&peer{script: does.script, Member: &docket.Member{
				Metadata: 50 * time.Millisecond, FailClosed: failClosed, Standing: st,
			}}).join(r, "p")
			good := (&peer{script: answering(allow)}).join(r, "good")
			r.members(p, good)
			for i := range 3 {
				if r.judge(r.question(strconv.Itoa(i))) == failClosed {
					t.Errorf("question %d was not answered by the policy", i)
				}
				if v := r.verdict(uint64(i + 1)); v.Reason != event.ReasonDeadline {
					t.Errorf("verdict %+v", v)
				}
			}
			const more = 20
			for i := range more {
				q := r.question("more" + strconv.Itoa(i))
				if r.judge(q) == failClosed {
					t.Error("a bypass was not answered by the policy")
				}
				v := r.verdict(q.Event.ID)
				if v.Outcome != event.Unavailable || v.Reason != event.ReasonBypassed ||
					v.Ballots[0].Reason != event.ReasonBypassed || v.Ballots[1].Reason != event.ReasonVoted {
					t.Errorf("verdict %+v", v)
				}
			}
			c := p.Session.Counters()
			if c.Delivered != 3 || c.Late != 3 || c.Skipped != more {
				t.Errorf("counters %+v", c)
			}
			if b, _ := st.Status(); b[0].State != arbiter.Open || b[0].Misses != 3 || b[0].Bypassed != more ||
				b[0].Until == nil || b[1].State != arbiter.Closed {
				t.Errorf("status %+v", b)
			}
			r.until("it is told", func() bool { return len(n.of(docket.Bypassed)) == 1 })

			does.set(deny)
			r.until("it is restored, and its denial takes effect", func() bool {
				st.Restarted() // copies go out at once; on a busy machine it may miss again
				q := r.question("again" + strconv.FormatUint(r.id.Load(), 10))
				r.judge(q)
				v := r.verdict(q.Event.ID)
				return len(n.of(docket.Restored)) > 0 && v.DecidedBy == "p" && v.Reason == event.ReasonDenied
			})
			r.until("nothing is pending", func() bool { return p.Session.Counters().Pending == 0 })
			if c := p.Session.Counters(); c.Delivered != c.Answered+c.Late+c.Bypassed {
				t.Errorf("counters %+v", c)
			}
		})
	}
}

// TestHangWithManyPending: the first missed deadlines of a provider that hangs release everybody else who waits for it;
// the others' votes count.
func TestHangWithManyPending(t *testing.T) {
	t.Parallel()
	const n = 1000
	r, heard := newRig(t), new(news)
	// Its budget is a minute.
	p := (&peer{script: silent, Member: &docket.Member{Standing: standing(heard, nil)}}).join(r, "p")
	other := (&peer{script: func(ev *pb.Event, _ int) (pb.Action, bool) {
		if ev.GetId()%2 == 0 {
			return deny, true
		}
		return allow, true
	}}).join(r, "other")
	r.members(p, other)
	for i := range n {
		q := r.question(strconv.Itoa(i))
		if i >= n-6 { // every second one is denied and waits for nobody
			q.Event.Time = time.Now().Add(-time.Minute)
		}
		r.d.Judge(q)
	}
	r.until("all are answered", func() bool { return r.kernel.count() == n })
	r.exactlyOnce(n)
	for id := range uint64(n) {
		if got, want := r.kernel.of(id + 1)[0], (id+1)%2 != 0; got != want && id < n-6 {
			t.Errorf("question %d was answered %v", id+1, got)
		}
	}
	r.until("nothing is pending", func() bool { return p.Session.Counters().Pending == 0 })
	c := p.Session.Counters()
	if c.Late < 3 || c.Bypassed+c.Skipped < n-10 || c.Delivered != c.Late+c.Bypassed {
		t.Errorf("counters %+v", c)
	}
	if got := given(r.d.Totals()); got != n || r.d.Totals().Denied < n/2-10 {
		t.Errorf("totals %+v", r.d.Totals())
	}
}

// TestCrashWithManyPending: what a provider owes when it dies is answered by its policy at once, the other's votes
// count, and its breaker, which is about slowness, stays closed.
func TestCrashWithManyPending(t *testing.T) {
	t.Parallel()
	const n = 1000
	r := newRig(t)
	st := standing(new(news), nil)
	p := (&peer{script: silent, Member: &docket.Member{Standing: st}}).join(r, "p") // its budget is a minute
	other := (&peer{script: func(ev *pb.Event, _ int) (pb.Action, bool) {
		if ev.GetId()%2 == 0 {
			return deny, true
		}
		return allow, true
	}}).join(r, "other")
	r.members(p, other)
	for i := range n {
		r.d.Judge(r.question(strconv.Itoa(i)))
	}
	r.until("it owes only what nobody denied", func() bool {
		return r.kernel.count() == n/2 && other.Session.Counters().Answered == n
	})
	p.Session.End(nil)
	r.until("all are answered", func() bool { return r.kernel.count() == n })
	r.exactlyOnce(n)
	if got := r.d.Totals(); got.Denied != n/2 || got.Unavailable != n/2 || got.InFlight != 0 {
		t.Errorf("totals %+v", got)
	}
	if c := p.Session.Counters(); c.Delivered != n || c.Bypassed != n || c.Pending != 0 {
		t.Errorf("counters %+v", c)
	}
	if b, _ := st.Status(); b[0].State != arbiter.Closed || b[0].Misses != 0 {
		t.Errorf("breaker %+v", b[0])
	}
}

// TestFullQueueReleasesNobody: a provider that got more than it can take at once is not asked for more, but what it has
// still counts.
func TestFullQueueReleasesNobody(t *testing.T) {
	t.Parallel()
	r, heard := newRig(t), new(news)
	release := make(chan struct{})
	p := (&peer{credit: 2, Member: &docket.Member{Standing: standing(heard, func(w *docket.Watch) {
		w.Numbers.Breaker.FirstWait = time.Hour
	})}, script: func(*pb.Event, int) (pb.Action, bool) {
		<-release
		return deny, true
	}}).join(r, "p")
	r.members(p)
	for i := range 6 {
		r.d.Judge(r.question(strconv.Itoa(i)))
	}
	r.until("those without room are answered", func() bool { return r.kernel.count() == 4 })
	for id, want := range map[uint64]event.Reason{
		3: event.ReasonNoCredit, 4: event.ReasonNoCredit, 5: event.ReasonNoCredit, 6: event.ReasonBypassed,
	} {
		if v := r.verdict(id); v.Reason != want || !v.Allowed {
			t.Errorf("question %d: %+v", id, v)
		}
	}
	close(release)
	for id := range uint64(2) {
		if v := r.verdict(id + 1); v.Outcome != event.Denied {
			t.Errorf("question %d: %+v", id+1, v)
		}
	}
}

// TestGarbageIsAMiss: votes that nobody understands open the breaker, too.
func TestGarbageIsAMiss(t *testing.T) {
	t.Parallel()
	r, heard := newRig(t), new(news)
	p := (&peer{script: answering(unknown), Member: &docket.Member{Standing: standing(heard, func(w *docket.Watch) {
		w.Numbers.Breaker.FirstWait = time.Hour
	})}}).join(r, "p")
	r.members(p)
	for i := range 4 {
		r.judge(r.question(strconv.Itoa(i)))
	}
	if v := r.verdict(4); v.Reason != event.ReasonBypassed {
		t.Errorf("verdict %+v", v)
	}
}

// TestSlowEngine: an engine that takes too much of its budget is put in audit, and enforces again when an administrator
// says so.
func TestSlowEngine(t *testing.T) {
	t.Parallel()
	r, heard := newRig(t), new(news)
	st := standing(heard, func(w *docket.Watch) {
		w.Numbers.Pace = arbiter.PaceConfig{Window: time.Nanosecond, Slow: 1, Calm: 1 << 30, Good: 1, MaxGood: 1}
	})
	p := (&peer{script: answering(deny), Member: &docket.Member{Standing: st}}).join(r, "p")
	r.members(p)
	asked := 0
	for demoted := false; !demoted && asked < 100; asked++ {
		r.judge(r.question(strconv.Itoa(asked)))
		r.verdict(uint64(asked + 1))
		_, d := st.Status()
		demoted = d != nil && d.Why == docket.Slow
	}
	q := r.question("demoted")
	if !r.judge(q) || r.verdict(q.Event.ID).Outcome != event.WouldDeny {
		t.Errorf("after %d slow votes: %+v", asked, r.verdict(q.Event.ID))
	}
	r.until("it is told", func() bool { return len(heard.of(docket.Slow)) == 1 })
	st.Accept()
	if q := r.question("accepted"); r.judge(q) {
		t.Errorf("accepted again: %+v", r.verdict(q.Event.ID))
	}
}

var stormCause = regexp.MustCompile(
	`^p: content denied 5 objects that it had allowed, [05] of them owned by packages, in [0-9.]+s$`)

// TestKeptExecIsPopular: a program whose opens the kernel remembers since it was executed is popular as what is opened,
// because nobody sees how often that is; not as what is executed, which everybody sees.
func TestKeptExecIsPopular(t *testing.T) {
	t.Parallel()
	popular := docket.DefaultNumbers().Storm.Objects
	for typ, want := range map[event.Type]int{event.Open: popular - 1, event.Exec: popular} {
		t.Run(typ.String(), func(t *testing.T) {
			t.Parallel()
			r, does := newRig(t), new(sometimes)
			does.set(allow)
			p := (&peer{script: does.script, anyType: true, Member: &docket.Member{
				Standing: standing(new(news), func(*docket.Watch) {}), Memory: docket.NewMemory(),
			}}).join(r, "p")
			r.members(p)
			for i := range popular {
				q := r.question(strconv.Itoa(i))
				q.Event.Type, q.WithOpen = event.Exec, true
				r.judge(q)
				r.until("it is kept", func() bool { return r.pins.inKernel() == 1 })
				r.pins.Flush() // these have one place
			}
			r.d.Forget(p.Memory)
			does.set(deny)
			denied := 0
			for i := range popular {
				q := r.question(strconv.Itoa(i))
				q.Event.Type = typ
				if !r.judge(q) {
					denied++
				}
			}
			if denied != want {
				t.Errorf("%d were denied, want %d", denied, want)
			}
		})
	}
}

// TestDenyStorm: a provider that begins to deny what it allowed is put in audit before it has denied five objects, and
// enforces again with another content.
func TestDenyStorm(t *testing.T) {
	t.Parallel()
	for name, owned := range map[string]bool{"popular": false, "owned": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, heard := newRig(t), new(news)
			does := new(sometimes)
			does.set(allow)
			st := standing(heard, func(w *docket.Watch) { w.Owned = func(string) bool { return owned } })
			p := (&peer{script: does.script, Member: &docket.Member{Standing: st}}).join(r, "p")
			r.members(p)
			st.Heartbeat("good")
			const objects = 50
			times := 3
			if owned {
				times = 1
			}
			for i := range objects * times {
				r.judge(r.question(strconv.Itoa(i % objects)))
			}
			st.Heartbeat("bad")
			does.set(deny)
			denied := 0
			for i := range objects {
				if !r.judge(r.question(strconv.Itoa(i))) {
					denied++
				}
			}
			if want := docket.DefaultNumbers().Storm.Objects - 1; denied != want {
				t.Errorf("%d objects were denied, want %d", denied, want)
			}
			if v := r.verdict(r.id.Load()); v.Outcome != event.WouldDeny {
				t.Errorf("verdict %+v", v)
			}
			r.until("it is told", func() bool { return len(heard.of(docket.DenyStorm)) == 1 })
			if c := heard.of(docket.DenyStorm)[0]; c.Content != "bad" || !stormCause.MatchString(c.Cause) {
				t.Errorf("told %+v", c)
			}
			if _, d := st.Status(); d == nil || d.Why != docket.DenyStorm || !stormCause.MatchString(d.Cause) {
				t.Errorf("demoted %+v", d)
			}
			st.Heartbeat("good")
			if _, d := st.Status(); d != nil || len(heard.of(docket.Calm)) != 1 {
				t.Errorf("with the old content: demoted %+v", d)
			}
			if r.judge(r.question("never seen")) {
				t.Error("it does not enforce again")
			}
		})
	}
}

// TestDenyStormInFlight: what waits for the provider's vote when it trips is not denied by it any more.
func TestDenyStormInFlight(t *testing.T) {
	t.Parallel()
	r, heard := newRig(t), new(news)
	does := new(sometimes)
	does.set(allow)
	st := standing(heard, nil)
	p := (&peer{script: does.script, Member: &docket.Member{Standing: st, FailClosed: true}}).join(r, "p")
	r.members(p)
	for range 3 {
		for i := range 10 {
			r.judge(r.question(strconv.Itoa(i)))
		}
	}
	does.set(silence)
	const waiting = 5
	first := r.id.Load()
	for i := range waiting {
		r.d.Judge(r.question("waits" + strconv.Itoa(i)))
	}
	r.until("it has them", func() bool { return p.asked.Load() == 30+waiting })
	does.set(deny)
	for i := range 10 {
		r.judge(r.question(strconv.Itoa(i)))
	}
	for i := range uint64(waiting) { // a budget of a minute, and it fails closed
		r.until("those who wait are answered", func() bool { return len(r.kernel.of(first+1+i)) == 1 })
		if !r.kernel.of(first + 1 + i)[0] {
			t.Errorf("question %d was denied", first+1+i)
		}
	}
}

// TestOwnedByRootOnly: what others than root can change is nobody's, whatever its path says.
func TestOwnedByRootOnly(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*event.File)
		denied int // of ten objects that it never allowed
	}{
		"root's":      {func(*event.File) {}, docket.DefaultNumbers().Storm.Objects - 1},
		"a user's":    {func(f *event.File) { f.UID = 1000 }, 10},
		"for all":     {func(f *event.File) { f.Mode = 0o666 }, 10},
		"path unsure": {func(f *event.File) { f.PathUnsure = true }, 10},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			st := standing(new(news), func(w *docket.Watch) { w.Owned = func(string) bool { return true } })
			p := (&peer{script: answering(deny), Member: &docket.Member{Standing: st}}).join(r, "p")
			r.members(p)
			denied := 0
			for i := range 10 {
				q := r.question(strconv.Itoa(i))
				c.change(&q.Event.File)
				if !r.judge(q) {
					denied++
				}
			}
			if denied != c.denied {
				t.Errorf("%d of 10 were denied, want %d", denied, c.denied)
			}
		})
	}
}
