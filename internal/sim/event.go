package sim

import (
	"fmt"
	"time"

	"github.com/keepout-security/keepout/internal/rollback"
	"github.com/keepout-security/keepout/internal/supervisor"
)

// budget is every provider's.
const budget = 50 * time.Millisecond

// event lets a caller come, now and then several at about the same time, and what comes of it have its consequences.
func (h *Host) event() error {
	b := &burst{h: h, now: h.clock()}
	n := 1
	if h.rng.IntN(16) == 0 {
		n += h.rng.IntN(8)
	}
	for range n {
		b.moves = append(b.moves, move{at: b.now + time.Duration(h.rng.IntN(5*n))*time.Millisecond})
	}
	h.Count.Events += n
	if err := b.play(); err != nil {
		return wrong(err)
	}
	h.now = h.first.Add(b.now)
	for _, g := range h.guests {
		if g.dying {
			g.dying = false
			if err := h.crash(g, "signal 11"); err != nil {
				return err
			}
		}
		if h.rng.IntN(2) > 0 { // the others hear of it later
			if err := h.tell(g); err != nil {
				return err
			}
		}
	}
	return nil
}

// tell lets rollback hear what became of a provider's standing. It may be about versions that are gone by now.
func (h *Host) tell(g *guest) error {
	for len(g.standing.news) > 0 {
		in := g.standing.news[0]
		g.standing.news = g.standing.news[1:]
		if in.Kind == rollback.DenyStorm && g.st.Runnable() && in.Generation == g.st.Generation {
			h.Count.Blamed++
		}
		if err := h.feed(g, in); err != nil {
			return err
		}
		if in.Kind == rollback.DenyStorm && g.run != nil && g.run.generation == in.Generation {
			return wrong(fmt.Errorf("%s: after a deny storm the same versions run", g.id))
		}
	}
	return nil
}

// asked reports whether callers' questions are put to a provider.
func (g *guest) asked() bool { return g.run != nil && !g.dying && g.sup.State == supervisor.Running }
