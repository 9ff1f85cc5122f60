package daemon

import (
	"fmt"
	"time"

	"github.com/keepout-security/keepout/internal/boot"
	"github.com/keepout-security/keepout/internal/config"
	"github.com/keepout-security/keepout/internal/guard/link"
	"github.com/keepout-security/keepout/internal/rollback"
	"github.com/keepout-security/keepout/internal/roster"
	"github.com/keepout-security/keepout/internal/update"
)

// lapEvery is the time over which the times of votes are told.
const lapEvery = time.Minute

// report gathers what the control plane should know of the providers.
func (d *Daemon) report(now time.Time) update.Report {
	all := d.roster.Measures()
	lap := now.Sub(d.updates.lapped) >= lapEvery
	if lap {
		d.updates.lapped = now
	}
	readings := make([]update.Reading, 0, len(all))
	well := map[string]bool{}
	for i := range all {
		m := &all[i]
		if !m.Trial {
			well[m.Provider] = m.Well
		}
		readings = append(readings, reading(m, lap))
	}
	for _, n := range d.updates.meter.Read(readings) {
		d.countDenials(&n)
	}
	r := update.Report{
		Core: d.updates.core, Installed: []update.Installed{}, Counters: d.updates.meter.Counters(),
		Buckets: append(d.updates.buckets.List(), d.updates.denials.List()...),
	}
	for _, s := range d.roster.Status() {
		if st, ok := d.store.State(s.ID); ok {
			r.Installed = append(r.Installed, installed(&st, well[s.ID])...)
		}
	}
	return r
}

// reading is a measure in the words of the exchange.
func reading(m *roster.Measure, lap bool) update.Reading {
	r := update.Reading{
		Provider: m.Provider, Serial: m.Serial, Trial: m.Trial, Engine: m.Engine, Content: m.Content,
		Verdicts: m.Counters.Answered, Timeouts: m.Counters.Late, Denies: m.Denied.Votes, Critical: m.Denied.Owned,
		Ran: m.Usage.Ran, CPU: m.Usage.CPU, Memory: m.Usage.Memory,
	}
	for rule, n := range m.Denied.Rules {
		if r.Rules == nil {
			r.Rules = map[string]uint64{}
		}
		r.Rules[denialWords(rule.Type.String(), rule.Rule)] += n
	}
	if lap {
		r.P99 = time.Duration(m.Lap().P99) * time.Microsecond
	}
	return r
}

// denialWords is what a denial is called in its bucket; it is redacted there.
func denialWords(typ, rule string) string {
	if rule == "" {
		return "denies " + typ + " by no rule that it names"
	}
	return "denies " + typ + " by " + rule
}

// countDenials puts denials into their bucket: of the candidate, or of what changed last.
func (d *Daemon) countDenials(n *update.Denial) {
	st, ok := d.store.State(n.Reading.Provider)
	if !ok {
		return
	}
	b := update.Bucket{Kind: update.Deny, Provider: n.Reading.Provider}
	switch r := n.Reading; {
	case !r.Trial:
		var suspect rollback.Version
		b.Part, suspect = suspected(&st)
		b.Digest = string(suspect.Digest)
	case r.Content == st.Content.Active.Digest:
		b.Part, b.Digest = rollback.Engine, string(r.Engine)
	default:
		b.Part, b.Digest = rollback.Content, string(r.Content)
	}
	d.updates.denials.AddMany(b, n.Words, n.Count)
}

// installed lists the slots of a provider.
func installed(st *rollback.State, well bool) (out []update.Installed) {
	for _, part := range rollback.Parts() {
		slots := st.Slots(part)
		for _, v := range []struct {
			slot string
			rollback.Version
		}{
			{"active", slots.Active},
			{"candidate", slots.Candidate},
			{"lkg", slots.LKG},
			{"former", slots.Former},
			{"factory", slots.Factory},
		} {
			if !v.None() {
				out = append(out, update.Installed{
					Provider: st.Provider, Part: part, Slot: v.slot, Digest: string(v.Digest),
					Healthy: well && v.slot == "active",
				})
			}
		}
	}
	return out
}

// countStart puts into buckets that the machine, or the core before this one, did not stay up. They are said again by
// a core that starts anew in the same boot.
func (d *Daemon) countStart(installed []config.Installed) {
	for _, x := range failures(&d.boot.in, &d.gap) {
		for _, in := range installed {
			st, known := d.store.State(in.ID)
			if !known || x.suspect.Provider != "" && x.suspect.Provider != in.ID {
				continue
			}
			b := update.Bucket{Kind: x.kind, Provider: in.ID}
			var v rollback.Version
			b.Part, v = blamed(&st, x.suspect)
			b.Digest = string(v.Digest)
			d.updates.buckets.Add(b, x.cause)
		}
	}
}

// failure is one thing that happened before this core began.
type failure struct {
	kind    string
	cause   string
	suspect boot.Crumb // zero: nobody in particular
}

// failures says what bootguard and the guard tell of the time before this core.
func failures(in *boot.Instruction, gap *link.Gap) (out []failure) {
	if in.Attempt > 1 {
		x := failure{kind: update.Boot, cause: "the machine did not start", suspect: in.Suspect}
		switch {
		case in.Suspect.Provider == "":
		case in.Suspect.Ready:
			x.cause += " after the provider had come up"
		default:
			x.cause += " while the provider was starting"
		}
		out = append(out, x)
	}
	if in.Recoveries > 0 {
		out = append(out, failure{
			kind: update.Recovery, cause: "the machine came up in its recovery environment", suspect: in.Suspect,
		})
	}
	switch gap.Cause {
	case link.None:
	case link.Exited:
		out = append(out, failure{kind: update.Boot, cause: fmt.Sprintf("the core ended with exit code %d", gap.Detail)})
	case link.Killed:
		out = append(out, failure{kind: update.Boot, cause: fmt.Sprintf("the core was ended by signal %d", gap.Detail)})
	case link.Stalled, link.Stopped:
		out = append(out, failure{kind: update.Boot, cause: "the core " + gap.Cause.String()})
	}
	return out
}

// blamed is what was being started when the machine ended, or what changed last.
func blamed(st *rollback.State, c boot.Crumb) (rollback.Part, rollback.Version) {
	for _, part := range rollback.Parts() {
		was := c.Engine
		if part == rollback.Content {
			was = c.Content
		}
		if v := st.Slots(part).Candidate; was != "" && !v.None() && v.String() == was {
			return part, v // on trial in its throw-away cage, or beside
		}
	}
	return suspected(st)
}
