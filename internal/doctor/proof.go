package doctor

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/control"
	"github.com/keepout-security/keepout/internal/health"
	"github.com/keepout-security/keepout/internal/roster"
	"github.com/keepout-security/keepout/internal/sensor"
	"github.com/keepout-security/keepout/internal/supervisor"
)

// maxTrials bounds the canaries of one run.
const maxTrials = 256

// plan says which canaries prove what: each provider's object on each watched path, once for each act that waits for
// it there, and a harmless file where nobody has one.
func plan(c *control.Checkup) []trial {
	var out []trial
	for _, w := range c.Watch {
		covered := false
		for i := range c.Providers {
			p := &c.Providers[i]
			for _, act := range []event.Type{event.Open, event.Exec} {
				if len(p.Selftest) > 0 && slices.Contains(w.Events, act) && slices.Contains(p.Events, act) {
					out = append(out, trial{provider: p.ID, watch: w.Path, act: act, content: p.Selftest})
					covered = true
				}
			}
		}
		if !covered && slices.Contains(w.Events, event.Open) {
			out = append(out, trial{watch: w.Path, act: event.Open, content: []byte("A canary of keepout doctor.\n")})
		}
	}
	for i := maxTrials; i < len(out); i++ {
		out[i].skipped = fmt.Sprintf("more than %d canaries would be needed", maxTrials)
	}
	return out
}

// result is what one canary shows about its provider.
type result uint8

const (
	proven      result = iota // it voted DENY
	ineffective               // it voted DENY, enforces, and the act was allowed all the same
	missed                    // it voted something else
	silent                    // it did not vote in time
	unasked                   // it was not asked
	unprovable                // it says that its content does not know the object
	skipped                   // the canary could not be laid out or touched
)

// ballot returns the provider's part in the record of its canary.
func (t *trial) ballot() *event.Ballot {
	if t.record == nil {
		return nil
	}
	for i := range t.record.Verdict.Ballots {
		if b := &t.record.Verdict.Ballots[i]; b.Provider == t.provider {
			return b
		}
	}
	return nil
}

// result judges one canary.
func (t *trial) result() result {
	b := t.ballot()
	switch {
	case t.skipped != "":
		return skipped
	case b == nil:
		return unasked
	case !b.Counted:
		return silent
	case b.Vote.Action == event.Abstain && strings.HasPrefix(b.Vote.Rule, event.SelftestRule):
		return unprovable
	case b.Vote.Action != event.Deny:
		return missed
	case b.Mode == event.Enforce && t.record.Verdict.Mode == event.Enforce && (t.record.Verdict.Allowed || !t.refused):
		return ineffective
	default:
		return proven
	}
}

// place says what was done where, for people.
func (t *trial) place() string { return t.act.String() + " in " + t.watch }

// checkProof judges every provider by its canaries.
func checkProof(f *facts) []Finding {
	n := notes{section: Proof}
	if f.checkup == nil {
		return nil // checkCore has said so
	}
	if len(f.checkup.Providers) == 0 {
		n.info("proof", "no provider is configured: there is nothing to prove")
	}
	for i := range f.checkup.Providers {
		p := &f.checkup.Providers[i]
		before := len(n.all)
		proveOne(&n, f, p)
		for j := range n.all[before:] {
			n.all[before+j].Provider = p.ID
		}
	}
	return n.all
}

// proveOne judges one provider.
func proveOne(n *notes, f *facts, p *control.CheckupProvider) {
	state := providerOf(f.status, p.ID)
	restart := control.Command(f.runDir, "provider list") + " shows the cause in full and the next try"
	switch {
	case state == nil:
		n.failure("proof", "KO-1301", p.ID+" is configured, but the core does not have it",
			control.Command(f.runDir, "config reload"))
		return
	case state.State == supervisor.Disabled:
		n.warning("proof", "KO-1303", p.ID+" is disabled and protects nothing",
			control.Command(f.runDir, "provider enable "+p.ID))
		return
	case state.State != supervisor.Running && state.State != supervisor.Degraded:
		cause, fix := health.Split(state.Cause)
		cause, _, _ = strings.Cut(cause, "\n")
		n.failure("proof", "KO-1301", fmt.Sprintf("%s does not vote (%s): %s", p.ID, state.State,
			orElse(cause, "it has not got so far")), orElse(fix, restart))
		return
	case !slices.Contains(p.Events, event.Open) && !slices.Contains(p.Events, event.Exec):
		n.info("proof", p.ID+" votes on nothing that waits for it, so a canary proves nothing")
		return
	case len(p.Selftest) == 0:
		why, fix := health.Split(p.Problem)
		n.warning("proof", "KO-1803", p.ID+" cannot be proved: "+orElse(why, "it has no self-test file"),
			orElse(fix, "ask its vendor for health.selftest; docs/write-a-provider.md says how"))
		return
	}
	proveByTrials(n, f, p)
}

func proveByTrials(n *notes, f *facts, p *control.CheckupProvider) {
	by := map[result][]*trial{}
	for i := range f.trials {
		if t := &f.trials[i]; t.provider == p.ID {
			by[t.result()] = append(by[t.result()], t)
		}
	}
	if len(by) == 0 {
		n.info("proof", p.ID+" is asked about nothing that is watched")
	}
	if t := by[proven]; len(t) > 0 {
		title := fmt.Sprintf("%s denied its canary: %s (%s)", p.ID, places(t), slowest(t))
		if rule := strange(t); rule != "" {
			title += fmt.Sprintf("; its rule is %q, so the journal takes it for a finding", rule)
		}
		n.ok("proof", title)
	}
	if t := by[ineffective]; len(t) > 0 {
		n.failure("proof", "KO-1806", fmt.Sprintf("%s denied its canary, but it was allowed all the same (%s): %s", p.ID,
			t[0].record.Verdict.Reason, places(t)), explainIt(f, t[0]))
	}
	if t := by[missed]; len(t) > 0 {
		n.failure("proof", "KO-1801", fmt.Sprintf("%s runs, but did not recognise its canary: it voted %s: %s", p.ID,
			strings.ToUpper(t[0].ballot().Vote.Action.String()), places(t)), explainIt(f, t[0])+"; reinstall the provider")
	}
	if t := by[silent]; len(t) > 0 {
		n.failure("proof", "KO-1802", fmt.Sprintf("%s runs, but its vote did not come (%s): %s", p.ID,
			t[0].ballot().Reason, places(t)), explainIt(f, t[0]))
	}
	if t := by[unasked]; len(t) > 0 && f.lost(p.ID) {
		n.failure("proof", "KO-1802", fmt.Sprintf("%s ended while it was put to the test: %s", p.ID, places(t)),
			control.Command(f.runDir, "provider list")+" shows the cause in full and the next try")
	} else if len(t) > 0 {
		n.failure("proof", "KO-1804", fmt.Sprintf("%s was not asked about its canary: %s", p.ID, places(t)),
			"see whether the path is watched (below), and "+control.Command(f.runDir, "config reload"))
	}
	if t := by[unprovable]; len(t) > 0 {
		n.warning("proof", "KO-1803", fmt.Sprintf("%s is not provable: %s", p.ID,
			strings.Trim(strings.TrimPrefix(t[0].ballot().Vote.Rule, event.SelftestRule), " ()")),
			"give it a content that knows its self-test object")
	}
	if t := by[skipped]; len(t) > 0 && len(t) < count(by) {
		n.info("proof", fmt.Sprintf("%s was put to the test elsewhere only, not: %s: %s", p.ID, places(t), t[0].skipped))
	} else if len(t) > 0 {
		n.warning("proof", "KO-1805", fmt.Sprintf("%s was not put to the test: %s: %s", p.ID, places(t), t[0].skipped),
			orElse(tryRoot(f), "see why, and run it again"))
	}
}

func count(by map[result][]*trial) (n int) {
	for _, t := range by {
		n += len(t)
	}
	return n
}

// lost reports whether a provider votes no more that did before the canaries.
func (f *facts) lost(id string) bool {
	if f.after == nil {
		return false
	}
	p := providerOf(f.after, id)
	return p == nil || p.State != supervisor.Running && p.State != supervisor.Degraded ||
		p.Restarts != providerOf(f.status, id).Restarts
}

// explainIt is the command that shows a canary's verdict.
func explainIt(f *facts, t *trial) string { return control.Command(f.runDir, "explain "+t.path) }

// tryRoot is advice for who could not write somewhere.
func tryRoot(f *facts) string { return "sudo " + control.Command(f.runDir, "doctor") }

// places lists what was done where, by path.
func places(trials []*trial) string {
	var order []string
	acts := map[string][]string{}
	for _, t := range trials {
		if acts[t.watch] == nil {
			order = append(order, t.watch)
		}
		acts[t.watch] = append(acts[t.watch], t.act.String())
	}
	out := make([]string, 0, len(order))
	for _, watch := range order {
		out = append(out, list(acts[watch])+" in "+watch)
	}
	return strings.Join(out, ", ")
}

// slowest is the longest time that a vote took.
func slowest(trials []*trial) string {
	longest := slices.MaxFunc(trials, func(a, b *trial) int { return cmp.Compare(a.ballot().Latency, b.ballot().Latency) })
	return longest.ballot().Latency.Round(10 * time.Microsecond).String()
}

// strange returns a rule that does not say that it is a self-test, or "".
func strange(trials []*trial) string {
	for _, t := range trials {
		if b := t.ballot(); !b.Vote.Selftest() {
			return b.Vote.Rule
		}
	}
	return ""
}

func providerOf(s *control.Status, id string) *roster.Status {
	for i := range s.Providers {
		if s.Providers[i].ID == id {
			return &s.Providers[i]
		}
	}
	return nil
}

// checkWatches says for each configured path whether an act under it was really seen.
func checkWatches(f *facts) []Finding {
	n := notes{section: Watch}
	if f.checkup == nil {
		return nil // checkCore has said so
	}
	for i := range f.checkup.Watch {
		w := &f.checkup.Watch[i]
		before := len(n.all)
		watchOne(&n, f, w)
		for j := range n.all[before:] {
			n.all[before+j].Subject = w.Path
		}
	}
	return n.all
}

func watchOne(n *notes, f *facts, w *control.CheckupWatch) {
	seen, touched, why, file := 0, 0, "", false
	for i := range f.trials {
		t := &f.trials[i]
		switch {
		case t.watch != w.Path:
		case t.skipped != "":
			why = t.skipped
		case t.record != nil:
			seen++
			touched++
			file = file || t.provider == "" && t.content == nil
		default:
			touched++
		}
	}
	fix := control.Command(f.runDir, "config reload") + " marks it again"
	switch {
	case remote(f.status, w.Path):
		n.info("watch", w.Path+" is remote: its files are allowed unasked (KO-1201)")
	case file:
		n.ok("watch", w.Path+": the open of a file that lies there was seen")
	case seen > 0 && seen == touched:
		n.ok("watch", fmt.Sprintf("%s: every canary was seen (%d)", w.Path, seen))
	case seen > 0:
		n.warning("watch", "KO-1804", fmt.Sprintf("%s: of %d canaries only %d were seen", w.Path, touched, seen),
			"see above which provider was not asked; "+fix)
	case touched > 0 && counted(f) == 0:
		n.failure("watch", "KO-1804", w.Path+" is not watched: a canary was opened there, and nothing was counted", fix)
	case touched > 0 && voting(f):
		n.failure("watch", "KO-1804", w.Path+" is not watched: a canary was opened there, and nobody was asked", fix)
	case touched > 0:
		n.info("watch", w.Path+": the open of a canary was counted, but no provider is there to be asked")
	case why != "":
		n.warning("watch", "KO-1805", w.Path+": not known whether it is watched: "+why, tryRoot(f))
	default:
		n.info("watch", w.Path+": nothing waits for a verdict there, so a canary proves nothing")
	}
}

// remote reports whether the core says that this path lies on somebody else's file system.
func remote(s *control.Status, path string) bool {
	return slices.ContainsFunc(s.Watching, func(w sensor.Filesystem) bool { return w.Path == path && w.Remote })
}

// voting reports whether some provider that may be asked about opens or execs is up.
func voting(f *facts) bool {
	return slices.ContainsFunc(f.checkup.Providers, func(p control.CheckupProvider) bool {
		s := providerOf(f.status, p.ID)
		return s != nil && (s.State == supervisor.Running || s.State == supervisor.Degraded) &&
			(slices.Contains(p.Events, event.Open) || slices.Contains(p.Events, event.Exec))
	})
}

// counted is how many events the core has seen while the canaries were touched, at the least; it may count others'.
func counted(f *facts) uint64 {
	if f.after == nil {
		return 0
	}
	return events(f.after) - events(f.status)
}

func events(s *control.Status) (n uint64) {
	for _, c := range s.Sensor.Unasked {
		n += c
	}
	v := s.Verdicts
	return n + v.Allowed + v.Denied + v.Timeout + v.Unavailable + v.Unmatched
}
