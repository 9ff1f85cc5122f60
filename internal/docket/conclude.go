package docket

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/arbiter"
	"github.com/keepout-security/keepout/internal/sensor"
	"github.com/keepout-security/keepout/internal/session"
)

// actions are what is to be done once the lock is released: first the kernel's answers, then everything else.
type actions struct {
	answers []answer
	ends    []ending
	giveUps []giveUp
	records []event.Record
	trail   Trail
	later   []func()
}

type answer struct {
	q     *sensor.Question
	allow bool
}

// ending is a question whose descriptor is no longer needed.
type ending struct {
	q        *sensor.Question
	remember bool // in the kernel
	drop     bool // nobody else looks at it
}

type giveUp struct {
	s      *session.Session
	id     uint64
	reason event.Reason
}

func (a *actions) add(b actions) {
	a.answers = joined(a.answers, b.answers)
	a.ends = joined(a.ends, b.ends)
	a.giveUps = joined(a.giveUps, b.giveUps)
	a.records = joined(a.records, b.records)
	a.later = joined(a.later, b.later)
	if b.trail != nil {
		a.trail = b.trail
	}
}

// joined appends b to a, and takes b over where a is empty, which is nearly always.
func joined[T any](a, b []T) []T {
	if len(a) == 0 {
		return b
	}
	return append(a, b...)
}

// tell has news told after everything else.
func (a *actions) tell(st *Standing, news []Change) {
	if len(news) > 0 {
		a.later = append(a.later, func() { st.tell(news) })
	}
}

func (a *actions) run() {
	end := sensor.Burst(len(a.answers))
	for _, x := range a.answers {
		_ = x.q.Tell(x.allow) // it cannot have been answered before
	}
	end()
	for _, x := range a.ends {
		x.q.End(x.remember)
		if x.drop {
			x.q.Drop()
		}
	}
	for _, x := range a.giveUps {
		x.s.GiveUp(x.id, x.reason)
	}
	for _, r := range a.records {
		a.trail.Record(r)
	}
	for _, f := range a.later {
		go f()
	}
	answers.put(a.answers)
	ends.put(a.ends)
	records.put(a.records)
}

// apply turns the arbiter's effects into actions. Preconditions: mu is held.
func (d *Docket) apply(e *entry, eff arbiter.Effects) actions {
	var todo actions
	id := e.q.Event.ID
	for _, i := range eff.Missed {
		todo.giveUps = append(todo.giveUps, giveUp{e.seats[i].member.Session, id, event.ReasonDeadline})
	}
	for _, i := range eff.Cancel {
		todo.giveUps = append(todo.giveUps, giveUp{e.seats[i].member.Session, id, event.ReasonCancelled})
	}
	if e.sending || e.late > 0 { // some may only now be asked: deliver says it to them again
		e.early = append(e.early, todo.giveUps...)
	}
	if eff.Answer {
		if d.flights[e.flight] == e {
			delete(d.flights, e.flight) // nobody joins a question that is answered
		}
		if e.sending {
			e.due = true
		} else {
			todo.add(d.conclude(e))
		}
	}
	if eff.Closed {
		todo.add(d.file(e))
	}
	return todo
}

// conclude gives the verdict to everybody who waits for it. Preconditions: mu is held, the case has decided, and
// the descriptor is no longer needed for delivery.
func (d *Docket) conclude(e *entry) actions {
	e.due = false
	if e.scan != nil {
		return actions{} // nobody waits
	}
	v := e.c.Verdict()
	if !v.Allowed && e.proved() {
		e.pardon, v.Allowed = d.ruling.Pardoned(e.digest)
		return d.answer(e, v.Allowed)
	}
	if !v.Allowed && d.ruling.Pardons() && d.reserveDigest() {
		e.hashing = true
		return actions{later: []func(){func() { d.pardon(e) }}}
	}
	return d.answer(e, v.Allowed)
}

// answer tells the kernel. Preconditions: mu is held.
func (d *Docket) answer(e *entry, allow bool) actions {
	d.waiting.Add(-1 - int32(len(e.joined)))
	outcome := e.c.Verdict().Outcome
	if allow && outcome == event.Denied {
		outcome = event.Allowed // pardoned
	}
	d.counts.count(outcome, 1+len(e.joined))
	if !allow {
		if !e.proved() {
			e.copy = d.keepForDigest(e.q.File)
		}
		if who := &e.q.Event.Actor; who.Comm == "" {
			who.Comm = sensor.Program(who.PID) // now, because who is denied often ends at once
		}
	}
	todo := actions{answers: append(answers.get(), answer{e.q, allow}), ends: ends.get()}
	// The object of a pinned question stays open until the last vote is in, so that all of them can be remembered; and
	// one that somebody may still want to read.
	if e.lingers = (e.pinned && e.lasting() || e.readable()) && d.lingering < maxLingering; e.lingers {
		d.lingering++
	} else {
		e.over = true
		todo.ends = append(todo.ends, ending{q: e.q})
	}
	for _, q := range e.joined {
		todo.answers = append(todo.answers, answer{q, allow})
		todo.ends = append(todo.ends, ending{q: q, drop: true})
	}
	return todo
}

// file takes a closed case off the docket and records it, unless a pardon is still being looked up.
// Preconditions: mu is held.
func (d *Docket) file(e *entry) actions {
	if e.hashing || e.due {
		// The verdict may still change, or the answer is still due; whoever ends that files the case.
		e.closed = true
		return actions{}
	}
	delete(d.cases, e.q.Event.ID)
	e.filed = true
	if e.scan != nil {
		return d.scanned(e)
	}
	v := e.c.Verdict()
	if e.pardon != "" {
		v.Allowed, v.Outcome, v.Reason, v.DecidedBy = true, event.Allowed, event.ReasonAllowance, arbiter.Platform
		v.Rule = e.pardon
	}
	if v.Outcome == event.WouldDeny {
		d.counts.WouldDeny.Add(1) // known only now, and counted as allowed before
	}
	v.Shared = uint32(len(e.joined))
	e.compare(v.Ballots)
	e.tally(v.Ballots)
	var last []ending
	if e.lingers {
		d.lingering--
		last, e.over = append(ends.get(), ending{q: e.q, remember: d.remember(e, &v)}), true
	}
	rec := event.Record{Event: e.q.Event, Verdict: v}
	rec.Event.File.SHA256 = e.digest
	if e.copy < 0 {
		d.release(e)
		return actions{ends: last, records: append(records.get(), rec), trail: d.trail}
	}
	file := e.copy
	d.release(e)
	return actions{ends: last, later: d.recordLater(rec, file)}
}

// recordLater is what records a denial with the digest of file, which it closes. (As a closure in file it would make
// every record allocate.)
func (d *Docket) recordLater(rec event.Record, file int) []func() {
	return []func(){func() {
		if sum := d.ruling.Digest(file, rec.Event.File.Size); sum != "" {
			rec.Event.File.SHA256 = sum
		}
		_ = unix.Close(file)
		<-d.digests
		d.trail.Record(rec)
	}}
}

// reserveDigest takes a place among the running digests if there is one. A flood of denials is not hashed: that
// would hold up everybody's answers for the sake of one exception.
func (d *Docket) reserveDigest() bool {
	select {
	case d.digests <- struct{}{}:
		return true
	default:
		return false
	}
}

// keepForDigest duplicates the descriptor of an object that is being denied, if there is room for one more digest:
// who wants to lift the denial needs it, and cannot read the file.
func (d *Docket) keepForDigest(file int) int {
	if !d.reserveDigest() {
		return -1
	}
	fd, err := unix.FcntlInt(uintptr(file), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		<-d.digests
		return -1
	}
	return fd
}

// pardon looks up whether an administrator allowed what was denied, and answers.
func (d *Docket) pardon(e *entry) {
	why, pardoned := d.ruling.Pardon(e.q.File, e.q.Event.File.Size)
	<-d.digests
	d.mu.Lock()
	e.hashing = false
	if pardoned {
		e.pardon = why
	}
	todo := d.answer(e, e.pardon != "")
	if e.closed {
		todo.add(d.file(e))
	}
	d.mu.Unlock()
	todo.run()
}

// overload answers by the failure policies of those who would have been asked.
func (d *Docket) overload(q *sensor.Question, reason event.Reason, asked []question) {
	policy := d.ruling.Policy()
	v := event.Verdict{
		Outcome: event.Unavailable, Allowed: true, Reason: reason, DecidedBy: arbiter.Platform, Mode: policy.Mode,
	}
	for _, a := range asked {
		if policy.Mode == event.Enforce && a.member.mode() == event.Enforce && a.member.FailClosed {
			v.Allowed, v.DecidedBy = false, a.member.ID
		}
	}
	_ = q.Answer(v.Allowed)
	v.Latency = time.Since(q.Event.Time)
	d.counts.count(v.Outcome, 1)
	d.trail.Record(event.Record{Event: q.Event, Verdict: v})
}
