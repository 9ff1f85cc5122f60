package guard

import (
	"debug/elf"
	"path/filepath"
	"testing"

	"github.com/keepout-security/keepout/internal/testenv"
)

// TestGuardIsStatic: it loads no library, which would be a file that it opens.
func TestGuardIsStatic(t *testing.T) {
	t.Parallel()
	f, err := elf.Open(filepath.Join(testenv.Build(t, "./cmd/keepoutd"), "keepoutd"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			t.Errorf("keepoutd has a %v", p.Type)
		}
	}
}
