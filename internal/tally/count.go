package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
)

// event is one line of "go test -json" (go doc test2json).
type event struct {
	Action      string
	Package     string
	ImportPath  string // of build output
	Test        string
	Output      string
	Elapsed     float64
	FailedBuild string
}

// benchmarkLine is how a benchmark ends: its name and how often it ran, which may come in two pieces.
var benchmarkLine = regexp.MustCompile(`(?m)^Benchmark\S*[ \t]+\d+(\s|$)`)

// outputLimit bounds what is kept of one test's output, bytes; the end is what explains a failure.
const outputLimit = 64 << 10

// needLine is what testenv.Need says when it skips.
var needLine = regexp.MustCompile(`NEEDS ([a-z0-9]+): (.+)`)

// test is one test or, with an empty name, one package.
type test struct {
	pkg, name string
	outcome   string // "", "pass", "fail" or "skip"
	output    []byte
	parent    bool // has subtests
}

// count follows the events of one "go test -json".
type count struct {
	w     io.Writer
	tests map[[2]string]*test
	order []*test
}

func newCount(w io.Writer) *count { return &count{w: w, tests: map[[2]string]*test{}} }

// read follows the stream to its end. A line that is not an event is printed as it is.
func (c *count) read(r *bufio.Reader) error {
	for {
		line, err := r.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil || e.Action == "" {
				fmt.Fprintf(c.w, "%s", line)
			} else {
				c.event(e)
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}

func (c *count) event(e event) {
	switch e.Action {
	case "start":
		c.test(e.Package, "")
	case "build-output":
		fmt.Fprint(c.w, e.Output)
	case "run":
		c.test(e.Package, e.Test)
		c.markParent(e.Package, e.Test)
	case "output":
		if strings.HasPrefix(e.Output, "=== ") {
			return // "RUN", "PAUSE" and "CONT" explain nothing
		}
		t := c.test(e.Package, e.Test)
		t.output = append(t.output, e.Output...)
		if t.outcome == "" && benchmarkLine.Match(t.output) {
			t.outcome = "pass" // go test says no more about a benchmark that did not fail
			c.markParent(e.Package, e.Test)
		}
		if over := len(t.output) - outputLimit; over > 0 {
			t.output = t.output[over:]
		}
	case "pass", "fail", "skip":
		t := c.test(e.Package, e.Test)
		t.outcome = e.Action
		c.print(t, e)
	}
}

// markParent notes that the test's parent has subtests. A subtest's own name may hold slashes: the parent
// is the longest prefix that is a test.
func (c *count) markParent(pkg, name string) {
	for i := strings.LastIndexByte(name, '/'); i >= 0; i = strings.LastIndexByte(name[:i], '/') {
		if t, known := c.tests[[2]string{pkg, name[:i]}]; known {
			t.parent = true
			if t.outcome == "" && strings.HasPrefix(name, "Benchmark") {
				t.outcome = "pass" // nothing else is said about it; a failure would follow
			}
			return
		}
	}
}

func (c *count) test(pkg, name string) *test {
	key := [2]string{pkg, name}
	t, known := c.tests[key]
	if !known {
		t = &test{pkg: pkg, name: name}
		c.tests[key] = t
		c.order = append(c.order, t)
	}
	return t
}

// print shows a failing test's output and each package's outcome as soon as it is known.
func (c *count) print(t *test, e event) {
	switch {
	case t.outcome == "fail":
		fmt.Fprintf(c.w, "%s", t.output)
		fmt.Fprintf(c.w, "FAIL  %s %s (%.1fs)\n", t.pkg, t.name, e.Elapsed)
	case t.name == "" && t.outcome == "pass":
		fmt.Fprintf(c.w, "ok    %s (%.1fs)\n", t.pkg, e.Elapsed)
	}
	if t.outcome != "skip" {
		t.output = nil
	}
}

// result adds up. A failing test explains its parents and its package, which then do not count again.
func (c *count) result() Result {
	r := Result{Needs: map[string]Need{}}
	explained := map[[2]string]bool{}
	// A parent always comes before its subtests: walk back, so that the innermost failure is counted.
	for _, t := range slices.Backward(c.order) {
		switch {
		case t.name == "" || t.parent && t.outcome == "pass":
		case t.outcome == "pass":
			r.Passed++
		case t.outcome == "skip":
			r.skip(t)
		case !explained[[2]string{t.pkg, t.name}]:
			if t.outcome == "" { // a failing test's output was printed when it failed
				fmt.Fprintf(c.w, "%s", t.output)
			}
			r.Failures = append(r.Failures, failure(t))
			explain(explained, t)
		}
	}
	for _, t := range c.order {
		if t.name == "" && t.outcome != "pass" && t.outcome != "skip" && !explained[[2]string{t.pkg, ""}] {
			r.Failures = append(r.Failures, failure(t))
		}
	}
	slices.Sort(r.Failures)
	return r
}

// explain marks what contains the test: each outer test, and the package.
func explain(explained map[[2]string]bool, t *test) {
	name := t.name
	for name != "" {
		name = name[:max(0, strings.LastIndexByte(name, '/'))]
		explained[[2]string{t.pkg, name}] = true
	}
}

func failure(t *test) string {
	line := strings.TrimSpace(t.pkg + " " + t.name)
	if t.outcome == "" {
		line += ": never ended"
	} else if t.name == "" {
		line += ": the package does not build, or ended without saying why"
	}
	return line
}

func (r *Result) skip(t *test) {
	m := needLine.FindSubmatch(t.output)
	if m == nil {
		r.Failures = append(r.Failures, t.pkg+" "+t.name+": skipped without saying what it NEEDS")
		return
	}
	r.Skipped++
	n := r.Needs[string(m[1])]
	if n.Tests == 0 {
		n.Error = strings.TrimSpace(string(m[2]))
	}
	n.Tests++
	r.Needs[string(m[1])] = n
}
