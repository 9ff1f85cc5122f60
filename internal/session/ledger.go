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
	pending fate = iota
	answered
	givenUp
)

// remembered is how many finished events a session remembers, so that a late or double vote can be told from one
// on an event that was never delivered.
const remembered = 4096

// ledger accounts for the auth events of a session. It is not safe for concurrent use.
type ledger struct {
	count Counters
	fates map[uint64]fate
	done  []uint64 // ring of finished ids
	next  int
}

func newLedger() *ledger { return &ledger{fates: map[uint64]fate{}} }

func (l *ledger) delivered(id uint64) {
	l.count.Delivered++
	l.count.Pending++
	l.fates[id] = pending
}

// undelivered takes back delivered for an event that could not be sent.
func (l *ledger) undelivered(id uint64) {
	if f, ok := l.fates[id]; !ok || f != pending {
		return // the session has ended meanwhile, and accounted for it
	}
	delete(l.fates, id)
	l.count.Delivered--
	l.count.Pending--
	l.count.Dropped++
}

// settle ends a pending event; false means that it was not pending.
func (l *ledger) settle(id uint64, f fate) bool {
	if was, ok := l.fates[id]; !ok || was != pending {
		return false
	}
	l.count.Pending--
	l.fates[id] = f
	if len(l.done) < remembered {
		l.done = append(l.done, id)
		return true
	}
	delete(l.fates, l.done[l.next])
	l.done[l.next] = id
	l.next = (l.next + 1) % remembered
	return true
}

// vote accounts for a vote and reports whether it is wanted.
func (l *ledger) vote(id uint64) bool {
	if l.settle(id, answered) {
		l.count.Answered++
		return true
	}
	switch f, known := l.fates[id]; {
	case !known:
		l.count.Unknown++
	case f == answered:
		l.count.DoubleVotes++
	default:
		l.count.LateVotes++
	}
	return false
}

// end gives up everything that is pending.
func (l *ledger) end() {
	l.count.Bypassed += l.count.Pending
	l.count.Pending = 0
	clear(l.fates)
}
