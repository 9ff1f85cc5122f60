package roster

import (
	"github.com/keepout-security/keepout/internal/docket"
	"github.com/keepout-security/keepout/internal/rollback"
	"github.com/keepout-security/keepout/internal/sandbox"
	"github.com/keepout-security/keepout/internal/session"
	"github.com/keepout-security/keepout/internal/supervisor"
)

// Measure is what one member of a provider has done so far: the processes that ran the same versions of its engine and
// content.
type Measure struct {
	Provider string
	Serial   uint64 // of the member: counts of another one begin at 0
	Trial    bool   // it runs beside the active versions, and its votes count nothing
	Part     rollback.Part
	Engine   rollback.Digest
	Content  rollback.Digest
	// Well reports whether the active versions serve as they should: they run, nobody has demoted them, and they are
	// what this host wants to run. In a boot after trouble, the last-known-good versions run in their place.
	Well     bool
	Counters session.Counters
	Usage    sandbox.Usage
	Denied   docket.Denied
	latency  *docket.Latency
}

// Lap returns how long votes took since the last call for the same provider. One caller only can use it.
func (m *Measure) Lap() docket.Quantiles { return m.latency.Lap() }

// Measures returns what runs now of every provider, in the order of the configuration; the active versions first. It
// reads files of the kernel.
func (r *Roster) Measures() (out []Measure) {
	r.mu.Lock()
	all := make([]*lineage, 0, len(r.order))
	for _, id := range r.order {
		if of := r.lineages[id]; of != nil {
			all = append(all, of)
		}
	}
	r.mu.Unlock()
	for _, of := range all {
		out = of.measures(out)
	}
	return out
}

func (l *lineage) measures(out []Measure) []Measure {
	l.mu.Lock()
	active, beside, part := l.active, l.beside, l.state.Trial.Part
	want := [2]rollback.Digest{l.state.Engine.Active.Digest, l.state.Content.Active.Digest}
	l.mu.Unlock()
	if active != nil {
		var s Status
		active.tell(&s)
		_, demoted := l.standing.Status()
		m := active.measure()
		m.Well = s.State == supervisor.Running && demoted == nil && active.runs == want
		m.latency = l.latency
		out = append(out, m)
	}
	if beside != nil {
		m := beside.measure()
		m.Trial, m.Part, m.latency = true, part, beside.latency
		out = append(out, m)
	}
	return out
}

func (m *member) measure() Measure {
	return Measure{
		Provider: m.id, Serial: m.serial, Engine: m.runs[0], Content: m.runs[1], Counters: m.counters(), Usage: m.usage(),
		Denied: m.tally.Denied(),
	}
}
