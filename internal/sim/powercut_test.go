package sim_test

import (
	"flag"
	"os"
	"runtime/debug"
	"testing"

	"github.com/keepout-security/keepout/internal/sim"
)

// seed begins every run; "make test-sim SEED=n" sets it. A run that fails names the seed of its own.
var seed = flag.Uint64("seed", 1, "where the simulations begin")

func TestMain(m *testing.M) {
	debug.SetGCPercent(800) // what a history leaves is small and at once garbage
	os.Exit(m.Run())
}

const (
	powerCuts = 10_000
	damages   = 2_000
)

func TestPowerCut(t *testing.T) {
	t.Parallel()
	t.Logf("seeds %d to %d", *seed, *seed+powerCuts-1)
	each(t, powerCuts, sim.PowerCut)
}

func TestDamage(t *testing.T) {
	t.Parallel()
	t.Logf("seeds %d to %d", *seed, *seed+damages-1)
	each(t, damages, sim.Damage)
}

// each runs the histories of all seeds, on two goroutines.
func each(t *testing.T, n uint64, run func(seed uint64) error) {
	t.Helper()
	for first := range uint64(2) {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			for s := *seed + first; s < *seed+n && !t.Failed(); s += 2 {
				if err := run(s); err != nil {
					t.Errorf("make test-sim SEED=%d: %v", s, err)
				}
			}
		})
	}
}
