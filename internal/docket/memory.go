package docket

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/arbiter"
	"github.com/keepout-security/keepout/internal/sensor"
	"github.com/keepout-security/keepout/internal/verdictcache"
)

// How long a vote is remembered that allows nothing: whoever mends its cause shall not have to wait.
const (
	denyFor = 30 * time.Second
	// An ABSTAIN may only mean that an engine is starting again, which nothing else would tell: the provider's process
	// and its content are the same ones. The kernel may remember it for lease.KeptFor more, which makes denyFor, too.
	abstainFor = 20 * time.Second
)

// Kernel is what remembers verdicts before anything is asked; *lease.Set is one.
type Kernel interface {
	// Flush makes it forget everything. It must not wait for the docket.
	Flush()
}

// Memory is what is remembered of one provider's votes. It is safe for concurrent use, and outlives sessions.
type Memory struct {
	table   *verdictcache.Table
	content atomic.Pointer[string] // by which the votes were made
}

// NewMemory makes an empty one.
func NewMemory() *Memory { return &Memory{table: verdictcache.New()} }

// Recalled is how many votes came from memory instead of the provider.
func (m *Memory) Recalled() uint64 { return m.table.Hits() }

// Forget drops everything that is remembered of one provider, at once and whatever it is. It is to be called when its
// engine or its content is another one, after the last vote of the old one was asked for.
func (d *Docket) Forget(m *Memory) {
	m.table.Flush()
	d.kernel.Flush()
}

// Heard tells which content a provider uses, in its own words; another one than before makes Forget.
func (d *Docket) Heard(m *Memory, content string) {
	if content == "" {
		return
	}
	if old := m.content.Load(); old != nil && *old == content {
		return
	}
	kept := content // a pointer to the argument would allocate at each call
	m.content.Store(&kept)
	d.Forget(m)
}

// recollection is what is known of one member's vote before it is asked.
type recollection struct {
	lasting bool // its vote may be remembered
	key     verdictcache.Key
	epoch   uint32 // in which it is asked
	known   bool
	vote    event.Vote
}

// recollect looks up what the members have voted on this object before. It reports whether nobody needs to be asked,
// because all of them allowed it.
func (d *Docket) recollect(q *sensor.Question, asked []question) (all bool) {
	if !q.Pinnable() || q.Event.File.Canary() { // each provider must show that it votes on a canary
		return false
	}
	all = q.Lasting()
	file := &q.Event.File
	for i := range asked {
		a := &asked[i]
		m := a.member.Memory
		if m == nil || a.byActor || a.fresh {
			all = false
			continue
		}
		r := &a.memory
		r.lasting, r.epoch = true, m.table.Epoch()
		if !q.Lasting() {
			continue // the kernel may remember it under the lease, but its version proves nothing afterwards
		}
		if i > 0 && asked[i-1].memory.lasting && asked[i-1].remembered() == a.remembered() {
			r.key = asked[i-1].memory.key
		} else {
			r.key = d.seeds.Key(&verdictcache.Question{
				Type: a.remembered(), Version: file.Version, Path: file.Path, Unsure: file.PathUnsure,
			})
		}
		r.vote, r.known = m.table.Get(r.key, q.Event.Time)
		all = all && r.known && r.vote.Action != event.Deny
	}
	return all
}

// recall answers q from memory.
func (d *Docket) recall(p *panel, q *sensor.Question, asked []question) {
	_ = q.Tell(true) // it cannot have been answered before
	d.counts.Allowed.Add(1)
	d.counts.Remembered.Add(1)
	rec := event.Record{}
	exec := q.Event.Type == event.Exec
	if exec {
		q.Retain()
		rec = d.recalled(q, asked)
		if sum, ok := d.table.Get(&q.Event.File.Version); ok {
			rec.Event.File.SHA256 = sum.Text()
		}
	}
	for i := range asked {
		a := &asked[i]
		d.passed(a.member, a.typ, a.byActor, a.memory.vote.Content, 1, q.Event.File.Version)
	}
	q.End(q.Keepable() && p.unanimous(q, asked) && !kept(q) && q.Pin() && d.current(p, asked))
	if exec {
		d.trail.Record(rec)
	}
	q.Free()
}

// current reports whether the panel is still p, and nothing that was looked up for asked is forgotten. Whoever changes
// either flushes the kernel afterwards: asked after Pin, it leaves no change that the kernel could miss.
func (d *Docket) current(p *panel, asked []question) bool {
	for i := range asked {
		a := &asked[i]
		if a.memory.lasting && a.memory.epoch != a.member.Memory.table.Epoch() {
			return false
		}
	}
	return d.panel.Load() == p
}

// kept reports whether the kernel needs not be made to remember the open half of an exec again. (An open that it
// remembers raises no event; if one comes all the same, the mark is gone, and is set anew.)
func kept(q *sensor.Question) bool { return q.Event.Type == event.Exec && q.Kept() }

// recalled is the record of an exec that was answered from memory; opens are too many to be recorded again.
func (d *Docket) recalled(q *sensor.Question, asked []question) event.Record {
	v := event.Verdict{
		Mode: d.ruling.Policy().Mode, Outcome: event.Allowed, Allowed: true, Reason: event.ReasonRemembered,
		DecidedBy: arbiter.Platform, Latency: time.Since(q.Event.Time), Ballots: make([]event.Ballot, len(asked)),
	}
	for i, a := range asked {
		v.Ballots[i] = event.Ballot{
			Provider: a.member.ID, Mode: a.member.mode(), Vote: a.memory.vote, Counted: true,
			Reason: event.ReasonRemembered,
		}
	}
	return event.Record{Event: q.Event, Verdict: v}
}

// unanimous reports whether everybody who could ever want to hear of an open of this object was asked, by whatever path
// and whoever opens it, and votes about opens: only then may the kernel answer for all of them.
func (p *panel) unanimous(q *sensor.Question, asked []question) bool {
	if q.Event.Type != event.Open && !q.WithOpen {
		return false
	}
	openers := 0
	for i := range asked {
		a := &asked[i]
		switch {
		case a.member.Absent != nil:
			return false
		case !a.opener: // nor would it hear of any open
			continue
		case a.remembered() != event.Open, !a.memory.lasting:
			return false
		}
		openers++
	}
	return openers > 0 && openers >= p.openers
}

// remember keeps the votes of a case that is closed, and reports whether the kernel may remember, too. Preconditions:
// mu is held, and the question has not ended.
func (d *Docket) remember(e *entry, v *event.Verdict) (inKernel bool) {
	if !e.pinned || !e.q.Unchanged() {
		return false
	}
	now := time.Now()
	inKernel = v.Outcome == event.Allowed && v.Reason != event.ReasonAllowance && e.unanimous && !kept(e.q)
	for i := range e.seats {
		x, b := &e.seats[i], &v.Ballots[i]
		voted := b.Counted && (b.Reason == event.ReasonVoted || b.Reason == event.ReasonRemembered)
		inKernel = inKernel && voted && b.Vote.Action != event.Deny
		if !x.memory.lasting || x.memory.known || !voted || !e.q.Lasting() {
			continue
		}
		if e.scan != nil && b.Vote.Action == event.Deny {
			continue
		}
		x.member.Memory.table.Put(x.memory.key, b.Vote, x.memory.epoch, now, lifeOf(b.Vote.Action))
	}
	for i := range e.seats {
		// Nobody sees how often it is opened from now on, of an exec, too.
		if x := &e.seats[i]; inKernel && x.opener && x.member.Standing != nil {
			popular := x.member.Standing.w.Numbers.Storm.Popular
			d.passed(x.member, event.Open, x.byActor, v.Ballots[i].Vote.Content, popular, e.q.Event.File.Version)
		}
	}
	return inKernel
}

// lifeOf is how long a vote is remembered; 0: until something ends it.
func lifeOf(a event.Action) time.Duration {
	switch a {
	case event.Allow:
		return 0
	case event.Deny:
		return denyFor
	default:
		return abstainFor
	}
}

// lasting reports whether anybody's vote may be remembered.
func (e *entry) lasting() bool {
	return slices.ContainsFunc(e.seats, func(x seat) bool { return x.memory.lasting })
}
