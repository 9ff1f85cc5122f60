package docket

import (
	"strings"
	"sync"

	"github.com/keepout-security/keepout/event"
)

// maxDenials bounds the rules that a Tally tells apart; what further ones deny counts without a name.
const maxDenials = 24

// Denial is what one rule of a provider denies.
type Denial struct {
	Type event.Type
	Rule string // in the provider's words; "" for one that names none
}

// Denied is how often a provider denies.
type Denied struct {
	Votes uint64 // votes in time that said DENY, whether or not they had an effect
	// Owned counts those about files that the distribution's packages own: a system needs them to run.
	Owned uint64
	Rules map[Denial]uint64 // Votes by rule, of the first few rules; nil without any
}

// Tally counts what one version of a provider denies. Of a candidate it counts only what the version beside which it
// runs lets pass: that is what would change. Canaries do not count. It is safe for concurrent use.
type Tally struct {
	mu     sync.Mutex
	denied Denied
}

// Denied returns what was counted; the caller may keep it.
func (t *Tally) Denied() Denied {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := t.denied
	out.Rules = nil
	for rule, n := range t.denied.Rules {
		if out.Rules == nil {
			out.Rules = make(map[Denial]uint64, len(t.denied.Rules))
		}
		out.Rules[rule] = n
	}
	return out
}

func (t *Tally) add(d Denial, owned bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.denied.Votes++
	if owned {
		t.denied.Owned++
	}
	if _, known := t.denied.Rules[d]; !known && len(t.denied.Rules) >= maxDenials {
		return
	}
	if t.denied.Rules == nil {
		t.denied.Rules = map[Denial]uint64{}
	}
	d.Rule = strings.Clone(d.Rule)
	t.denied.Rules[d]++
}

// tally counts the denials of a case that is over. Ballots are in the order of the seats.
func (e *entry) tally(ballots []event.Ballot) {
	if e.q.Event.File.Canary() {
		return
	}
	for i := range min(len(e.seats), len(ballots)) {
		m, b := e.seats[i].member, &ballots[i]
		if m.Tally == nil || !denies(b) || m.Beside != nil && e.deniesToo(ballots, m.Beside.With) {
			continue
		}
		m.Tally.add(Denial{e.seats[i].typ, b.Vote.Rule}, m.Owned != nil && ownedBy(m.Owned, &e.q.Event.File))
	}
}

// denies reports whether a vote that came in time says DENY.
func denies(b *event.Ballot) bool {
	return b.Reason == event.ReasonVoted && b.Vote.Action == event.Deny
}

// deniesToo reports whether the member with this id denies, by a vote that came now or is remembered.
func (e *entry) deniesToo(ballots []event.Ballot, id string) bool {
	for i := range min(len(e.seats), len(ballots)) {
		if e.seats[i].member.ID == id {
			return ballots[i].Vote.Action == event.Deny
		}
	}
	return false
}
