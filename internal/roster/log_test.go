package roster_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keepout-security/keepout/internal/config"
)

// TestLog: what a provider wrote is kept after its end, bounded, and not where it can change it.
func TestLog(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	in := g.install("p", config.Provider{Settings: map[string]string{"fault": "refuses"}})
	in.Limits.Log = 4 << 10
	g.apply(in)
	g.until("it has been tried three times", func() bool { return g.status("p").Restarts >= 2 })
	text, err := g.r.Log("p", 1<<20)
	must(t, err)
	if n := strings.Count(string(text), "provider: load: will not load\n"); n < 2 {
		t.Errorf("the log has %d of its last words: %s", n, text)
	}
	if short, err := g.r.Log("p", 5); err != nil || string(short) != "load\n" {
		t.Errorf("the last five bytes are %q, %v", short, err)
	}
	if _, err := g.r.Log("none", 1); err == nil {
		t.Error("there is a log of a provider that is not there")
	}
	var size int64
	files, err := filepath.Glob(filepath.Join(g.state, "logs", "p*"))
	must(t, err)
	for _, f := range files {
		info, err := os.Stat(f)
		must(t, err)
		size += info.Size()
	}
	if size == 0 || size > 4<<10+2<<10 {
		t.Errorf("%d bytes on disk, limit 4096 and one line", size)
	}
}
