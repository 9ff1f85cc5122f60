package docket

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/sensor"
	"github.com/keepout-security/keepout/internal/session"
)

// question is what one member is asked.
type question struct {
	member     *Member
	place      int // on the panel
	typ        event.Type
	descriptor bool
	digest     bool // it is told the digest first
	mayRead    bool // with digest: and may have the descriptor
	byActor    bool
	fresh      bool
	anyType    bool
	opener     bool // it wants to hear of opens
	memory     recollection
}

// remembered is the type of the events for which its vote is remembered.
func (a *question) remembered() event.Type {
	if a.anyType {
		return event.Open
	}
	return a.typ
}

// maxAsked is how many can be asked without allocating; more are possible.
const maxAsked = 8

func (a question) budget() time.Duration {
	if a.descriptor || a.digest {
		return a.member.Content
	}
	return a.member.Metadata
}

// ask adds the members whose subscription matches to asked. Who wants opens, but not execs, is asked about an exec as
// an open, because the kernel's open half of it will get the same answer.
func (p *panel) ask(q *sensor.Question, asked []question) []question {
	var head []byte
	looked := false
	for i, m := range p.members {
		if m.absent(q.Event.Type, q.WithOpen) {
			asked = append(asked, question{member: m, place: i, typ: q.Event.Type})
			continue
		}
		f := m.filter()
		if f == nil || m.Session.Muted(q.Event.Actor.Token) {
			continue
		}
		if f.HasMagic() && !looked {
			head, looked = firstBytes(q.File), true
		}
		typ, wanted := askedAs(f, &q.Event, q.WithOpen, head)
		if !wanted {
			continue
		}
		asked = append(asked, question{
			member: m, place: i, typ: typ, descriptor: f.Descriptor, byActor: f.ByActor, fresh: f.Fresh,
			anyType: f.AnyType, opener: f.Wants(event.Open),
			digest: f.Digest, mayRead: f.Digest && m.Session.MayRead(),
		})
	}
	return asked
}

// askedAs returns the type as which a subscription wants an event, if it does.
func askedAs(f *session.Filter, ev *event.Event, withOpen bool, head []byte) (t event.Type, wanted bool) {
	if f.Matches(ev.Type, ev, head) {
		return ev.Type, true
	}
	return event.Open, withOpen && f.Matches(event.Open, ev, head)
}

// absent reports whether the member is down, and its failure policy votes about such an event.
func (m *Member) absent(t event.Type, withOpen bool) bool {
	return m.Absent[t] || withOpen && m.Absent[event.Open]
}

// Could implements sensor.Judge: what ask would find if nobody muted the actor, and whatever the object begins with.
func (d *Docket) Could(ev *event.Event, withOpen bool) bool {
	for _, m := range d.panel.Load().members {
		if m.absent(ev.Type, withOpen) {
			return true
		}
		if f := m.filter(); f != nil {
			if _, wanted := askedAs(f, ev, withOpen, nil); wanted {
				return true
			}
		}
	}
	return false
}

// firstBytes reads the start of the object if the kernel has it in memory: a reader that waits for a disk would
// hold up every other caller.
func firstBytes(file int) []byte {
	b := make([]byte, session.MagicLen)
	n, err := unix.Preadv2(file, [][]byte{b}, 0, unix.RWF_NOWAIT)
	if err != nil {
		return nil
	}
	return b[:n]
}

// flightOf identifies q among the questions in flight.
func flightOf(p *panel, q *sensor.Question, asked []question) flight {
	key := flight{
		panel: p, typ: q.Event.Type, open: q.WithOpen, version: q.Event.File.Version, path: q.Event.File.Path,
	}
	for _, a := range asked {
		key.asked |= 1 << (a.place % 64) // there are at most 16
		if a.byActor {
			key.actor = q.Event.Actor.Token
			if key.actor == 0 {
				key.actor = q.Event.ID // without a token processes cannot be told apart: never share
			}
		}
	}
	return key
}

// lossReason says why an event could not be delivered.
func lossReason(err error) event.Reason {
	if errors.Is(err, session.ErrEnded) {
		return event.ReasonLost
	}
	return event.ReasonNoCredit
}
