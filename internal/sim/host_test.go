package sim_test

import (
	"testing"

	"github.com/keepout-security/keepout/internal/sim"
)

const steps = 1_000_000

// TestHost is supervisor, rollback, store and arbiter over a million steps.
func TestHost(t *testing.T) {
	t.Parallel()
	t.Logf("seed %d", *seed)
	h, err := sim.NewHost(*seed)
	for n := 0; err == nil && n < steps; n++ {
		if err = h.Step(); err != nil {
			t.Fatalf("make test-sim SEED=%d: step %d: %v", *seed, n, err)
		}
	}
	if err == nil {
		err = h.Rest()
	}
	if err != nil {
		t.Fatalf("make test-sim SEED=%d: %v", *seed, err)
	}
	t.Logf("%+v", h.Count)
	c := h.Count
	for what, n := range map[string]int{
		"crashes": c.Crashes, "storms": c.Storms, "breakers": c.Breakers, "promotions": c.Promotions,
		"rollbacks": c.Rollbacks, "refusals": c.Refusals, "quarantines": c.Quarantines, "power cuts": c.PowerCuts,
		"breakers that closed again": c.Restored, "providers too slow": c.Slow, "and fast again": c.FastAgain,
		"waits that a breaker ended": c.Released, "waits that audit ended": c.Relieved, "storms undone": c.Blamed,
	} {
		if n < 10 {
			t.Errorf("only %d %s in a million steps: the run shows nothing about them", n, what)
		}
	}
}
