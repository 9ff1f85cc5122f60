package fetch

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/keepout-security/keepout/internal/rollback"
	"github.com/keepout-security/keepout/internal/update"
)

func someReport() *update.Report {
	return &update.Report{
		Core:      "core",
		Installed: []update.Installed{{Provider: "p", Part: rollback.Content, Slot: "active", Digest: "d", Healthy: true}},
		Asks:      []update.Ask{{Rollout: "r", Digest: "e", Nonce: []byte("12345678")}},
		Counters: []update.Counters{{
			Provider: "p", Engine: "e", Content: "d", Verdicts: 100, Timeouts: 2, Denies: 5, Critical: 1, Minutes: 10, CPU: 30,
			Memory: 1 << 20, P99: 0.25,
		}},
		Buckets: []update.Bucket{{Signature: "deny-1", Kind: update.Deny, Provider: "p", Digest: "d", Count: 5}},
	}
}

// TestNewsSaysAllOnce: each count of the core's report is in one check-in; what has been answered is not said again.
func TestNewsSaysAllOnce(t *testing.T) {
	t.Parallel()
	r := someReport()
	m, next := said{}.news(r, true)
	if len(m.GetCounters()) != 1 || len(m.GetBuckets()) != 1 || len(m.GetAsks()) != 1 || len(m.GetInstalled()) != 1 {
		t.Fatalf("said %v", m)
	}
	c := m.GetCounters()[0]
	if c.GetVerdicts() != 100 || c.GetVerdictTimeouts() != 2 || c.GetDenies() != 5 || c.GetCriticalDenies() != 1 ||
		c.GetMinutes() != 10 || c.GetCpuSeconds() != 30 || c.GetMemoryBytes() != 1<<20 || c.GetLatencyP99Ms() != 250 {
		t.Errorf("counters %v", c)
	}
	if m, _ := next.news(r, true); len(m.GetCounters())+len(m.GetBuckets()) != 0 {
		t.Errorf("said again: %v", m)
	}
	r.Counters[0].Denies, r.Counters[0].Minutes, r.Counters[0].CPU, r.Buckets[0].Count = 7, 12, 31, 7
	if !next.alarming(r) {
		t.Error("more denials do not alarm")
	}
	if m, _ := next.news(r, false); len(m.GetCounters())+len(m.GetBuckets()) != 0 {
		t.Errorf("said before they were due: %v", m)
	}
	m, third := next.news(r, true)
	c = m.GetCounters()[0]
	if c.GetDenies() != 2 || c.GetMinutes() != 2 || c.GetCpuSeconds() != 1 || c.GetVerdicts() != 0 ||
		m.GetBuckets()[0].GetCount() != 2 {
		t.Errorf("the difference: %v", m)
	}
	r.Buckets = append(r.Buckets, update.Bucket{
		Signature: "crash-1", Kind: update.Crash, Provider: "p", Digest: "d", Count: 1,
	})
	if m, _ := third.news(r, false); len(m.GetBuckets()) != 1 || m.GetBuckets()[0].GetKind() != update.Crash {
		t.Errorf("a new kind of incident has to wait: %v", m)
	}
	r.Core = "another"
	r.Counters[0].Denies = 1
	if m, _ := third.news(r, true); m.GetCounters()[0].GetDenies() != 1 {
		t.Errorf("another core: %v", m.GetCounters())
	}
	r.Core = "core"
	r.Counters[0] = update.Counters{Provider: "p", Engine: "e", Content: "d", Denies: 3, Minutes: 1}
	if m, _ := third.news(r, true); m.GetCounters()[0].GetDenies() != 3 || m.GetCounters()[0].GetMinutes() != 1 {
		t.Errorf("versions that came back: %v", m.GetCounters())
	}
}

// TestInterrupts: a long-poll is interrupted by another version or wish, not by another nonce for the same one.
func TestInterrupts(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*update.Report)
		same   bool
	}{
		"nothing":  {func(*update.Report) {}, true},
		"a nonce":  {func(r *update.Report) { r.Asks[0].Nonce = []byte("87654321") }, true},
		"a wish":   {func(r *update.Report) { r.Asks[0].Digest = "f" }, false},
		"no wish":  {func(r *update.Report) { r.Asks = nil }, false},
		"version":  {func(r *update.Report) { r.Installed[0].Digest = "e" }, false},
		"not well": {func(r *update.Report) { r.Installed[0].Healthy = false }, false},
	} {
		before, _ := said{}.news(someReport(), false)
		r := someReport()
		c.change(r)
		after, _ := said{}.news(r, false)
		if got := same(before, after); got != c.same {
			t.Errorf("%s: the same: %v", name, got)
		}
	}
}

// TestDue: quiet counts wait for the server's pace, alarming ones not for long.
func TestDue(t *testing.T) {
	t.Parallel()
	r := someReport()
	_, all := said{}.news(r, true)
	quiet := told{said: all, at: time.Now()}
	if d := quiet.due(r); d < countsEvery-time.Minute {
		t.Errorf("quiet and not asked: due in %v", d)
	}
	quiet.again = 30 * time.Second
	if d := quiet.due(r); d > 30*time.Second || d < 20*time.Second {
		t.Errorf("the server wants them every 30 s: due in %v", d)
	}
	r.Counters[0].Denies++
	if d := quiet.due(r); d > alarmEvery {
		t.Errorf("a denial: due in %v", d)
	}
}

// TestNoCoreIsNotWell: a host whose core is gone is heard of, does not say that it is well, and wants nothing; also
// where all that the core left is a torn report.
func TestNoCoreIsNotWell(t *testing.T) {
	t.Parallel()
	o := &Options{StateDir: t.TempDir()}
	o.complete()
	f := &fetcher{o: o}
	if r, alive, err := f.heard(); err != nil || alive || len(r.Installed) > 0 {
		t.Errorf("before the first report: %+v, %v, %v", r, alive, err)
	}
	if err := os.MkdirAll(o.report(), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := update.WriteReport(o.report(), someReport()); err != nil {
		t.Fatal(err)
	}
	if r, alive, err := f.heard(); err != nil || !alive || !r.Installed[0].Healthy || len(r.Asks) != 1 {
		t.Errorf("a fresh report: %+v, %v, %v", r, alive, err)
	}
	old := time.Now().Add(-2 * update.Alive)
	if err := os.Chtimes(filepath.Join(o.report(), update.ReportFile), old, old); err != nil {
		t.Fatal(err)
	}
	if r, alive, err := f.heard(); err != nil || alive || r.Installed[0].Healthy || len(r.Asks) != 0 ||
		r.Installed[0].Digest != "d" {
		t.Errorf("an old report: %+v, %v, %v", r, alive, err)
	}
	if err := os.WriteFile(filepath.Join(o.report(), update.ReportFile), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := f.heard(); err == nil {
		t.Error("a report that a core has just torn says nothing")
	}
	if err := os.Chtimes(filepath.Join(o.report(), update.ReportFile), old, old); err != nil {
		t.Fatal(err)
	}
	if r, alive, err := f.heard(); err != nil || alive || len(r.Installed) > 0 {
		t.Errorf("a report that is torn since long: %+v, %v, %v", r, alive, err)
	}
}
