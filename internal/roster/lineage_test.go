package roster_test

import (
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/internal/config"
	"github.com/keepout-security/keepout/internal/roster"
	"github.com/keepout-security/keepout/internal/supervisor"
)

// votes waits until a provider votes with a content, and returns its process.
func (g *rig) votes(id, content string) int {
	g.t.Helper()
	var s roster.Status
	g.until(id+" votes with "+content, func() bool {
		s = g.status(id)
		return s.State == supervisor.Running && s.Content == "content: "+content
	})
	return s.PID
}

// problem returns the title of a problem, or "".
func (g *rig) problem(code string) string {
	for _, p := range g.r.Problems() {
		if p.Code == code {
			return p.Title
		}
	}
	return ""
}

// crash ends the process of a provider, which starts again, until it has happened n times.
func (g *rig) crash(id, content string, n int) {
	g.t.Helper()
	for range n {
		pid := g.votes(id, content)
		must(g.t, unix.Kill(pid, unix.SIGKILL))
		g.until("it is gone", func() bool { return g.status(id).PID != pid })
	}
}

// TestNewContent: content that passes its trial becomes active in a process that has loaded it before, and there is
// always one that votes.
func TestNewContent(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	in := g.install("p", config.Provider{Content: g.content("c", "one")})
	g.apply(in)
	old := g.votes("p", "one")
	silent := make(chan struct{})
	stop := make(chan struct{})
	go func() {
		defer close(silent)
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
			}
			if len(g.court.panel()) == 0 {
				t.Error("nobody votes")
				return
			}
		}
	}()
	g.content("c", "two")
	g.apply(in)
	g.votes("p", "two")
	close(stop)
	<-silent
	s := g.status("p")
	if v := s.Versions.Content; s.PID == old || s.Restarts != 0 || v.Active == v.Factory || v.Candidate != "" {
		t.Errorf("status %+v, versions %+v", s, s.Versions)
	}
	for _, code := range []string{"version.trial", "version.activated"} {
		g.until(code+" is noted", func() bool { return g.notes.has(code) })
	}
}

// TestBadContent: content that its engine does not load, or that ends it when it votes, never leaves the throw-away
// cage; it is not tried again, and what ran before goes on.
func TestBadContent(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"bad":   "it ended in its throw-away cage while it loaded",
		"crash": "it ended in its throw-away cage when it was asked about an-empty-file",
		"stuck": "an-empty-file: it took too long to vote",
	} {
		t.Run(text, func(t *testing.T) {
			t.Parallel()
			g := newRig(t)
			in := g.install("p", config.Provider{Content: g.content("c", "good")})
			g.apply(in)
			pid := g.votes("p", "good")
			g.content("c", text)
			g.apply(in)
			g.until("it is refused", func() bool { return strings.Contains(g.problem("KO-1706"), want) })
			g.until("the refusal is noted", func() bool { return g.notes.has("version.refused") })
			g.apply(in)
			g.content("c", "better")
			g.apply(in)
			g.votes("p", "better")
			if s := g.status("p"); s.Restarts != 0 || s.PID == pid {
				t.Errorf("status %+v", s)
			}
		})
	}
}

// TestCrashesRollBack: three crashes in ten minutes go back to the content before, within five seconds, and say why.
func TestCrashesRollBack(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	in := g.install("p", config.Provider{Content: g.content("c", "one")})
	g.apply(in)
	g.votes("p", "one")
	g.content("c", "two")
	g.apply(in)
	g.crash("p", "two", 3)
	g.votes("p", "one")
	if v := g.status("p").Versions; !strings.Contains(v.Rollback, ": 3 crashes in ") || v.Content.Candidate != "" {
		t.Errorf("versions %+v", v)
	}
	if g.problem("KO-1704") == "" || g.problem("KO-1706") == "" {
		t.Errorf("problems %v", g.r.Problems())
	}

	// It holds for the next core, too, and until an operator says otherwise.
	g.r.Close()
	g.r = g.open()
	g.apply(in)
	g.votes("p", "one")
	title := g.problem("KO-1706")
	if title == "" {
		t.Fatal("the refusal is forgotten")
	}
	for _, p := range g.r.Problems() {
		if p.Code == "KO-1706" {
			must(t, g.r.Allow("p", p.Fix[strings.LastIndex(p.Fix, " ")+1:]))
		}
	}
	g.votes("p", "two")
	must(t, g.r.RollBack("p", "", "tired of it"))
	g.votes("p", "one")
	if v := g.status("p").Versions; !strings.Contains(v.Rollback, "by an operator: tired of it") {
		t.Errorf("versions %+v", v)
	}
}

// TestNewEngine: a new engine is a version like any other.
func TestNewEngine(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	in := g.install("p", config.Provider{})
	g.apply(in)
	pid := g.runs("p", 0)
	factory := g.status("p").Versions.Engine.Active
	g.reseal("p", "another build")
	in = g.install("p", config.Provider{})
	g.apply(in)
	g.runs("p", pid)
	g.until("it is active", func() bool { return g.status("p").Versions.Engine.Active != factory })
	must(t, g.r.RollBack("p", "engine", "as it was"))
	g.until("the old one is active", func() bool {
		s := g.status("p")
		return s.Versions.Engine.Active == factory && s.State == supervisor.Running
	})
}
