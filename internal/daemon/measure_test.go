package daemon

import (
	"slices"
	"strings"
	"testing"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/boot"
	"github.com/keepout-security/keepout/internal/docket"
	"github.com/keepout-security/keepout/internal/guard/link"
	"github.com/keepout-security/keepout/internal/rollback"
	"github.com/keepout-security/keepout/internal/roster"
	"github.com/keepout-security/keepout/internal/session"
)

// TestReading: nothing that a member counts is lost on the way to the report.
func TestReading(t *testing.T) {
	t.Parallel()
	m := &roster.Measure{
		Provider: "p", Serial: 3, Engine: "e", Content: "c", Counters: session.Counters{Answered: 5, Late: 2},
		Denied: docket.Denied{Votes: 4, Owned: 1, Rules: map[docket.Denial]uint64{
			{Type: event.Open, Rule: "x"}: 3, {Type: event.Exec}: 1,
		}},
	}
	m.Usage.CPU, m.Usage.Ran, m.Usage.Memory = 1, 2, 3
	r := reading(m, false)
	if r.Verdicts != 5 || r.Timeouts != 2 || r.Denies != 4 || r.Critical != 1 || r.CPU != 1 || r.Ran != 2 ||
		r.Memory != 3 || r.Rules["denies open by x"] != 3 || len(r.Rules) != 2 || r.Serial != 3 {
		t.Errorf("%+v", r)
	}
}

// TestFailuresAreCounted: what bootguard and the guard tell of the time before becomes incidents, with the provider
// that was being started.
func TestFailuresAreCounted(t *testing.T) {
	t.Parallel()
	suspect := boot.Crumb{Provider: "acme-edr", Content: "4.2"}
	for name, c := range map[string]struct {
		in    boot.Instruction
		gap   link.Gap
		kinds []string
		says  string
	}{
		"a good start":  {in: boot.Instruction{Attempt: 1}},
		"no bootguard":  {},
		"a failed boot": {in: boot.Instruction{Attempt: 2}, kinds: []string{"boot"}, says: "did not start"},
		"while it started": {
			in: boot.Instruction{Attempt: 3, Suspect: suspect}, kinds: []string{"boot"}, says: "was starting",
		},
		"after a visit": {
			in: boot.Instruction{Attempt: 4, Recoveries: 1}, kinds: []string{"boot", "recovery"}, says: "recovery environment",
		},
		"the core crashed": {gap: link.Gap{Cause: link.Killed, Detail: 11}, kinds: []string{"boot"}, says: "signal 11"},
		"the core hung":    {gap: link.Gap{Cause: link.Stalled}, kinds: []string{"boot"}, says: "stalled"},
	} {
		got := failures(&c.in, &c.gap)
		var kinds, words []string
		for _, x := range got {
			kinds, words = append(kinds, x.kind), append(words, x.cause)
		}
		if !slices.Equal(kinds, c.kinds) || !strings.Contains(strings.Join(words, "; "), c.says) {
			t.Errorf("%s: %v %v", name, kinds, words)
		}
	}
}

// TestBlamed: the candidate that was being tried, by what the crumb calls it; else what changed last.
func TestBlamed(t *testing.T) {
	t.Parallel()
	version := func(label string) rollback.Version {
		return rollback.Version{Digest: rollback.Digest(strings.Repeat(label, 64)), Label: label}
	}
	st := rollback.New("p")
	st.Engine.Active, st.Content.Active, st.Content.Candidate = version("a"), version("b"), version("c")
	st.Engine.Changed, st.Content.Changed = 1, 2
	for name, c := range map[string]struct {
		crumb boot.Crumb
		part  rollback.Part
		label string
	}{
		"nobody":      {boot.Crumb{}, rollback.Content, "b"},
		"active":      {boot.Crumb{Engine: "a", Content: "b"}, rollback.Content, "b"},
		"a candidate": {boot.Crumb{Engine: "a", Content: "c"}, rollback.Content, "c"},
	} {
		if part, v := blamed(&st, c.crumb); part != c.part || v.Label != c.label {
			t.Errorf("%s: %s %s", name, part, v)
		}
	}
	st.Engine.Changed = 3
	if part, v := blamed(&st, boot.Crumb{}); part != rollback.Engine || v.Label != "a" {
		t.Errorf("the engine changed last: %s %s", part, v)
	}
}

// TestInstalled: only what is active is well.
func TestInstalled(t *testing.T) {
	t.Parallel()
	st := rollback.New("p")
	st.Content.Active = rollback.Version{Digest: "x"}
	st.Content.LKG, st.Content.Candidate = st.Content.Active, rollback.Version{Digest: "y"}
	for _, well := range []bool{true, false} {
		list := installed(&st, well)
		if len(list) != 3 {
			t.Fatalf("%+v", list)
		}
		for _, i := range list {
			if i.Healthy != (well && i.Slot == "active") || i.Provider != "p" || i.Part != rollback.Content {
				t.Errorf("%+v", i)
			}
		}
	}
}
