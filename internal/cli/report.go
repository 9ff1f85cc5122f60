package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/keepout-security/keepout/internal/config"
	"github.com/keepout-security/keepout/internal/control"
	"github.com/keepout-security/keepout/internal/health"
)

// command is a line for a shell that runs keepout against the same daemon.
func (a *app) command(args string) string { return control.Command(a.runDir, args) }

// report prints an error once, on standard error, and chooses the exit code. Standard output holds only answers.
func (a *app) report(err error) int {
	if err == nil {
		return exitOK
	}
	var told exit
	if errors.As(err, &told) {
		return int(told)
	}
	var code int
	var usage usageError
	switch {
	case errors.Is(err, control.ErrUnreachable):
		err, code = control.Unreachable(a.runDir, err), exitUnreachable
	case errors.As(err, &usage) || !a.begun:
		code = exitUsage
	default:
		code = fleetExit(err)
	}
	if a.output != "json" {
		fmt.Fprintln(a.err, "keepout:", err)
		return code
	}
	// One object on one line, so that whoever reads the stream can tell where it ends. It cannot fail: it is text.
	line, _ := json.Marshal(failure{Errors: problemsIn(err), Exit: code})
	fmt.Fprintln(a.err, string(line))
	return code
}

// failure is what standard error gets with -o json. Field names are stable.
type failure struct {
	Errors []problem `json:"errors"`
	Exit   int       `json:"exit"`
}

// problem is one of them: a health.Problem, and its place where it is about a file.
type problem struct {
	Code     string          `json:"code,omitempty"` // not all that goes wrong has one
	Title    string          `json:"title"`
	Severity health.Severity `json:"severity"`
	Fix      string          `json:"fix,omitempty"`
	Provider string          `json:"provider,omitempty"`
	File     string          `json:"file,omitempty"`
	Line     int             `json:"line,omitempty"`
	Column   int             `json:"column,omitempty"`
}

// problemsIn takes an error apart.
func problemsIn(err error) []problem {
	if parts := joined(err); parts != nil {
		out := make([]problem, 0, len(parts))
		for _, e := range parts {
			out = append(out, problemsIn(e)...)
		}
		return out
	}
	var p health.Problem
	var c *config.Error
	switch {
	case errors.As(err, &p):
		return []problem{{
			Code: p.Code, Title: p.Title, Severity: orFailure(p.Severity), Fix: p.Fix, Provider: p.Provider,
		}}
	case errors.As(err, &c):
		return []problem{{
			Code: c.Code, Title: c.What, Severity: health.Failure, Fix: c.Fix, File: c.File, Line: c.Line, Column: c.Column,
		}}
	default:
		return []problem{{Title: err.Error(), Severity: health.Failure}}
	}
}

// joined returns what errors.Join put together, or nil. Whatever else wraps several errors has words of its own.
func joined(err error) []error {
	j, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return nil
	}
	lines := make([]string, 0, len(j.Unwrap()))
	for _, e := range j.Unwrap() {
		lines = append(lines, e.Error())
	}
	if strings.Join(lines, "\n") != err.Error() {
		return nil
	}
	return j.Unwrap()
}

func orFailure(s health.Severity) health.Severity {
	if s == "" {
		return health.Failure
	}
	return s
}

// wantsJSON reports whether a command line that could not be read asks for JSON.
func wantsJSON(args []string) bool {
	if slices.Contains(args, "-ojson") || slices.Contains(args, "-o=json") || slices.Contains(args, "--output=json") {
		return true
	}
	words := strings.Join(args, "\x00")
	return strings.Contains(words, "-o\x00json") || strings.Contains(words, "--output\x00json")
}
