package trail

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keepout-security/keepout/event"
)

// written is a journal in memory; hold, when set, makes Append wait until it is closed.
type written struct {
	hold chan struct{}

	mu    sync.Mutex
	recs  []event.Record
	calls int
}

func (w *written) Append(recs ...event.Record) {
	if w.hold != nil {
		<-w.hold
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.recs = append(w.recs, recs...)
	w.calls++
}

func (w *written) ids() (ids []uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range w.recs {
		ids = append(ids, w.recs[i].Event.ID)
	}
	return ids
}

func start(j *written) *Trail {
	return New(Config{
		Journal: j,
		Comm:    func(pid int32) string { return fmt.Sprint("comm", pid) },
		Keep:    func(rec *event.Record) bool { return rec.Event.Type != event.Open },
	})
}

// number makes record i; even ones are opens, which the journal leaves out.
func number(i int) event.Record {
	rec := event.Record{
		Event:   event.Event{ID: uint64(i), Type: event.Open},
		Verdict: event.Verdict{Outcome: event.Allowed},
	}
	if i%2 == 1 {
		rec.Event.Type = event.Exec
	}
	rec.Event.Actor.PID = int32(i % 3)
	return rec
}

func all(*event.Record) bool { return true }

func ids(recs []event.Record) (ids []uint64) {
	for i := range recs {
		ids = append(ids, recs[i].Event.ID)
	}
	return ids
}

func upTo(from, to, step int) (ids []uint64) {
	for i := from; i < to; i += step {
		ids = append(ids, uint64(i))
	}
	return ids
}

func TestOrderAndJournal(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var j written
		tr := start(&j)
		_, f := tr.Follow(all)
		if f == nil {
			t.Fatal("no follower is allowed")
		}
		for i := range 100 {
			tr.Record(number(i))
			if i%7 == 0 {
				time.Sleep(flushEvery / 3)
			}
		}
		time.Sleep(2 * flushEvery)
		synctest.Wait()
		if got := ids(tr.Recent(all)); !slices.Equal(got, upTo(0, 100, 1)) {
			t.Errorf("recent: %v", got)
		}
		if got := j.ids(); !slices.Equal(got, upTo(1, 100, 2)) {
			t.Errorf("journal: %v", got)
		}
		for i := range 100 {
			if rec := <-f.C; rec.Event.ID != uint64(i) || rec.Event.Actor.Comm != fmt.Sprint("comm", i%3) {
				t.Fatalf("follower: number %d is %+v", i, rec.Event)
			}
		}
		odd := tr.Recent(func(rec *event.Record) bool { return rec.Event.Type == event.Exec })
		if got := ids(odd); !slices.Equal(got, upTo(1, 100, 2)) {
			t.Errorf("recent execs: %v", got)
		}
		if lost := tr.Missed(f); lost != 0 {
			t.Errorf("%d lost", lost)
		}
		tr.Close()
		if tr.Lost() != 0 {
			t.Errorf("%d lost", tr.Lost())
		}
	})
}

// TestOneCallForABatch: the journal is asked once for what a moment has brought, and at once for a denial.
func TestOneCallForABatch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var j written
		tr := start(&j)
		told := func() int {
			synctest.Wait()
			j.mu.Lock()
			defer j.mu.Unlock()
			return j.calls
		}
		tr.Record(number(1)) // wakes it
		told()
		for round := range 3 {
			before := told()
			for i := range 100 {
				tr.Record(number(2*i + 1))
			}
			if n := told(); n != before {
				t.Errorf("round %d: %d calls before anything was due", round, n-before)
			}
			time.Sleep(flushEvery)
			if n := told(); n != before+1 {
				t.Errorf("round %d: %d calls for 100 records", round, n-before)
			}
		}
		before, denied := told(), number(1)
		denied.Verdict.Outcome = event.Denied
		tr.Record(denied)
		if n := told(); n != before+1 {
			t.Errorf("%d calls for a denial without waiting", n-before)
		}
		tr.Close()
	})
}

// TestKnownNamesAreKept: a record that names its process is not looked up again.
func TestKnownNamesAreKept(t *testing.T) {
	t.Parallel()
	tr := start(&written{})
	rec := number(1)
	rec.Event.Actor.Comm = "known"
	tr.Record(rec)
	tr.Close()
	if got := tr.Recent(all); len(got) != 1 || got[0].Event.Actor.Comm != "known" {
		t.Errorf("got %+v", got)
	}
}

func TestRingIsBounded(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, Recent - 1, Recent, Recent + 1, 2*Recent + 5} {
		synctest.Test(t, func(t *testing.T) {
			tr := start(&written{})
			for i := range n {
				tr.Record(number(i))
				if i%1000 == 999 {
					time.Sleep(2 * flushEvery) // the queue is shorter than two rings
				}
			}
			tr.Close()
			if got, want := ids(tr.Recent(all)), upTo(max(0, n-Recent), n, 1); !slices.Equal(got, want) {
				t.Errorf("of %d records, %d are kept, %v to %v", n, len(got), got[0], got[len(got)-1])
			}
			if len(tr.ring) > Recent {
				t.Errorf("%d records in the ring", len(tr.ring))
			}
		})
	}
}

func TestSlowFollowerIsCounted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr := start(&written{})
		_, slow := tr.Follow(all)
		for i := range followLen + 30 {
			tr.Record(number(i))
		}
		time.Sleep(2 * flushEvery)
		synctest.Wait()
		past, late := tr.Follow(all)
		if len(past) != followLen+30 {
			t.Errorf("one that came later got %d past records, want %d", len(past), followLen+30)
		}
		tr.Record(number(9999))
		tr.Close()
		if lost := tr.Missed(slow); lost != 31 {
			t.Errorf("the slow one lost %d, want 31", lost)
		}
		for i := range followLen {
			if rec := <-slow.C; rec.Event.ID != uint64(i) {
				t.Fatalf("number %d is %d: what is lost is the newest", i, rec.Event.ID)
			}
		}
		if lost := tr.Missed(late); lost != 0 || len(late.C) != 1 {
			t.Errorf("one that came later lost %d and has %d records", lost, len(late.C))
		}
	})
}

func TestFollowersAreBounded(t *testing.T) {
	t.Parallel()
	tr := start(&written{})
	defer tr.Close()
	var last *Follower
	for i := range maxFollower {
		_, f := tr.Follow(all)
		if f == nil {
			t.Fatalf("no place for follower %d", i)
		}
		last = f
	}
	if _, f := tr.Follow(all); f != nil {
		t.Errorf("follower %d is allowed", maxFollower+1)
	}
	tr.Unfollow(last)
	if _, f := tr.Follow(all); f == nil {
		t.Error("one left, but there is no place")
	}
}

// TestOverflowIsCounted: while the goroutine is held up, Record neither blocks nor grows without bound.
func TestOverflowIsCounted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		j := &written{hold: make(chan struct{})}
		tr := start(j)
		tr.Record(number(1))
		synctest.Wait() // it holds number 1 in Append
		for i := range queueLen + 25 {
			tr.Record(number(3 + 2*i))
		}
		if lost := tr.Lost(); lost != 25 {
			t.Errorf("%d lost, want 25", lost)
		}
		close(j.hold)
		tr.Close()
		if got := len(j.ids()); got != queueLen+1 {
			t.Errorf("%d in the journal, want %d", got, queueLen+1)
		}
		if lost := tr.Lost(); lost != 25 {
			t.Errorf("%d lost after Close, want 25", lost)
		}
	})
}

// TestCloseFlushes: what was recorded before Close is kept, what comes after is counted, and the goroutine is gone
// when Close returns, also while it rested.
func TestCloseFlushes(t *testing.T) {
	t.Parallel()
	for _, idle := range []time.Duration{0, flushEvery / 2, 2 * restAfter * flushEvery} {
		synctest.Test(t, func(t *testing.T) {
			var j written
			tr := start(&j)
			time.Sleep(idle)
			for i := range 10 {
				tr.Record(number(i))
			}
			tr.Close()
			select {
			case <-tr.done:
			default:
				t.Error("the goroutine is still there")
			}
			if got := j.ids(); !slices.Equal(got, upTo(1, 10, 2)) {
				t.Errorf("journal: %v", got)
			}
			if got := ids(tr.Recent(all)); !slices.Equal(got, upTo(0, 10, 1)) {
				t.Errorf("recent: %v", got)
			}
			tr.Record(number(11))
			if tr.Lost() != 1 {
				t.Errorf("%d lost after Close, want 1", tr.Lost())
			}
			tr.Close() // once more does no harm
		})
	}
}

// TestRestAndWake: with nothing to do the goroutine stops its clock, and the next record wakes it at once; while
// it is busy, what matters to people is shown at once and the rest with the next flush.
func TestRestAndWake(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr := start(&written{})
		defer tr.Close()
		_, f := tr.Follow(all)
		arrives := func(rec event.Record, within time.Duration) {
			t.Helper()
			before := time.Now()
			tr.Record(rec)
			select {
			case got := <-f.C:
				if got.Event.ID != rec.Event.ID {
					t.Errorf("record %d came, want %d", got.Event.ID, rec.Event.ID)
				}
				if took := time.Since(before); took > within {
					t.Errorf("record %d took %v, want at most %v", rec.Event.ID, took, within)
				}
			case <-time.After(time.Hour):
				t.Fatalf("record %d never came", rec.Event.ID)
			}
		}
		resting := func() bool {
			tr.mu.Lock()
			defer tr.mu.Unlock()
			return tr.resting
		}
		for i := range 5 {
			arrives(number(10*i), flushEvery)
			if resting() {
				t.Error("rests right after a record")
			}
			arrives(number(10*i+1), flushEvery)
			denied := number(10*i + 2)
			denied.Verdict.Outcome = event.Denied
			arrives(denied, 0)
			time.Sleep(2 * restAfter * flushEvery)
			synctest.Wait()
			if !resting() {
				t.Error("does not rest though nothing comes")
			}
			arrives(number(10*i+3), 0)
		}
	})
}

// TestConcurrentRecords: every record is kept once, whoever records it; the race detector looks on.
func TestConcurrentRecords(t *testing.T) {
	t.Parallel()
	var j written
	tr := start(&j)
	const each, writers = 500, 4
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				tr.Record(number(2*(w*each+i) + 1))
				tr.Recent(func(*event.Record) bool { return false })
			}
		})
	}
	wg.Wait()
	tr.Close()
	got := j.ids()
	slices.Sort(got)
	if !slices.Equal(got, upTo(1, 2*each*writers, 2)) || tr.Lost() != 0 {
		t.Errorf("%d records, %d lost", len(got), tr.Lost())
	}
}
