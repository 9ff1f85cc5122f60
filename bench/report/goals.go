package report

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// Goal is one number that was promised, and what became of it.
type Goal struct {
	Name    string
	AtLeast bool // the value shall not be below Limit; else it shall not be above it
	Limit   float64
	Value   Stat
	Unit    string
}

// Met reports whether the median keeps the limit.
func (g *Goal) Met() bool {
	if g.AtLeast {
		return g.Value.Median >= g.Limit
	}
	return g.Value.Median <= g.Limit
}

// verdict is met, MISSED, or why neither.
func (g *Goal) verdict() string {
	switch {
	case g.Value.N == 0:
		return "not measured"
	case g.Met():
		return "met"
	default:
		return "MISSED"
	}
}

func atMost(name string, limit float64, unit string, value Stat) Goal {
	return Goal{Name: name, Limit: limit, Unit: unit, Value: value}
}

func atLeast(name string, limit float64, value Stat) Goal {
	return Goal{Name: name, AtLeast: true, Limit: limit, Unit: "×", Value: value}
}

// Goals are the promises about speed, with what was measured.
func (r *Results) Goals() []Goal {
	// Of no more files than the kernel can be made to remember, which is bounded by how many descriptors a process may
	// have: of the many files of OpenAgain only the core remembers the rest.
	known := Throughput(1, true)
	return append([]Goal{
		atMost("open, verdict known, 1 provider", 1.15, "×", r.Ratio(Keepout1, known)),
		atMost("open, verdict known, 3 providers", 1.15, "×", r.Ratio(Keepout3, known)),
		atMost("open, verdict known, ClamAV", 1.15, "×", r.Ratio(KeepoutClamAV, known)),
		atMost("first open, no provider, to the C responder's added time", 1.3, "×",
			r.AddedRatio(Keepout0, MinimalC, OpenFirst)),
		atMost("first open, provider not asked, to the C responder's added time", 1.3, "×",
			r.AddedRatio(KeepoutAloof, MinimalC, OpenFirst)),
		atMost("first open, 1 provider, to the C responder's added time", 2.5, "×",
			r.AddedRatio(Keepout1, MinimalC, OpenFirst)),
		atMost("first open, 3 providers, to the C responder's added time", 5, "×",
			r.AddedRatio(Keepout3, MinimalC, OpenFirst)),
		atMost("three providers of 1 ms, to one", 1.3, "×", r.Versus(Keepout3ms, Keepout1ms, Open1ms)),
		atLeast("three scanners of 1 ms, to three providers of 1 ms", 2.4, r.Versus(Scanners3ms, Keepout3ms, Open1ms)),
		atMost("exec, known digest, in instructions (the committed baseline)", 1.10, "×", r.fact(FactExec)),
		atMost("exec, three providers, first", 2.5, "×", r.Ratio(Keepout3, ExecFirst)),
		atMost("exec, three providers, again", 2.5, "×", r.Ratio(Keepout3, ExecAgain)),
		atLeast("ClamAV: clamonacc's added time to Keepout's, first", 10,
			r.AddedRatio(Clamonacc, KeepoutClamAV, OpenFirst)),
		atLeast("ClamAV: clamonacc's added time to Keepout's, first, written two seconds before", 10,
			r.AddedRatio(Clamonacc, KeepoutClamAV, OpenSoon)),
		atLeast("ClamAV: clamonacc's added time to Keepout's, again", 250,
			r.AddedRatio(Clamonacc, KeepoutClamAV, known)),
		atMost("go build, 3 providers", 1.10, "×", r.Ratio(Keepout3, GoBuild)),
		atMost("git checkout, 3 providers", 1.10, "×", r.Ratio(Keepout3, Git)),
		atMost("untar, 3 providers", 1.3, "×", r.Ratio(Keepout3, Untar)),
		atMost("grep again, 3 providers", 1.2, "×", r.Ratio(Keepout3, GrepAgain)),
		atMost(fmt.Sprintf("RSS of guard and core, %.0f objects judged", r.Facts[FactObjects]), 64, " MB", r.fact(FactRSS)),
		atMost("idle CPU of guard and core", 0.1, " %", r.fact(FactIdle)),
	}, r.steady()...)
}

// steady are the goals about throughput.
func (r *Results) steady() []Goal {
	goals := make([]Goal, 0, 4)
	for _, variant := range []string{KeepoutAloof, Keepout3} {
		for when, again := range map[string]bool{"first": false, "again": true} {
			name := fmt.Sprintf("%s: opens/s, worst of 2, 4, 8 threads to 1, %s", variant, when)
			goals = append(goals, atLeast(name, 0.95, r.slowdown(variant, again)))
		}
	}
	slices.SortFunc(goals, func(x, y Goal) int { return strings.Compare(x.Name, y.Name) })
	return goals
}

func (r *Results) fact(name string) Stat {
	if value, ok := r.Facts[name]; ok {
		return stat([]float64{value})
	}
	return Stat{}
}

// slowdown is the throughput at the worst number of threads, divided by that of one thread.
func (r *Results) slowdown(variant string, again bool) Stat {
	worst := Stat{}
	for _, threads := range Threads()[1:] {
		one := [2]string{variant, Throughput(1, again)}
		s := r.each(one, [2]string{variant, Throughput(threads, again)}, func(a, b Sample) float64 { return a.NS / b.NS })
		if s.N > 0 && (worst.N == 0 || s.Median < worst.Median) {
			worst = s
		}
	}
	return worst
}

// WriteGoals prints one line for each goal and returns how many were missed.
func (r *Results) WriteGoals(w io.Writer) (missed int) {
	fmt.Fprintf(w, "| goal | limit | measured | |\n|---|---:|---:|---|\n")
	for _, g := range r.Goals() {
		sign := "≤"
		if g.AtLeast {
			sign = "≥"
		}
		value := "–"
		if g.Value.N > 0 {
			value = number(g.Value.Median) + g.Unit
		}
		if g.Value.N > 1 {
			value += fmt.Sprintf(" [%s–%s]", number(g.Value.Min), number(g.Value.Max))
		}
		if g.Value.N > 0 && !g.Met() {
			missed++
		}
		fmt.Fprintf(w, "| %s | %s %s%s | %s | %s |\n", g.Name, sign, number(g.Limit), g.Unit, value, g.verdict())
	}
	return missed
}
