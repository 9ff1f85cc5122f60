package docket

import (
	"sync/atomic"

	"github.com/keepout-security/keepout/event"
)

// Agreement counts how often a candidate votes as the version beside which it runs. It is safe for concurrent use.
type Agreement struct {
	With string // the id of the member that it is compared with

	samples, differing atomic.Uint64
}

// Count returns how many events both have judged in time, and on how many of them only one said DENY.
func (a *Agreement) Count() (samples, differing uint64) { return a.samples.Load(), a.differing.Load() }

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
			a.samples.Add(1)
			if (ballots[i].Vote.Action == event.Deny) != (ballots[j].Vote.Action == event.Deny) {
				a.differing.Add(1)
			}
		}
	}
}
