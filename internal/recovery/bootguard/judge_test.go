//go:build linux

package bootguard_test

import (
	"bufio"
	"context"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keepout-security/keepout/internal/boot"
	"github.com/keepout-security/keepout/internal/recovery/bootguard"
)

// core stands for a core: it answers every request with a status, and counts an open and an exec in the watched folder
// each time if it is not blind.
type core struct {
	watched string
	blind   bool
	asked   atomic.Int64
}

func (c *core) listen(t *testing.T, runDir string) {
	t.Helper()
	var config net.ListenConfig
	l, err := config.Listen(t.Context(), "unix", filepath.Join(runDir, "keepout.sock"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			c.answer(conn)
		}
	}()
}

func (c *core) answer(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	if _, err := bufio.NewReader(conn).ReadString('\n'); err != nil {
		return
	}
	n := c.asked.Add(1)
	seen := uint64(2 * n)
	if c.blind {
		seen = 2
	}
	_ = json.NewEncoder(conn).Encode(map[string]any{"end": true, "status": map[string]any{
		"since":     time.Now().Add(-time.Hour),
		"watching":  []map[string]any{{"path": c.watched}, {"path": "/remote", "remote": true}},
		"providers": []map[string]any{{"id": "a", "state": "running", "mode": "enforce"}},
		"verdicts":  map[string]any{"allowed": seen}, "sensor": map[string]any{"unasked": map[string]any{"outside": 1}},
	}})
}

func judged(t *testing.T, c *core, wait time.Duration) (*host, error) {
	t.Helper()
	h := newHost(t)
	// A socket's path is bounded, and that of a test's folder may be longer.
	dir, err := os.MkdirTemp("", "kb")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	h.boot()
	h.write("proc/uptime", "123.45 200.00\n")
	g := &bootguard.Guard{Root: h.root, RunDir: dir, Now: time.Now}
	if data, err := os.ReadFile(filepath.Join(h.run, bootguard.InstructionFile)); err != nil {
		t.Fatal(err)
	} else if err := os.WriteFile(filepath.Join(dir, bootguard.InstructionFile), data, 0o600); err != nil {
		t.Fatal(err)
	}
	if c != nil {
		c.watched = t.TempDir()
		c.listen(t, dir)
	}
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	err = g.AwaitGood(ctx, boot.DefaultNumbers())
	if c != nil {
		if left, err := os.ReadDir(c.watched); len(left) > 0 || err != nil {
			t.Errorf("canaries are left: %v %v", left, err)
		}
	}
	return h, err
}

// TestGoodIsSeenAtTheCore: with a core that counts the canaries the boot is good; with one that answers and sees
// nothing, or with none, it is not.
func TestGoodIsSeenAtTheCore(t *testing.T) {
	t.Parallel()
	h, err := judged(t, &core{}, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if s := h.dir.State().State; s.Boot != "" || len(s.History) == 0 || s.History[len(s.History)-1].What != boot.Passed {
		t.Errorf("not marked as good: %+v", s)
	}
	h, err = judged(t, &core{blind: true}, time.Second)
	if err == nil || !strings.Contains(err.Error(), "did not see its own open") {
		t.Errorf("a blind sensor: %v", err)
	}
	if s := h.dir.State().State; s.Boot == "" {
		t.Error("a blind sensor's boot is marked as good")
	}
	if _, err = judged(t, nil, time.Second); err == nil || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("no core: %v", err)
	}
}
