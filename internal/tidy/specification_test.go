package tidy

import (
	"fmt"
	"go/ast"
	"regexp"
	"strings"
	"testing"
)

// shownBy finds the tests that a row names; what follows a slash is a subtest's name.
var shownBy = regexp.MustCompile("`((?:Test|Benchmark|Fuzz|Example)[A-Za-z0-9_]*)(?:/[^`]*)?`")

// TestEveryPromiseIsShown: a promise in SPECIFICATION.md names the test that would fail if it were broken, or
// says that it is pending.
func TestEveryPromiseIsShown(t *testing.T) {
	t.Parallel()
	tests := map[string]bool{}
	for _, s := range tree(t) {
		for _, d := range s.ast.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && s.test && f.Recv == nil {
				tests[f.Name.Name] = true
			}
		}
	}
	promises := rows(document(t, "SPECIFICATION.md"))
	if len(promises) == 0 {
		t.Fatal("SPECIFICATION.md: no table of promises: | promise | where shown |")
	}
	for _, row := range promises {
		if wrong := unshown(row, tests); wrong != "" {
			t.Errorf("SPECIFICATION.md: %q: %s", row[0], wrong)
		}
	}
}

func unshown(row []string, tests map[string]bool) string {
	last := row[len(row)-1]
	names := shownBy.FindAllStringSubmatch(last, -1)
	if len(names) == 0 && !strings.Contains(last, "*pending*") {
		return fmt.Sprintf("the last cell %q names no test in backticks and is not *pending*", last)
	}
	for _, m := range names {
		if !tests[m[1]] {
			return m[1] + " is not in the tree: name the test that shows it, or write *pending*"
		}
	}
	return ""
}

func TestUnshown(t *testing.T) {
	t.Parallel()
	tests := map[string]bool{"TestA": true}
	for cell, ok := range map[string]bool{
		"`TestA`": true, "`TestA/case one`": true, "*pending*": true,
		"`TestA`, `TestB`": false, "": false, "TestA": false, "`BenchmarkX`": false,
	} {
		if wrong := unshown([]string{"promise", cell}, tests); (wrong == "") != ok {
			t.Errorf("cell %q: %q, want accepted: %v", cell, wrong, ok)
		}
	}
}
