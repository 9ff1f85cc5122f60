package docket

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/arbiter"
	"github.com/keepout-security/keepout/internal/digest"
	"github.com/keepout-security/keepout/internal/sensor"
	"github.com/keepout-security/keepout/internal/session"
	"github.com/keepout-security/keepout/internal/verdictcache"
)

// Bounds.
const (
	MaxInFlight  = 4096                 // questions, each holding one descriptor
	tick         = 5 * time.Millisecond // how late a deadline may be noticed
	restAfter    = 100                  // idle ticks before the clock stops
	maxLingering = 1024
	maxDigests   = 4               // denied objects hashed at one time; further ones are not
	closeTime    = 2 * time.Second // for what is being looked up when the docket closes
)

// Member is one provider that can be asked.
type Member struct {
	ID      string
	Session *session.Session // nil for a provider that is down
	// Absent holds what a provider would be asked about that is down and whose missing vote counts as DENY: its
	// failure policy votes for it all the same.
	Absent     map[event.Type]bool
	Mode       event.Mode
	FailClosed bool
	Metadata   time.Duration // budget for a vote without the content
	Content    time.Duration // budget for a vote with the descriptor
	Latency    *Latency
	Standing   *Standing              // nil: always waited for
	Memory     *Memory                // nil: its votes are not remembered
	Beside     *Agreement             // set for a candidate that runs beside another member; nil otherwise
	Tally      *Tally                 // nil: what it denies is not counted
	Owned      func(path string) bool // for Tally; whether the distribution's packages own a path; may be nil
}

// Ruling is what the docket needs from the administrator's decisions.
type Ruling interface {
	// Policy returns the policy for a new case. It must not block.
	Policy() arbiter.Policy
	// Pardons reports whether there are any allowances at all. It must not block.
	Pardons() bool
	// Pardon is asked before a DENY takes effect: whether an administrator allowed this content, and why. It may
	// read the file, and runs on a goroutine of its own.
	Pardon(file int, size int64) (reason string, pardoned bool)
	// Pardoned is Pardon for a content whose digest is known. It must not block.
	Pardoned(digest string) (reason string, pardoned bool)
	// Digest returns the SHA-256 of a denied object for the record, or "". It reads the file, after the answer and
	// on a goroutine of its own.
	Digest(file int, size int64) string
}

// Trail takes the finished records. It must not block.
type Trail interface {
	Record(rec event.Record)
}

// Docket is safe for concurrent use.
type Docket struct {
	ruling Ruling
	trail  Trail
	kernel Kernel
	beat   func()
	panel  atomic.Pointer[panel]
	counts Counts

	convening sync.Mutex // one panel after the other; it is locked first
	sight     Sight      // used with convening held

	waiting atomic.Int32 // questions in flight, joined ones included; changed with mu held

	mu        sync.Mutex
	cases     map[uint64]*entry
	flights   map[flight]*entry
	spare     []*entry
	ballots   []event.Ballot // for the next cases
	scan      *entry         // the offer that is being looked at
	lingering int            // cases that are answered and keep their object open
	closing   bool           // no new questions are asked

	seed    maphash.Seed
	seeds   verdictcache.Seeds
	wake    chan struct{}
	digests chan struct{} // one place for each running digest

	table    *digest.Table
	hashings chan hashing
	over     chan struct{} // closed with the docket
	closed   sync.Once
}

// panel is who can be asked; it is replaced as a whole.
type panel struct {
	members []*Member
	wanted  sensor.Types
	awaited sensor.Types // members who are not there yet may want these
	openers int          // members who can want to hear of opens
}

// entry is one case and the callers that wait for it.
type entry struct {
	c       arbiter.Case
	q       *sensor.Question
	seats   []seat
	flight  flight
	joined  []*sensor.Question
	sending bool     // the question's descriptor is in use for delivery
	due     bool     // an answer is due as soon as sending is over
	early   []giveUp // votes that were given up before sending was over
	hashing bool     // a pardon is being looked up
	closed  bool     // the case is complete, but its answer is still due
	pardon  string
	pinned  bool // the object cannot change unseen
	lingers bool // its object stays open until the last vote is in
	// Everybody who can want to hear of opens of this object is asked.
	unanimous bool
	copy      int // descriptor of a denied object, kept for its digest; or -1

	digest string // of the content, once it is known
	late   int    // deliveries under way beside the first
	over   bool   // the question has ended, and its descriptor is closed

	filed, spared bool // it is off the docket, and waits to be used again

	seatRoom  [maxAsked]seat
	voterRoom [maxAsked]arbiter.Voter

	scan chan struct{} // of an offer: closed when it is over; otherwise nil
}

// seat is one member's part in a case.
type seat struct {
	member  *Member
	typ     event.Type // as which it is asked
	route   arbiter.Route
	byActor bool
	budget  time.Duration
	memory  recollection
	digest  bool // as in question
	mayRead bool
	opener  bool // as in question
	late    bool // it waits for the digest
	reads   bool // it has asked for the content, which is on its way
	read    bool // it has got the content, or will
}

// flight identifies identical questions. The panel is part of it, so that nobody joins a question that was put to
// others.
type flight struct {
	panel   *panel
	typ     event.Type
	open    bool
	version event.Version
	path    string
	asked   uint64 // who is asked, by place on the panel: mutes make it differ
	actor   uint64 // 0 when no asked provider looks at the actor
}

// New makes an empty docket and starts its clock, which Close ends. The clock calls beat, which must not block, each
// time that it has looked at every deadline.
func New(ruling Ruling, trail Trail, kernel Kernel, beat func()) *Docket {
	d := &Docket{
		ruling: ruling, trail: trail, kernel: kernel, beat: beat, seeds: verdictcache.NewSeeds(),
		cases: map[uint64]*entry{}, flights: map[flight]*entry{},
		wake: make(chan struct{}, 1), digests: make(chan struct{}, maxDigests), seed: maphash.MakeSeed(),
		table: digest.New(), hashings: make(chan hashing, hashQueue), over: make(chan struct{}),
	}
	d.panel.Store(&panel{})
	go d.clock()
	for range hashers {
		go d.hash()
	}
	return d
}

// Observe passes a notify event on to who subscribed.
func (d *Docket) Observe(ev *event.Event) {
	d.counts.Notified.Add(1)
	for _, m := range d.panel.Load().members {
		if f := m.filter(); f != nil && f.Matches(ev.Type, ev, nil) && !m.Session.Muted(ev.Actor.Token) {
			m.Session.Notify(ev)
		}
	}
}

// Judge asks the providers about q and answers it, now or later.
func (d *Docket) Judge(q *sensor.Question) {
	p := d.panel.Load()
	var places [maxAsked]question
	asked := p.ask(q, places[:0])
	if len(asked) == 0 {
		_ = q.Answer(true) // it cannot have been answered before
		d.counts.Unmatched.Add(1)
		q.Free()
		return
	}
	if d.recollect(q, asked) {
		d.recall(p, q, asked)
		return
	}
	q.Retain()
	pinned := q.Pin() // some system calls, for which nobody else shall wait
	d.mu.Lock()
	if d.closing || d.waiting.Load() >= MaxInFlight {
		reason := event.ReasonOverload
		if d.closing {
			reason = event.ReasonShutdown
		}
		d.mu.Unlock()
		d.overload(q, reason, asked)
		return
	}
	d.waiting.Add(1)
	key := flightOf(p, q, asked)
	// Who shares an answer must see what was judged: a writer moves the times before the content, so an equal version
	// is not enough.
	if e := d.flights[key]; e != nil && e.pinned && e.q.Unchanged() {
		e.joined = append(e.joined, q)
		d.mu.Unlock()
		return
	}
	e := d.newEntry(q, len(asked))
	e.flight, e.unanimous = key, pinned && p.unanimous(q, asked) && d.current(p, asked)
	e.pinned = pinned
	todo := d.open(e, asked)
	todo.add(d.interrupt(q))
	d.mu.Unlock()
	todo.run()
	d.rouse()
	d.deliver(e, asked)
	d.attend(asked)
}

// open opens the case of a question. Preconditions: mu is held.
func (d *Docket) open(e *entry, asked []question) actions {
	var todo actions
	voters := append(e.voterRoom[:0], make([]arbiter.Voter, len(asked))...)
	for i, a := range asked {
		x := seat{member: a.member, typ: a.typ, byActor: a.byActor, budget: a.budget(), memory: a.memory}
		x.digest, x.mayRead, x.opener = a.digest, a.mayRead, a.opener

		if st := a.member.Standing; st != nil && a.member.Session != nil && !a.memory.known && e.scan == nil {
			var news []Change
			x.route, news = st.route(a.typ, e.q.Event.Time)
			todo.tell(st, news)
		}
		e.seats[i] = x
		voters[i] = arbiter.Voter{
			Provider: a.member.ID, Mode: a.member.mode(), FailClosed: a.member.FailClosed, Budget: x.budget,
			Bypassed: x.route != arbiter.Ask, Probed: x.route == arbiter.Probe,
			Known: a.memory.known, Vote: a.memory.vote,
		}
	}
	var eff arbiter.Effects
	policy := d.ruling.Policy()
	policy.Hear = e.q.Event.File.Canary() // each provider must show its own vote, whoever denies first
	if e.scan != nil {
		policy = arbiter.Policy{Mode: event.Monitor}
	}
	eff = e.c.Open(policy, voters, d.newBallots(len(asked)))
	d.cases[e.q.Event.ID] = e
	if e.scan == nil {
		d.flights[e.flight] = e
	}
	todo.add(d.apply(e, eff))
	return todo
}

// deliver sends the event to everybody who is asked, and then gives an answer that fell due meanwhile: until
// then the descriptor must stay open.
func (d *Docket) deliver(e *entry, asked []question) {
	late := d.fingerprint(e)
	if sum := e.q.Event.File.SHA256; sum != "" { // before anybody is sent it, who may ask for the content at once
		d.mu.Lock()
		e.digest = sum
		d.mu.Unlock()
	}
	for i, a := range asked {
		if a.memory.known {
			continue
		}
		if e.seats[i].route == arbiter.Skip {
			a.member.Session.Skip()
			continue
		}
		if late && a.digest {
			continue
		}
		file := -1
		if a.descriptor {
			file = e.q.File
		}
		if a.mayRead && e.q.Event.File.SHA256 == "" {
			file, e.seats[i].read = e.q.File, true
		}
		left := a.budget()*arbiter.HeadroomPercent/100 - time.Since(e.q.Event.Time)
		if err := a.member.deliver(a.typ, &e.q.Event, left, file); err != nil {
			d.step(e.q.Event.ID, arbiter.Input{Kind: arbiter.Lost, Voter: i, Reason: lossReason(err)})
		}
	}
	d.mu.Lock()
	e.sending = false
	todo := actions{giveUps: e.early}
	if e.due {
		todo.add(d.conclude(e))
		if e.closed && !e.hashing {
			todo.add(d.file(e))
		}
	}
	d.release(e)
	d.mu.Unlock()
	todo.run()
}

// Voted counts a vote.
func (d *Docket) Voted(s *session.Session, id uint64, vote event.Vote, reason event.Reason) {
	d.mu.Lock()
	e := d.cases[id]
	if e == nil {
		d.mu.Unlock()
		return
	}
	i := e.index(s)
	now := time.Now()
	var todo actions
	if i >= 0 {
		took := now.Sub(e.q.Event.Time)
		if vote.Action == event.Read && reason == "" {
			file, ask, wrong := d.reread(e, i, took)
			if ask {
				ev := e.q.Event
				ev.File.SHA256 = e.digest
				d.mu.Unlock()
				d.sendLate(e, &ev, file, func(x *seat) bool { return x.reads && x.member.Session == s })
				return
			}
			vote = event.Vote{Confidence: event.Certain, Content: vote.Content}
			if wrong {
				reason = event.ReasonUndecoded
			}
		}
		if e.scan == nil {
			e.seats[i].member.Latency.Add(took)
		}
		if reason == "" && (e.scan == nil || vote.Action != event.Deny) && e.c.Expects(i, took) {
			todo = d.rule(e, i, now, vote)
		}
	}
	todo.add(d.stepAt(e, now, arbiter.Input{Kind: arbiter.Voted, Voter: i, Vote: vote, Reason: reason}))
	var memory *Memory
	if i >= 0 {
		memory = e.seats[i].member.Memory
	}
	d.mu.Unlock()
	todo.run()
	if memory != nil {
		d.Heard(memory, vote.Content)
	}
}

// Ended gives up every vote that a session still owes.
func (d *Docket) Ended(s *session.Session) {
	d.mu.Lock()
	var todo actions
	for _, e := range d.cases {
		if i := e.index(s); i >= 0 {
			todo.add(d.stepLocked(e, arbiter.Input{Kind: arbiter.Lost, Voter: i, Reason: event.ReasonLost}))
		}
	}
	d.mu.Unlock()
	todo.run()
}

// Close answers everything that is pending by policy and asks nothing from now on.
func (d *Docket) Close() {
	d.mu.Lock()
	d.closing = true
	var todo actions
	for _, e := range d.cases {
		for i := range e.seats {
			todo.add(d.stepLocked(e, arbiter.Input{Kind: arbiter.Lost, Voter: i, Reason: event.ReasonShutdown}))
		}
	}
	d.mu.Unlock()
	d.closed.Do(func() { close(d.over) })
	todo.run()
	d.rouse()
	// Whoever still looks up a pardon answers soon, for what it reads is bounded; after that nobody uses the kernel's
	// group any more.
	for end := time.Now().Add(closeTime); d.Totals().InFlight > 0 && time.Now().Before(end); {
		time.Sleep(tick)
	}
}

// filter returns the subscription, or nil without one.
func (m *Member) filter() *session.Filter {
	if m.Session == nil {
		return nil
	}
	return m.Session.Filter()
}

// mode is what the member's votes may do now.
func (m *Member) mode() event.Mode {
	if m.Standing != nil && m.Standing.audit.Load() {
		return event.Audit
	}
	return m.Mode
}

// deliver sends the event to a provider that is up.
func (m *Member) deliver(t event.Type, ev *event.Event, budget time.Duration, file int) error {
	if m.Session == nil {
		return session.ErrEnded
	}
	return m.Session.Deliver(t, ev, budget, file)
}

// step applies one input to the case of an event, if it is still open.
func (d *Docket) step(id uint64, in arbiter.Input) {
	d.mu.Lock()
	var todo actions
	if e := d.cases[id]; e != nil {
		todo = d.stepLocked(e, in)
	}
	d.mu.Unlock()
	todo.run()
}

// stepLocked is step with mu held; the actions run after it is released.
func (d *Docket) stepLocked(e *entry, in arbiter.Input) actions { return d.stepAt(e, time.Now(), in) }

func (e *entry) index(s *session.Session) int {
	for i := range e.seats {
		if e.seats[i].member.Session == s {
			return i
		}
	}
	return -1
}
