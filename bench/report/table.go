package report

import (
	"fmt"
	"io"
	"strconv"
	"strings"
)

// number prints three digits that matter.
func number(x float64) string {
	switch {
	case x >= 100 || x <= -100:
		return strconv.FormatFloat(x, 'f', 0, 64)
	case x >= 10 || x <= -10:
		return strconv.FormatFloat(x, 'f', 1, 64)
	default:
		return strconv.FormatFloat(x, 'f', 2, 64)
	}
}

func (s Stat) String() string {
	switch s.N {
	case 0:
		return "–"
	case 1:
		return number(s.Median)
	default:
		return fmt.Sprintf("%s [%s–%s]", number(s.Median), number(s.Min), number(s.Max))
	}
}

// compared are the workloads of the table.
func compared() []string {
	return []string{
		OpenFirst, OpenSoon, OpenAgain, ExecFirst, ExecAgain, Untar, GrepFirst, GrepAgain, Git, GoBuild, Unpack,
	}
}

// with lists the variants, but for the one without a monitor, that have a sample of any of the workloads.
func (r *Results) with(workloads ...string) (variants []string) {
	for _, v := range r.Variants {
		for _, w := range workloads {
			if v != None && r.Rate(v, w).N > 0 {
				variants = append(variants, v)
				break
			}
		}
	}
	return variants
}

// WriteTables prints everything that was measured as Markdown.
func (r *Results) WriteTables(w io.Writer) {
	fmt.Fprintf(w, "Times without a monitor and, below, how often that with one: median of the rounds [least–most], "+
		"each against no monitor of the same round.\n\n")
	fmt.Fprintf(w, "| | %s |\n|---|%s\n", strings.Join(compared(), " | "), strings.Repeat("---:|", len(compared())))
	row := func(name string, cell func(workload string) string) {
		fmt.Fprintf(w, "| %s |", name)
		for _, workload := range compared() {
			fmt.Fprintf(w, " %s |", cell(workload))
		}
		fmt.Fprintln(w)
	}
	row(None, func(workload string) string { return r.bare(workload) })
	for _, v := range r.with(compared()...) {
		row(v, func(workload string) string { return r.Ratio(v, workload).String() })
	}
	r.writeAdded(w)
	r.writeThroughput(w)
	for _, note := range r.Notes {
		fmt.Fprintf(w, "\nNote: %s\n", note)
	}
}

// bare is a workload's own time.
func (r *Results) bare(workload string) string {
	rate := r.Rate(None, workload)
	if rate.N == 0 {
		return "–"
	}
	ns := 1e9 / rate.Median
	switch {
	case ns < 1e6:
		return number(ns/1e3) + " µs"
	case ns < 1e9:
		return number(ns/1e6) + " ms"
	default:
		return number(ns/1e9) + " s"
	}
}

func (r *Results) writeAdded(w io.Writer) {
	fmt.Fprintf(w, "\n| added to one open, µs | first | 2 s after it was written | again | again, few files |"+
		" to the C responder's, first |\n|---|---:|---:|---:|---:|---:|\n")
	for _, v := range r.with(OpenFirst) {
		fmt.Fprintf(w, "| %s | %s | %s | %s | %s | %s |\n", v, r.Added(v, OpenFirst), r.Added(v, OpenSoon),
			r.Added(v, OpenAgain), r.Added(v, Throughput(1, true)), r.AddedRatio(v, MinimalC, OpenFirst))
	}
	slow := r.with(Open1ms)
	if len(slow) == 0 {
		return
	}
	fmt.Fprintf(w, "\n| engines of 1 ms each | ms an open |\n|---|---:|\n")
	for _, v := range slow {
		fmt.Fprintf(w, "| %s | %s |\n", v, number(1e3/r.Rate(v, Open1ms).Median))
	}
}

func (r *Results) writeThroughput(w io.Writer) {
	columns := Threads()
	if len(r.with(Throughput(1, false))) == 0 {
		return
	}
	fmt.Fprintf(w, "\n| thousand opens a second, by threads |")
	for _, again := range []string{"first", "again"} {
		for _, n := range columns {
			fmt.Fprintf(w, " %d %s |", n, again)
		}
	}
	fmt.Fprintf(w, "\n|---|%s\n", strings.Repeat("---:|", 2*len(columns)))
	for _, v := range append([]string{None}, r.with(Throughput(1, false))...) {
		fmt.Fprintf(w, "| %s |", v)
		for _, again := range []bool{false, true} {
			for _, n := range columns {
				cell := "–"
				if rate := r.Rate(v, Throughput(n, again)); rate.N > 0 {
					cell = number(rate.Median / 1000)
				}
				fmt.Fprintf(w, " %s |", cell)
			}
		}
		fmt.Fprintln(w)
	}
}
