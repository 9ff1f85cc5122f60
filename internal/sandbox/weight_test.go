package sandbox

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/keepout-security/keepout/internal/testenv"
)

// TestUsedAgain: a group that a core left behind when it died, with a provider in it that made way, makes way for
// nobody when it is used again.
func TestUsedAgain(t *testing.T) {
	testenv.Need(t, testenv.Root)
	g := NewGroups(stateDir(t))
	t.Cleanup(g.Close)
	left, err := g.create(8, Limits{})
	must(t, err)
	if left.cpu == "" {
		t.Logf("no cpu controller here: %v", g.usable[cpuController])
		left.remove()
		return
	}
	// Where the kernel has no cpu.idle, the weight says the same.
	says := func() string {
		b, err := os.ReadFile(filepath.Join(left.cpu, "cpu.idle"))
		for _, name := range []string{"cpu.shares", "cpu.weight"} {
			if err != nil {
				b, err = os.ReadFile(filepath.Join(left.cpu, name))
			}
		}
		must(t, err)
		return string(b)
	}
	fresh := says()
	must(t, left.idle(true))
	if says() == fresh {
		t.Fatalf("it does not make way: %q", fresh)
	}
	again, err := g.create(8, Limits{})
	must(t, err)
	if got := says(); got != fresh {
		t.Errorf("used again, it is %q, want %q", got, fresh)
	}
	again.remove()
	left.gone.Store(true)
	g.weigh(-1) // as its core did not
}
