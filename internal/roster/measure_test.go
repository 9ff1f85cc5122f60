package roster_test

import (
	"os"
	"testing"

	"github.com/keepout-security/keepout/internal/config"
	"github.com/keepout-security/keepout/internal/rollback"
	"github.com/keepout-security/keepout/internal/roster"
)

// TestMeasures: what runs is measured under the digests that it runs with, a candidate apart; and one that is withdrawn
// goes, without a change of what is active.
func TestMeasures(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	in := g.install("p", config.Provider{Content: g.content("c", "one")})
	g.apply(in)
	g.votes("p", "one")
	first := g.measures(1)[0]
	if !first.Well || first.Trial || first.Usage.Ran == 0 || first.Usage.Memory == 0 || first.Content == "" {
		t.Errorf("what runs: %+v", first)
	}
	g.content("c", "two")
	g.try(in)
	g.beside("p")
	both := g.measures(2)
	c := both[1]
	if both[0].Serial != first.Serial || !c.Trial || c.Serial == first.Serial || c.Part != rollback.Content ||
		c.Content == first.Content || c.Engine != first.Engine {
		t.Errorf("beside: %+v", both)
	}
	must(t, g.r.Withdraw("p", rollback.Content, first.Content, "it is no candidate"))
	must(t, g.r.Withdraw("p", rollback.Content, c.Content, "the rollout was halted"))
	g.until("the candidate is gone", func() bool {
		return len(g.r.Measures()) == 1 && g.status("p").Versions.Content.Candidate == ""
	})
	g.until("it is noted", func() bool { return g.notes.has("version.withdrawn") })
	if after := g.measures(1)[0]; after.Serial != first.Serial || !after.Well {
		t.Errorf("what is active changed: %+v", after)
	}
	if err := g.r.Withdraw("q", rollback.Content, c.Content, ""); err == nil {
		t.Error("a provider that is not there took it back")
	}
}

// TestWithdrawnWhileItLoads: a candidate is withdrawn while it is looked at in its throw-away cage, which ends.
func TestWithdrawnWhileItLoads(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	in := g.install("p", config.Provider{Content: g.content("c", "one")})
	g.apply(in)
	g.votes("p", "one")
	g.content("c", "slow")
	g.try(in)
	g.until("it is tried", func() bool { return g.status("p").Versions.Trial != "" })
	st, _ := g.store.State("p")
	must(t, g.r.Withdraw("p", rollback.Content, st.Content.Candidate.Digest, "the rollout was halted"))
	g.until("nothing is on trial", func() bool {
		st, _ := g.store.State("p")
		_, err := os.Stat(g.state + "/providers/p.trial")
		return st.Content.Candidate.None() && os.IsNotExist(err)
	})
	if st, _ := g.store.State("p"); len(st.Content.Refused) > 0 {
		t.Errorf("it was refused: %+v", st.Content.Refused)
	}
}

// measures returns what runs, once there are n of them and the active one is well.
func (g *rig) measures(n int) (out []roster.Measure) {
	g.t.Helper()
	g.until("there are measures", func() bool {
		out = g.r.Measures()
		return len(out) == n && out[0].Well
	})
	return out
}
