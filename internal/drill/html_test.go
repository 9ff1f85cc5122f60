package drill

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"
)

// sample is a report with every part in it.
func sample() *Report {
	e := quiet()
	e.opens = append(e.opens, opened{at: 2 * second, took: second, how: denied}, opened{at: 3 * second, bad: true})
	d := sound()
	d.Expect = []Expectation{{What: "a new core <goes> on", See: Sight{Kind: seeNewCore}}}
	r := Result{
		Name: "core-crash", Title: "killed & <buried>", Provider: faulty, FaultMS: 1000, LiftedMS: 10_000,
		Host: e.host(rule), Neighbours: e.neighbours([]string{"hashlist"}), Checks: d.judge(&e),
		Timeline: d.timeline(&e), Opens: e.buckets(), States: []State{{0, "running"}, {2000, "backoff"}},
		Explanation: "why", Usage: e.usage,
	}
	r.Timeline = append(r.Timeline, Moment{AtMS: 2000, Lane: laneProvider, Text: `"><script>alert(1)</script>`})
	good := r
	good.Name, good.Passed = "hang", true
	return &Report{
		Version: "v0", Began: time.Unix(1_900_000_000, 0), Seconds: 12, Passed: 1, Failed: 1, Drills: []Result{r, good},
	}
}

// TestPage: the page needs no network and no script, shows every drill, and nothing that a provider said is markup.
func TestPage(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "drill.html")
	if err := WriteHTML(path, sample()); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if m := regexp.MustCompile(`(?i)<script|https?:|@import|url\(|<img|<link|src=`).Find(page); m != nil {
		t.Errorf("the page has %q", m)
	}
	for _, want := range []string{
		`id="core-crash"`, `id="hang"`, "1 passed", "1 failed", "killed &amp; &lt;buried&gt;", "prefers-color-scheme: dark",
		`<b class="backoff"`,
	} {
		if !strings.Contains(string(page), want) {
			t.Errorf("no %q on the page", want)
		}
	}
	if strings.Contains(string(page), "ZgotmplZ") || strings.Contains(string(page), "NaN") {
		t.Error("a value was refused by the template, or is no number")
	}
	depth := map[string]int{}
	for _, m := range regexp.MustCompile(`<(/?)([a-z0-9]+)[^>]*?(/?)>`).FindAllStringSubmatch(string(page), -1) {
		switch {
		case m[1] == "/":
			depth[m[2]]--
		case m[3] == "":
			depth[m[2]]++
		}
	}
	for name, n := range depth {
		if n != 0 && name != "meta" {
			t.Errorf("%d <%s> are not closed", n, name)
		}
	}
}

// TestJSON: what is printed is what was found.
func TestJSON(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	want := sample()
	want.Began = want.Began.UTC()
	if err := writeJSON(&b, want); err != nil {
		t.Fatal(err)
	}
	got := &Report{}
	if err := json.Unmarshal(b.Bytes(), got); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v\ngot  %+v\nwant %+v", err, got, want)
	}
}

func TestHeight(t *testing.T) {
	t.Parallel()
	last := 101.0
	for _, ms := range []float64{0, fastest, 1, 10, 1000, slowest, 1e9} {
		h := height(ms)
		if h < 0 || h > 100 || h > last {
			t.Errorf("%v ms at %v %%", ms, h)
		}
		last = h
	}
}
