package doctor

import (
	"cmp"
	"slices"
	"time"

	"github.com/keepout-security/keepout/internal/health"
)

// OK is the severity of what is as it should be; the others are those of health.
const OK health.Severity = "ok"

// Section groups findings for people.
type Section string

// The sections, in the order in which they are shown.
const (
	Core   Section = "core"
	Proof  Section = "proof"
	Watch  Section = "watch"
	Cage   Section = "cage"
	Kernel Section = "kernel"
	Host   Section = "host"
)

// Sections lists all sections in order.
func Sections() []Section { return []Section{Core, Proof, Watch, Cage, Kernel, Host} }

// Finding is what one check found. Field names are stable.
type Finding struct {
	Section  Section         `json:"section"`
	Check    string          `json:"check"` // name of the check, stable
	Severity health.Severity `json:"severity"`
	Code     string          `json:"code,omitempty"` // KO-nnnn, unless it is ok or for information
	Title    string          `json:"title"`
	Fix      string          `json:"fix,omitempty"`
	Provider string          `json:"provider,omitempty"`
	Subject  string          `json:"subject,omitempty"` // a path, where the check is about one
}

// Counts says how many findings there are of each severity.
type Counts struct {
	OK       int `json:"ok"`
	Info     int `json:"info"`
	Warnings int `json:"warnings"`
	Errors   int `json:"errors"`
}

// Report is the result of a run. Field names are stable.
type Report struct {
	Version   string    `json:"version"` // of this command
	Time      time.Time `json:"time"`
	TookMS    int64     `json:"took_ms"`
	Reachable bool      `json:"reachable"` // the core answered
	Counts    Counts    `json:"counts"`
	Findings  []Finding `json:"findings"`
}

// Degraded reports whether something is wrong: a warning or an error.
func (r *Report) Degraded() bool { return r.Counts.Warnings+r.Counts.Errors > 0 }

// Protected reports whether no provider and no watched path failed its proof. What could not be proved does not count.
func (r *Report) Protected() bool {
	return r.Reachable && !slices.ContainsFunc(r.Findings, func(f Finding) bool {
		return f.Severity == health.Failure && (f.Section == Proof || f.Section == Watch)
	})
}

// settle orders the findings by section, the worst of each first, and counts them.
func (r *Report) settle() {
	rank := map[health.Severity]int{health.Failure: 0, health.Warning: 1, health.Info: 2, OK: 3}
	slices.SortStableFunc(r.Findings, func(a, b Finding) int {
		return cmp.Or(
			cmp.Compare(slices.Index(Sections(), a.Section), slices.Index(Sections(), b.Section)),
			cmp.Compare(rank[a.Severity], rank[b.Severity]),
		)
	})
	for i := range r.Findings {
		switch r.Findings[i].Severity {
		case OK:
			r.Counts.OK++
		case health.Info:
			r.Counts.Info++
		case health.Warning:
			r.Counts.Warnings++
		case health.Failure:
			r.Counts.Errors++
		}
	}
}

// notes collects the findings of one section.
type notes struct {
	section Section
	all     []Finding
}

func (n *notes) add(f Finding) *Finding {
	f.Section = n.section
	n.all = append(n.all, f)
	return &n.all[len(n.all)-1]
}

func (n *notes) ok(check, title string) *Finding {
	return n.add(Finding{Check: check, Severity: OK, Title: title})
}

func (n *notes) info(check, title string) *Finding {
	return n.add(Finding{Check: check, Severity: health.Info, Title: title})
}

func (n *notes) warning(check, code, title, fix string) *Finding {
	return n.add(Finding{Check: check, Severity: health.Warning, Code: code, Title: title, Fix: fix})
}

func (n *notes) failure(check, code, title, fix string) *Finding {
	return n.add(Finding{Check: check, Severity: health.Failure, Code: code, Title: title, Fix: fix})
}
