package docket

import (
	"sync"

	"github.com/keepout-security/keepout/event"
)

// maxDiffering bounds the objects that are told apart; beyond it each event counts.
const maxDiffering = 4096

// Agreement counts how often a candidate votes as the version beside which it runs. It is safe for concurrent use.
type Agreement struct {
	With string // the id of the member that it is compared with

	mu        sync.Mutex
	samples   uint64
	differing uint64
	objects   map[event.Version]struct{} // on which they differed
}

// Count returns how many events both have judged in time, and on how many objects only one said DENY: a file that a
// new list names is one difference, however often it is opened.
func (a *Agreement) Count() (samples, differing uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.samples, a.differing
}

func (a *Agreement) add(object event.Version, differs bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.samples++
	if !differs {
		return
	}
	if _, known := a.objects[object]; known {
		return
	}
	a.differing++
	if a.objects == nil {
		a.objects = map[event.Version]struct{}{}
	}
	if len(a.objects) < maxDiffering {
		a.objects[object] = struct{}{}
	}
}

// compare counts what candidates said of a case that is over. Ballots are in the order of the seats.
func (e *entry) compare(ballots []event.Ballot) {
	for i := range e.seats {
		a := e.seats[i].member.Beside
		if a == nil || i >= len(ballots) || ballots[i].Reason != event.ReasonVoted {
			continue
		}
		for j := range e.seats {
			if e.seats[j].member.ID != a.With || j >= len(ballots) || ballots[j].Reason != event.ReasonVoted {
				continue
			}
			differs := (ballots[i].Vote.Action == event.Deny) != (ballots[j].Vote.Action == event.Deny)
			a.add(e.q.Event.File.Version, differs)
		}
	}
}
