// Package report turns the measurements of one comparison into ratios, goals met or missed, a table and a plot. It does
// no I/O and reads no clock: the same results give the same bytes.
package report

import (
	"cmp"
	"slices"
)

// None is the variant without a monitor, to which the others are compared.
const None = "no monitor"

// Sample is one measurement.
type Sample struct {
	Variant  string  `json:"variant"`
	Workload string  `json:"workload"`
	Round    int     `json:"round"`
	Ops      int     `json:"ops"`
	NS       float64 `json:"ns_per_op"` // wall clock of all, divided by Ops
	P50      int64   `json:"p50_ns,omitempty"`
	P99      int64   `json:"p99_ns,omitempty"`
}

// Results are what one run measured, with what must be known about the machine.
type Results struct {
	When      string             `json:"when"` // RFC 3339
	Kernel    string             `json:"kernel"`
	Processor string             `json:"processor"`
	CPUs      int                `json:"cpus"`
	Go        string             `json:"go"`
	Scale     string             `json:"scale"`
	Rounds    int                `json:"rounds"`
	Load      string             `json:"load_before"` // /proc/loadavg: who else used the machine
	Seconds   float64            `json:"seconds"`
	Peers     map[string]string  `json:"peers"` // version by name
	Variants  []string           `json:"variants"`
	Workloads []string           `json:"workloads"`
	Samples   []Sample           `json:"samples"`
	Facts     map[string]float64 `json:"facts"` // what is no time: RSS, idle CPU
	Notes     []string           `json:"notes"` // what did not run, and what falsifies a number
}

// Stat sums up one value over the rounds. N of 0 says that it was not measured.
type Stat struct {
	Median, Min, Max float64
	N                int
}

func stat(values []float64) Stat {
	if len(values) == 0 {
		return Stat{}
	}
	s := slices.Sorted(slices.Values(values))
	return Stat{Median: (s[(len(s)-1)/2] + s[len(s)/2]) / 2, Min: s[0], Max: s[len(s)-1], N: len(s)}
}

// find returns the sample of a round.
func (r *Results) find(variant, workload string, round int) (Sample, bool) {
	i := slices.IndexFunc(r.Samples, func(s Sample) bool {
		return s.Variant == variant && s.Workload == workload && s.Round == round
	})
	if i < 0 {
		return Sample{}, false
	}
	return r.Samples[i], true
}

// each combines two samples of the same round, in each round that has both.
func (r *Results) each(one, other [2]string, combine func(a, b Sample) float64) Stat {
	var values []float64
	for _, s := range r.Samples {
		if s.Variant != one[0] || s.Workload != one[1] {
			continue
		}
		if o, ok := r.find(other[0], other[1], s.Round); ok {
			values = append(values, combine(s, o))
		}
	}
	return stat(values)
}

// Ratio is what a workload takes with a monitor, divided by what it takes without one in the same round.
func (r *Results) Ratio(variant, workload string) Stat { return r.Versus(variant, None, workload) }

// Versus is what a workload takes with one variant, divided by what it takes with another in the same round.
func (r *Results) Versus(variant, other, workload string) Stat {
	return r.each([2]string{variant, workload}, [2]string{other, workload},
		func(a, b Sample) float64 { return a.NS / b.NS })
}

// Added is what a variant adds to one operation, in microseconds: its time less that without a monitor, of the same
// round.
func (r *Results) Added(variant, workload string) Stat {
	return r.each([2]string{variant, workload}, [2]string{None, workload},
		func(a, b Sample) float64 { return (a.NS - b.NS) / 1000 })
}

// leastAdded is what an added time is taken for that is smaller, µs: below it there is only noise to divide by.
const leastAdded = 0.1

// AddedRatio divides what two variants add, round by round.
func (r *Results) AddedRatio(variant, other, workload string) Stat {
	var values []float64
	for _, s := range r.Samples {
		if s.Variant != variant || s.Workload != workload {
			continue
		}
		o, ok := r.find(other, workload, s.Round)
		none, also := r.find(None, workload, s.Round)
		if ok && also {
			values = append(values, max(s.NS-none.NS, 1000*leastAdded)/max(o.NS-none.NS, 1000*leastAdded))
		}
	}
	return stat(values)
}

// Rate is how many operations a variant did in a second.
func (r *Results) Rate(variant, workload string) Stat {
	var values []float64
	for _, s := range r.Samples {
		if s.Variant == variant && s.Workload == workload {
			values = append(values, 1e9/s.NS)
		}
	}
	return stat(values)
}

// Sort puts the samples into the order of rounds, workloads and variants, so that two files can be compared.
func (r *Results) Sort() {
	slices.SortStableFunc(r.Samples, func(a, b Sample) int {
		return cmp.Or(
			cmp.Compare(a.Round, b.Round),
			cmp.Compare(slices.Index(r.Workloads, a.Workload), slices.Index(r.Workloads, b.Workload)),
			cmp.Compare(slices.Index(r.Variants, a.Variant), slices.Index(r.Variants, b.Variant)),
		)
	})
}
