package demo

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/keepout-security/keepout/internal/control"
	"github.com/keepout-security/keepout/internal/health"
	"github.com/keepout-security/keepout/internal/playground"
	"github.com/keepout-security/keepout/internal/supervisor"
)

// result is what a command did.
type result struct {
	line string // the command
	out  string // standard output and error
	code int    // exit code; -1: ended by a signal
	err  error  // it could not be run to its end
}

// want applies a check to what a command did.
func (r result) want(check func(result) error) error {
	if r.err != nil {
		return r.err
	}
	return check(r)
}

func succeeded(r result) error {
	if r.code != 0 {
		return fmt.Errorf("%s: exit code %d, want 0", r.line, r.code)
	}
	return nil
}

func contains(r result, text string) error {
	if !strings.Contains(r.out, text) {
		return fmt.Errorf("%s: the output has no %q", r.line, text)
	}
	return nil
}

// refused accepts only the kernel's EPERM, in the words that the C library has for it in the C locale.
func refused(r result) error {
	if r.code == 0 {
		return fmt.Errorf("%s: it was not refused", r.line)
	}
	return contains(r, "Operation not permitted")
}

// exitDenied is the exit code of explain for a denied event.
const exitDenied = 5

var decidedBy = regexp.MustCompile(`decided by ([a-z0-9_-]+)`)

// explained accepts an explanation that names one of the deciders as who decided, and has a line for the vote
// of each provider in ids.
func explained(r result, ids, deciders []string) error {
	if r.code != exitDenied {
		return fmt.Errorf("%s: exit code %d, want %d for a denied event", r.line, r.code, exitDenied)
	}
	if err := contains(r, "DENIED"); err != nil {
		return err
	}
	m := decidedBy.FindStringSubmatch(r.out)
	if len(m) < 2 || !slices.Contains(deciders, m[1]) {
		return fmt.Errorf("%s: it does not name one of %v as who decided", r.line, deciders)
	}
	for _, id := range ids {
		row := regexp.MustCompile(`(?m)^ +` + regexp.QuoteMeta(id) + ` +enforce +\S`)
		if !row.MatchString(r.out) {
			return fmt.Errorf("%s: it does not show the vote of %s", r.line, id)
		}
	}
	return nil
}

// healthy accepts a status in which every engine that takes part votes and nothing is wrong.
func (s *show) healthy(st *control.Status) error {
	for _, id := range s.ids {
		p := playground.Find(st, id)
		if p == nil {
			return fmt.Errorf("%s is not there", id)
		}
		if p.State != supervisor.Running {
			return fmt.Errorf("%s is %s: %s", id, p.State, p.Cause)
		}
	}
	if health.Degraded(st.Problems) {
		return st.Problems[0]
	}
	return nil
}
