package roster_test

import (
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/keepout-security/keepout/internal/boot"
	"github.com/keepout-security/keepout/internal/config"
	"github.com/keepout-security/keepout/internal/roster"
	"github.com/keepout-security/keepout/internal/supervisor"
)

// crumbs remembers what was started.
type crumbs struct {
	mu  sync.Mutex
	all []boot.Crumb
}

func (c *crumbs) leave(one boot.Crumb) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = append(c.all, one)
}

func (c *crumbs) list() []boot.Crumb {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.all)
}

// again closes the roster and opens it as the next boot would, with a caution for every provider.
func (g *rig) again(c roster.Caution, to *crumbs) {
	g.t.Helper()
	g.r.Close()
	g.r = g.openWith(func(rc *roster.Config) {
		rc.Caution = func(string) roster.Caution { return c }
		rc.Crumb = to.leave
	})
}

// TestACautiousBoot: after a boot that failed, a provider runs what was proven, or what came with the installation;
// nothing new is tried; and the next boot that is as configured goes on with what was active.
func TestACautiousBoot(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	in := g.install("p", config.Provider{Content: g.content("c", "one")})
	g.apply(in)
	g.votes("p", "one")
	g.content("c", "two")
	g.apply(in)
	g.votes("p", "two")

	left := &crumbs{}
	g.again(roster.Caution{Pinned: true}, left)
	g.content("c", "three")
	g.apply(in)
	g.votes("p", "one")
	g.crash("p", "one", 4) // which would roll back, if it were the active version's
	g.votes("p", "one")
	if s := g.status("p"); s.Versions.Content.Candidate != "" || s.Versions.Rollback != "" {
		t.Errorf("it was decided about versions that do not run: %+v", s.Versions)
	}
	crumb := left.list()[0]
	if crumb.Provider != "p" || crumb.Engine == "" || crumb.Content == "" || crumb.Ready {
		t.Errorf("before the start: %+v", crumb)
	}
	g.until("a crumb says that it came up", func() bool {
		return slices.ContainsFunc(left.list(), func(c boot.Crumb) bool { return c.Ready })
	})

	g.again(roster.Caution{}, left)
	g.content("c", "two")
	g.apply(in)
	g.votes("p", "two")
}

// TestASafeBoot: no provider is started, nor a new version tried, until somebody enables it.
func TestASafeBoot(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	in := g.install("p", config.Provider{Content: g.content("c", "one")})
	g.apply(in)
	g.votes("p", "one")
	left := &crumbs{}
	g.again(roster.Caution{Off: true}, left)
	g.content("c", "two")
	g.apply(in)
	g.apply(in) // a reload does not change it
	g.until("it is disabled", func() bool { return g.status("p").State == supervisor.Disabled })
	g.quiet("p")
	if all := left.list(); len(all) > 0 {
		t.Errorf("something was started: %+v", all)
	}
	must(t, g.r.SetEnabled("p", true))
	g.until("it votes", func() bool { return strings.HasPrefix(g.status("p").Content, "content: ") })
}
