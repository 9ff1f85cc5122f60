package report

import (
	"encoding/xml"
	"errors"
	"io"
	"math"
	"strings"
	"testing"
)

// sampled makes results of two rounds; a time is in ns, by variant, workload and round.
func sampled(times map[string]map[string][]float64) *Results {
	r := &Results{Rounds: 2, Scale: "small", Facts: map[string]float64{}}
	for _, v := range []string{None, MinimalC, Keepout0, Keepout3, "<odd & name>"} {
		if times[v] != nil {
			r.Variants = append(r.Variants, v)
		}
		for workload, values := range times[v] {
			for round, ns := range values {
				r.Samples = append(r.Samples, Sample{Variant: v, Workload: workload, Round: round, Ops: 10, NS: ns})
			}
		}
	}
	return r
}

func near(a, b float64) bool { return math.Abs(a-b) < 1e-9 }

func TestRatiosAreWithinARound(t *testing.T) {
	t.Parallel()
	r := sampled(map[string]map[string][]float64{
		None:     {OpenFirst: {1000, 4000}}, // the machine was four times slower in the second round
		MinimalC: {OpenFirst: {3000, 8000}},
		Keepout0: {OpenFirst: {5000, 16000, 99}}, // and the third round had no "no monitor"
	})
	if s := r.Ratio(Keepout0, OpenFirst); s.N != 2 || !near(s.Median, 4.5) || !near(s.Min, 4) || !near(s.Max, 5) {
		t.Errorf("ratio %+v, want 4 and 5", s)
	}
	if s := r.Added(Keepout0, OpenFirst); !near(s.Min, 4) || !near(s.Max, 12) {
		t.Errorf("added %+v µs, want 4 and 12", s)
	}
	if s := r.AddedRatio(Keepout0, MinimalC, OpenFirst); s.N != 2 || !near(s.Min, 2) || !near(s.Max, 3) {
		t.Errorf("added to the C responder's %+v, want 2 and 3", s)
	}
	if s := r.Ratio(Keepout3, OpenFirst); s.N != 0 || s.String() != "–" {
		t.Errorf("what was not measured is %q", s)
	}
}

// TestNoiseIsNoGain: what is not slower than no monitor at all must not make a ratio of added times endless.
func TestNoiseIsNoGain(t *testing.T) {
	t.Parallel()
	r := sampled(map[string]map[string][]float64{
		None: {OpenAgain: {1000}}, Keepout0: {OpenAgain: {900}}, MinimalC: {OpenAgain: {11_000}},
	})
	if s := r.AddedRatio(MinimalC, Keepout0, OpenAgain); !near(s.Median, 100) {
		t.Errorf("10 µs to less than nothing are %v, want 100: nothing is taken for %v µs", s.Median, leastAdded)
	}
}

func goal(t *testing.T, r *Results, name string) Goal {
	t.Helper()
	for _, g := range r.Goals() {
		if strings.Contains(g.Name, name) {
			return g
		}
	}
	t.Fatalf("no goal %q", name)
	return Goal{}
}

func TestGoals(t *testing.T) {
	t.Parallel()
	times := map[string]map[string][]float64{
		None: {Throughput(1, true): {90}},
		Keepout3: {
			Throughput(1, true): {100}, Throughput(2, true): {90}, Throughput(8, true): {110},
		},
	}
	r := sampled(times)
	r.Facts[FactRSS] = 65
	for name, want := range map[string]string{
		"verdict known, 3 providers": "met", "verdict known, 1 provider": "not measured", "RSS": "MISSED",
		"3 providers: opens/s, worst of 2, 4, 8 threads to 1, again": "MISSED", // at 8 threads: 100/110 of one's
	} {
		g := goal(t, r, name)
		if got := g.verdict(); got != want {
			t.Errorf("%s: %s (%v), want %s", g.Name, got, g.Value, want)
		}
	}
	var text strings.Builder
	if missed := r.WriteGoals(&text); missed != 2 {
		t.Errorf("%d missed, want 2:\n%s", missed, text.String())
	}
}

func TestTablesSayWhatWasNotMeasured(t *testing.T) {
	t.Parallel()
	r := sampled(map[string]map[string][]float64{
		None: {OpenFirst: {1000, 1000}, GoBuild: {2e9}}, Keepout0: {OpenFirst: {2000, 3000}},
	})
	r.Notes = []string{"not compared: a peer"}
	var text strings.Builder
	r.WriteTables(&text)
	for _, want := range []string{
		"| Keepout | 2.50 [2.00–3.00] | – |", "1.00 µs", "2.00 s", "Note: not compared: a peer",
	} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no %q in\n%s", want, text.String())
		}
	}
}

func TestPlotIsXML(t *testing.T) {
	t.Parallel()
	r := sampled(map[string]map[string][]float64{
		None: {OpenFirst: {1000, 1000}}, Keepout0: {OpenFirst: {2000, 3e6}}, "<odd & name>": {OpenFirst: {500}},
	})
	svg := string(r.SVG())
	d := xml.NewDecoder(strings.NewReader(svg))
	for {
		_, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, svg)
		}
	}
	for _, want := range []string{"&lt;odd &amp; name&gt;", "open first", "10000×"} {
		if !strings.Contains(svg, want) {
			t.Errorf("no %q in the plot", want)
		}
	}
}
