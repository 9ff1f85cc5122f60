package sim_test

import (
	"flag"
	"testing"

	"github.com/keepout-security/keepout/internal/sim"
)

// seed begins every run; "make test-sim SEED=n" sets it. A run that fails names the seed of its own.
var seed = flag.Uint64("seed", 1, "where the simulations begin")

const powerCuts = 10_000

func TestPowerCut(t *testing.T) {
	t.Parallel()
	t.Logf("seeds %d to %d", *seed, *seed+powerCuts-1)
	each(t, func(s uint64) error { return sim.PowerCut(s) })
}

// each runs the histories of all seeds, on two goroutines.
func each(t *testing.T, run func(seed uint64) error) {
	t.Helper()
	for first := range uint64(2) {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			for s := *seed + first; s < *seed+powerCuts && !t.Failed(); s += 2 {
				if err := run(s); err != nil {
					t.Errorf("make test-sim SEED=%d: %v", s, err)
				}
			}
		})
	}
}
