package rollout

import (
	"testing"
	"time"
)

// TestRingOpensAtTheNextLook: once all conditions hold, the next ring opens at the next look: within 30 s, or within a
// twentieth of a soak that is short.
func TestRingOpensAtTheNextLook(t *testing.T) {
	t.Parallel()
	for soak, most := range map[time.Duration]time.Duration{
		40 * time.Second: 2 * time.Second, 10 * time.Minute: block, 30 * time.Minute: block, 7 * time.Hour: block,
	} {
		b := newBench(t, 200, func(_ *Spec, n *Numbers) { n.Soak = soak })
		for minutes := 0; b.s.Open < 0 || b.s.Waits() != ""; minutes++ {
			if b.s.Open > 0 || minutes > 1000 {
				t.Fatalf("soak %v: ring %d opened while %q", soak, b.s.Open, b.s.Waits())
			}
			b.minute()
		}
		begun := b.now
		for b.s.Open == 0 && b.now.Sub(begun) < time.Hour {
			b.now = b.now.Add(time.Second)
			b.step(Input{Kind: Tick}, -1)
		}
		if took := b.now.Sub(begun); took > most {
			t.Errorf("soak %v: ring 1 opened after %v, want %v at most", soak, took, most)
		}
	}
}
