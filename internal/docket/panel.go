package docket

import (
	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/sensor"
)

// Sight is where the events come from; *sensor.Sensor is one.
type Sight interface {
	// Want says which types of events somebody may be asked about. When it returns, those that are new arrive; others
	// need not.
	Want(types sensor.Types)
}

// Look says where the events come from. It is called once, and before SetMembers.
func (d *Docket) Look(through Sight) {
	d.convening.Lock()
	defer d.convening.Unlock()
	d.sight = through
}

// SetMembers replaces who can be asked. Questions in flight keep theirs. The awaited types are those that somebody may
// want who is not there now, but will be: their events go on arriving, so that it is counted how many pass unasked.
func (d *Docket) SetMembers(members []*Member, awaited ...event.Type) {
	p := newPanel(members)
	for _, t := range awaited {
		p.awaited[t] = true
	}
	d.convening.Lock()
	defer d.convening.Unlock()
	after, before := p.wanted.Add(p.awaited), d.panel.Load()
	if d.sight != nil {
		d.sight.Want(before.wanted.Add(before.awaited).Add(after)) // before anybody relies on being asked
	}
	d.panel.Store(p)
	d.kernel.Flush() // what it remembers was decided by others
	if d.sight != nil {
		d.sight.Want(after)
	}
}

func newPanel(members []*Member) *panel {
	p := &panel{members: members}
	for _, m := range members {
		if m.ID == "" && m.Session != nil {
			m.ID = m.Session.Provider()
		}
		if f := m.filter(); m.Absent[event.Open] || f != nil && f.Wants(event.Open) {
			p.openers++
		}
		for t := range m.Absent {
			p.wanted[t] = true
		}
		if f := m.filter(); f != nil {
			for _, t := range f.Types() {
				p.wanted[t] = true
			}
		}
	}
	// The open half of an exec is judged with the exec.
	p.wanted[event.Exec] = p.wanted[event.Exec] || p.wanted[event.Open]
	return p
}

// Wants reports whether anybody would be asked about events of this type.
func (d *Docket) Wants(t event.Type) bool { return d.panel.Load().wanted[t] }
