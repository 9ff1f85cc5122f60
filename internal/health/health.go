// Package health is problems as data: each has a stable code, a severity and what to do about it, so that a
// terminal, a page and a program say the same. It depends on the standard library only.
package health

import (
	"cmp"
	"fmt"
	"slices"
)

// Severity says who must act.
type Severity string

// The severities.
const (
	Info    Severity = "info"    // nothing to do
	Warning Severity = "warning" // protection is reduced
	Failure Severity = "error"   // protection is missing
)

// Problem is one thing that is wrong. It also serves as an error.
type Problem struct {
	Code     string   `json:"code"` // KO-nnnn, listed in docs/errors.md
	Title    string   `json:"title"`
	Severity Severity `json:"severity"`
	Provider string   `json:"provider,omitempty"`
	Fix      string   `json:"fix"` // the next command, or what to change
}

// Error gives code, title and fix in one line.
func (p Problem) Error() string {
	if p.Fix == "" {
		return fmt.Sprintf("%s: %s", p.Code, p.Title)
	}
	return fmt.Sprintf("%s: %s. Next: %s", p.Code, p.Title, p.Fix)
}

// Sort orders problems by severity, then code, then provider.
func Sort(problems []Problem) {
	rank := map[Severity]int{Failure: 0, Warning: 1, Info: 2}
	slices.SortStableFunc(problems, func(a, b Problem) int {
		return cmp.Or(
			cmp.Compare(rank[a.Severity], rank[b.Severity]),
			cmp.Compare(a.Code, b.Code),
			cmp.Compare(a.Provider, b.Provider),
		)
	})
}

// Degraded reports whether any problem reduces protection.
func Degraded(problems []Problem) bool {
	return slices.ContainsFunc(problems, func(p Problem) bool { return p.Severity != Info })
}
