package session

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestMemoryOfFates: a session remembers the last events, and not all.
func TestMemoryOfFates(t *testing.T) {
	t.Parallel()
	l := newLedger()
	for id := range uint64(3 * remembered) {
		l.delivered(id + 1)
		if !l.vote(id + 1) {
			t.Fatal("a vote on a pending event is not wanted")
		}
	}
	if len(l.old) != 0 || len(l.done) != 0 {
		t.Errorf("quick votes use the map: %d and %d", len(l.old), len(l.done))
	}
	if l.vote(3 * remembered); l.count.DoubleVotes != 1 {
		t.Errorf("the last one is forgotten: %+v", l.count)
	}
	if l.vote(1); l.count.Unknown != 1 {
		t.Errorf("the first one is not forgotten: %+v", l.count)
	}
}

// TestLedger: whatever is pending is known however long it takes, late votes are told from unknown ones, and memory is
// bounded, as a plain model says.
func TestLedger(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		l := newLedger()
		waiting, late := map[uint64]bool{}, []uint64{}
		var next uint64
		pick := func() uint64 { return rapid.SampledFrom(keys(waiting)).Draw(t, "one that waits") }
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			switch act := rapid.IntRange(0, 5).Draw(t, "act"); {
			case act < 2 || len(waiting) == 0:
				// Often the place of an earlier one.
				next += rapid.SampledFrom([]uint64{1, 2, remembered - 1, remembered, remembered + 1}).Draw(t, "later")
				l.delivered(next)
				waiting[next] = true
			case act == 2:
				id := pick()
				l.undelivered(id)
				delete(waiting, id)
			case act == 3:
				id := pick()
				if !l.settle(id, givenUp) {
					t.Fatalf("%d does not wait", id)
				}
				delete(waiting, id)
				late = append(late, id)
			default:
				id := pick()
				if !l.vote(id) || l.settle(id, answered) {
					t.Fatalf("the vote on %d is not wanted once", id)
				}
				delete(waiting, id)
			}
			if l.count.Pending != uint64(len(waiting)) || len(l.old) > len(waiting)+remembered {
				t.Fatalf("%d wait, %d old: %+v", len(waiting), len(l.old), l.count)
			}
			reconcileAll(t, l.count)
		}
		for _, id := range late {
			l.vote(id)
		}
		if l.vote(next + 1); l.count.LateVotes != uint64(len(late)) || l.count.Unknown != 1 {
			t.Fatalf("%d late and 1 unknown votes: %+v", len(late), l.count)
		}
		l.end()
		if l.count.Pending != 0 || len(l.old) != 0 {
			t.Fatalf("after the end: %+v", l.count)
		}
	})
}

// reconcileAll is reconcile, before anything was counted as late or bypassed: settle leaves that to its caller.
func reconcileAll(t *rapid.T, c Counters) {
	if c.Delivered < c.Answered+c.Pending || c.Unknown+c.DoubleVotes+c.LateVotes != 0 {
		t.Fatalf("%+v", c)
	}
}

func keys(m map[uint64]bool) []uint64 {
	list := make([]uint64, 0, len(m))
	for id := range m {
		list = append(list, id)
	}
	slices.Sort(list)
	return list
}
