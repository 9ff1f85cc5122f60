package demo

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keepout-security/keepout/internal/control"
	"github.com/keepout-security/keepout/internal/health"
	"github.com/keepout-security/keepout/internal/roster"
	"github.com/keepout-security/keepout/internal/supervisor"
)

func TestRefused(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		r    result
		ok   bool
	}{
		{"denied", result{code: 1, out: "cat: x: Operation not permitted\n"}, true},
		{"by the shell", result{code: 126, out: "sh: 1: x: Operation not permitted\n"}, true},
		{"not refused", result{out: eicarMarker}, false},
		{"a lie", result{out: "cat: x: Operation not permitted\n"}, false},
		{"by permissions", result{code: 1, out: "cat: x: Permission denied\n"}, false},
		{"ran as a script", result{code: 127, out: "sh: 1: X5O: not found\n"}, false},
		{"never ended", result{code: 1, out: "Operation not permitted", err: errors.New("late")}, false},
	} {
		if err := c.r.want(refused); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

const explanation = `DENIED open /tmp/keepout-demo-1/playground/eicar.com
  2026-11-22 16:48:29.718  cat[11613] uid=0  answered in 405µs  #1a20428c19300002
  hashlist  enforce  deny     Eicar-Test-File  405µs  <- decided
  clamav    enforce  no vote  (cancelled)      405µs
  reason denied, decided by hashlist, host in enforce mode, tier B (fanotify)
`

func TestExplained(t *testing.T) {
	t.Parallel()
	both := []string{"hashlist", "clamav"}
	with := func(old, text string) result {
		return result{code: 5, out: strings.Replace(explanation, old, text, 1)}
	}
	for _, c := range []struct {
		name     string
		r        result
		deciders []string
		ok       bool
	}{
		{"as it should be", result{code: 5, out: explanation}, both, true},
		{"another decider", result{code: 5, out: explanation}, []string{"clamav"}, false},
		{"allowed", result{code: 0, out: explanation}, both, false},
		{"would deny", with("DENIED", "WOULD "), both, false},
		{"nobody named", with("decided by", ""), both, false},
		{"a vote is missing", with("  clamav ", "  other "), both, false},
		{"by the platform", with("by hashlist", "by platform"), both, false},
	} {
		if err := explained(c.r, both, c.deciders); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestHealthy(t *testing.T) {
	t.Parallel()
	status := func(state supervisor.State, problems ...health.Problem) *control.Status {
		return &control.Status{Problems: problems, Providers: []roster.Status{
			{ID: "hashlist", State: supervisor.Running}, {ID: "yara", State: state},
		}}
	}
	s := &show{ids: []string{"hashlist", "yara"}}
	for _, c := range []struct {
		name string
		s    *control.Status
		ok   bool
	}{
		{"healthy", status(supervisor.Running), true},
		{"information", status(supervisor.Running, health.Problem{Severity: health.Info}), true},
		{"loading", status(supervisor.Loading), false},
		{"problem", status(supervisor.Running, health.Problem{Severity: health.Warning}), false},
		{"empty", &control.Status{}, false},
	} {
		if err := s.healthy(c.s); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestOpens(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "x")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var none, fine, bad opens
	if none.held() == nil {
		t.Error("no open counts as fine")
	}
	fine.once(file)
	if err := fine.held(); err != nil || fine.longest.Load() == 0 {
		t.Errorf("one open: %v, longest %d", err, fine.longest.Load())
	}
	bad.once(file)
	bad.once(filepath.Join(dir, "y"))
	bad.once(file)
	if err := bad.held(); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "1 of 3") {
		t.Errorf("one of three failed: %v", err)
	}
}

func TestRelayTakesTheNewest(t *testing.T) {
	t.Parallel()
	lines := make(chan string, 3)
	if _, some := newest(lines); some {
		t.Error("a line out of nothing")
	}
	lines <- "old"
	lines <- "new"
	if line, some := newest(lines); line != "new" || !some {
		t.Errorf("%q, %v", line, some)
	}
	close(lines)
	if _, some := newest(lines); some {
		t.Error("a line after the end")
	}
}

func TestTellerCutsAndPaints(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	tell := &teller{out: &b, width: 13, paint: func(code, text string) string { return "<" + code + text + ">" }}
	tell.output("DENIED open /a/long/path\nshort\n")
	if want := "   <31;1DENIED> op…\n   short\n"; b.String() != want {
		t.Errorf("%q, want %q", b.String(), want)
	}
}

// TestEicarIsNowhere: no file of this package is taken for the test file, yet the file is the real one.
func TestEicarIsNowhere(t *testing.T) {
	t.Parallel()
	whole := eicar()
	begins, ends := bytes.HasPrefix(whole, []byte("X5O!P%@AP[4")), bytes.HasSuffix(whole, []byte("!$H+H*"))
	if len(whole) != 68 || !begins || !ends {
		t.Errorf("not the EICAR test file: %d bytes", len(whole))
	}
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) == 0 {
		t.Fatal("no source:", err)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(text, whole) {
			t.Errorf("%s contains it", name)
		}
	}
}
