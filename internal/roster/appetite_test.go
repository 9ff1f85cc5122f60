package roster_test

import (
	"testing"

	"github.com/keepout-security/keepout/internal/config"
)

// TestBurnerMakesWay: an engine that computes without end is seen to, and says so in the status; one that votes is not.
func TestBurnerMakesWay(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	g.apply(g.install("p", config.Provider{Content: g.content("c", "spins")}),
		g.install("q", config.Provider{Content: g.content("d", "one")}))
	g.runs("p", 0)
	g.runs("q", 0)
	g.until("it makes way", func() bool { return g.status("p").Yields })
	g.until("its neighbour, which has loaded, does not", func() bool { return !g.status("q").Yields })
	must(t, g.r.SetEnabled("p", false))
	g.until("its process is gone", func() bool { s := g.status("p"); return s.PID == 0 && !s.Yields })
}
