// Package health is problems as data: each has a stable code, a severity and what to do about it, so that a
// terminal, a page and a program say the same. It depends on the standard library only.
//
// It guarantees an order that does not depend on who found a problem first, and that a problem which stays keeps the
// time at which it was first noticed, whatever its words say by then.
package health

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
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
	// Since is when it was first noticed; zero where that is not known, as in the answer to a request.
	Since    time.Time `json:"since,omitzero"`
	Provider string    `json:"provider,omitempty"` // whom it is about
	Subject  string    `json:"subject,omitempty"`  // what it is about where one code can stand for several: a path
	Fix      string    `json:"fix"`                // the next command, or what to change
}

// key is what makes a problem the same one later: its words may change with a number in them.
func (p Problem) key() [3]string { return [3]string{p.Code, p.Provider, p.Subject} }

// Carry gives each of the problems the time at which it was first noticed: that of the same one in before, otherwise
// now.
func Carry(before, problems []Problem, now time.Time) {
	known := map[[3]string]time.Time{}
	for _, p := range before {
		if at, seen := known[p.key()]; !seen || p.Since.Before(at) {
			known[p.key()] = p.Since
		}
	}
	for i := range problems {
		if at, seen := known[problems[i].key()]; seen {
			problems[i].Since = at
		} else {
			problems[i].Since = now
		}
	}
}

// Error gives code, title and fix in one line.
func (p Problem) Error() string {
	if p.Fix == "" {
		return fmt.Sprintf("%s: %s", p.Code, p.Title)
	}
	return p.Code + ": " + p.Title + next + p.Fix
}

// Sort orders problems by severity, the worst first, then code, provider and subject.
func Sort(problems []Problem) {
	rank := map[Severity]int{Failure: 0, Warning: 1, Info: 2}
	slices.SortStableFunc(problems, func(a, b Problem) int {
		return cmp.Or(
			cmp.Compare(rank[a.Severity], rank[b.Severity]),
			cmp.Compare(a.Code, b.Code),
			cmp.Compare(a.Provider, b.Provider),
			cmp.Compare(a.Subject, b.Subject),
		)
	})
}

// Degraded reports whether any problem reduces protection.
func Degraded(problems []Problem) bool {
	return slices.ContainsFunc(problems, func(p Problem) bool { return p.Severity != Info })
}

// next stands between what is wrong and what to do, in the words of Problem.Error.
const next = ". Next: "

// Split takes one line of advice apart: what is wrong, and what to do, which may be empty.
func Split(line string) (what, fix string) {
	what, fix, _ = strings.Cut(line, next)
	return what, fix
}

// Unadvised is an error's text on one line, without what to do about it, for who has advice of his own.
func Unadvised(err error) string {
	var out []string
	for line := range strings.Lines(err.Error()) {
		what, _ := Split(strings.TrimSpace(line))
		out = append(out, what)
	}
	return strings.Join(out, "; ")
}
