package update

import (
	"testing"
	"time"

	"github.com/keepout-security/keepout/internal/rollback"
)

// TestMeter: counts are those of the versions that are active; a candidate's denials and late votes count with them,
// what it costs does not; nothing counts twice when it takes over.
func TestMeter(t *testing.T) {
	t.Parallel()
	const old, fresh = rollback.Digest("old"), rollback.Digest("new")
	var m Meter
	a := Reading{Provider: "p", Serial: 1, Engine: "e", Content: old}
	read := func(all ...Reading) (Counters, []Denial) {
		t.Helper()
		news := m.Read(all)
		if len(m.Counters()) != 1 {
			t.Fatalf("counters %+v", m.Counters())
		}
		return m.Counters()[0], news
	}
	a.Verdicts, a.CPU, a.Ran, a.Memory, a.P99 = 10, time.Second, time.Minute, 5000, time.Millisecond
	c, _ := read(a)
	if c.Verdicts != 10 || c.CPU != 1 || c.Minutes != 1 || c.Memory != 5000 || c.P99 != 0.001 || c.Content != "old" {
		t.Errorf("the first: %+v", c)
	}
	b := Reading{Provider: "p", Serial: 2, Trial: true, Engine: "e", Content: fresh}
	b.Verdicts, b.Denies, b.Critical, b.Timeouts, b.CPU, b.Memory = 7, 3, 1, 2, time.Hour, 9000
	b.Rules = map[string]uint64{"x": 3}
	a.Verdicts, a.P99 = 12, 0
	c, news := read(a, b)
	if c.Verdicts != 12 || c.Denies != 3 || c.Critical != 1 || c.Timeouts != 2 || c.CPU != 1 || c.Memory != 5000 ||
		c.P99 != 0.001 {
		t.Errorf("with a candidate: %+v", c)
	}
	if len(news) != 1 || news[0].Words != "x" || news[0].Count != 3 || !news[0].Reading.Trial {
		t.Errorf("denials: %+v", news)
	}
	b.Trial = false // it takes over
	b.Verdicts, b.Denies, b.CPU, b.Rules = 8, 4, time.Hour+time.Second, map[string]uint64{"x": 4}
	c, news = read(b)
	if c.Content != "new" || c.Verdicts != 1 || c.Denies != 1 || c.Critical != 0 || c.CPU != 1 || c.Memory != 9000 {
		t.Errorf("taken over: %+v", c)
	}
	if len(news) != 1 || news[0].Count != 1 {
		t.Errorf("denials: %+v", news)
	}
	if c, news = read(b); c.Verdicts != 1 || len(news) != 0 {
		t.Errorf("the same again: %+v, %+v", c, news)
	}
	a.Serial = 3 // back, in another process that begins at 0
	a.Verdicts, a.CPU, a.Ran = 1, 0, 0
	if c, _ = read(a); c.Content != "old" || c.Verdicts != 1 || c.Denies != 0 {
		t.Errorf("gone back: %+v", c)
	}
	if m.Read(nil); len(m.Counters()) != 0 {
		t.Errorf("a provider that is gone: %+v", m.Counters())
	}
}

// TestNews: only what must not wait makes a report news.
func TestNews(t *testing.T) {
	t.Parallel()
	base := func() *Report {
		return &Report{
			Core: "c", Installed: []Installed{{Provider: "p", Healthy: true}}, Asks: []Ask{{Digest: "d", Nonce: []byte("n")}},
			Counters: []Counters{{Provider: "p", Verdicts: 1, Minutes: 1}}, Buckets: []Bucket{{Signature: "s", Count: 1}},
		}
	}
	for name, c := range map[string]struct {
		change func(*Report)
		news   bool
	}{
		"nothing":  {func(*Report) {}, false},
		"verdicts": {func(r *Report) { r.Counters[0].Verdicts, r.Counters[0].CPU, r.Counters[0].Minutes = 9, 9, 9 }, false},
		"a denial": {func(r *Report) { r.Counters[0].Denies++ }, true},
		"late":     {func(r *Report) { r.Counters[0].Timeouts++ }, true},
		"health":   {func(r *Report) { r.Installed[0].Healthy = false }, true},
		"a nonce":  {func(r *Report) { r.Asks[0].Nonce = []byte("m") }, true},
		"a crash":  {func(r *Report) { r.Buckets[0].Count++ }, true},
		"versions": {func(r *Report) { r.Counters[0].Content = "x" }, true},
		"core":     {func(r *Report) { r.Core = "d" }, true},
	} {
		r := base()
		c.change(r)
		if got := r.News(base()); got != c.news {
			t.Errorf("%s: news %v, want %v", name, got, c.news)
		}
	}
}
