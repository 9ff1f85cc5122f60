package session

// Counters account for one session, or summed up for one provider. Delivered = Answered + Late + Bypassed +
// Pending, at any moment.
type Counters struct {
	Delivered uint64 `json:"delivered"` // auth events sent
	Answered  uint64 `json:"answered"`  // votes in time
	Late      uint64 `json:"late"`      // deadlines missed, whether or not a vote came afterwards
	Bypassed  uint64 `json:"bypassed"`  // given up for another reason: cancelled, session ended
	Pending   uint64 `json:"pending"`
	Dropped   uint64 `json:"dropped"`  // auth events not sent: no credit, or the socket was full
	Skipped   uint64 `json:"skipped"`  // auth events not sent: the provider was bypassed
	Notified  uint64 `json:"notified"` // notify events sent
	Lost      uint64 `json:"lost"`     // notify events not sent

	LateVotes   uint64 `json:"late_votes"`   // votes that came after they were given up
	DoubleVotes uint64 `json:"double_votes"` // second votes on one event
	Unknown     uint64 `json:"unknown"`      // votes on events never delivered
	Undecodable uint64 `json:"undecodable"`  // votes with an action this version does not know
}

// Add sums up, for a provider that has had several sessions.
func (c Counters) Add(d Counters) Counters {
	return Counters{
		Delivered: c.Delivered + d.Delivered, Answered: c.Answered + d.Answered, Late: c.Late + d.Late,
		Bypassed: c.Bypassed + d.Bypassed, Pending: c.Pending + d.Pending, Dropped: c.Dropped + d.Dropped,
		Skipped: c.Skipped + d.Skipped, Notified: c.Notified + d.Notified, Lost: c.Lost + d.Lost,
		LateVotes:   c.LateVotes + d.LateVotes,
		DoubleVotes: c.DoubleVotes + d.DoubleVotes, Unknown: c.Unknown + d.Unknown,
		Undecodable: c.Undecodable + d.Undecodable,
	}
}

// fate is what became of a delivered event.
type fate uint8

const (
	unknown fate = iota
	pending
	answered
	givenUp
)

// remembered is how many events a session remembers, so that a late or double vote can be told from one on an event
// that was never delivered.
const remembered = 4096

// ledger accounts for the auth events of a session. It is not safe for concurrent use.
//
// Events are numbered one after the other, so the last ones have a place each in a table. Whoever needs the place of
// one that still waits for a vote, or whose vote may yet come late, makes it move to a map: that is for the few that
// take long, and everything else happens without one.
type ledger struct {
	count  Counters
	recent [remembered]place
	old    map[uint64]fate
	done   []uint64 // ring of finished ids in old
	next   int
}

// place is one event; an id is never 0.
type place struct {
	id   uint64
	fate fate
}

func newLedger() *ledger { return &ledger{old: map[uint64]fate{}} }

func (l *ledger) delivered(id uint64) {
	l.count.Delivered++
	l.count.Pending++
	p := &l.recent[id%remembered]
	switch p.fate {
	case pending:
		l.old[p.id] = pending
	case givenUp:
		l.old[p.id] = givenUp
		l.retire(p.id)
	case unknown, answered:
	}
	*p = place{id, pending}
}

// fate returns what became of an event, as far as it is remembered.
func (l *ledger) fate(id uint64) fate {
	if p := l.recent[id%remembered]; p.id == id {
		return p.fate
	}
	return l.old[id]
}

// undelivered takes back delivered for an event that could not be sent.
func (l *ledger) undelivered(id uint64) {
	if l.fate(id) != pending {
		return // the session has ended meanwhile, and accounted for it
	}
	if p := &l.recent[id%remembered]; p.id == id {
		*p = place{}
	} else {
		delete(l.old, id)
	}
	l.count.Delivered--
	l.count.Pending--
	l.count.Dropped++
}

// settle ends a pending event; false means that it was not pending.
func (l *ledger) settle(id uint64, f fate) bool {
	if l.fate(id) != pending {
		return false
	}
	l.count.Pending--
	if p := &l.recent[id%remembered]; p.id == id {
		p.fate = f
		return true
	}
	l.old[id] = f
	l.retire(id)
	return true
}

// retire lets a finished event be forgotten in the end.
func (l *ledger) retire(id uint64) {
	if len(l.done) < remembered {
		l.done = append(l.done, id)
		return
	}
	delete(l.old, l.done[l.next])
	l.done[l.next] = id
	l.next = (l.next + 1) % remembered
}

// vote accounts for a vote and reports whether it is wanted.
func (l *ledger) vote(id uint64) bool {
	if l.settle(id, answered) {
		l.count.Answered++
		return true
	}
	switch l.fate(id) {
	case answered:
		l.count.DoubleVotes++
	case givenUp:
		l.count.LateVotes++
	case unknown, pending:
		l.count.Unknown++
	}
	return false
}

// end gives up everything that is pending.
func (l *ledger) end() {
	l.count.Bypassed += l.count.Pending
	l.count.Pending = 0
	clear(l.recent[:])
	clear(l.old)
}
