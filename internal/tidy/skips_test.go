package tidy

import (
	"fmt"
	"go/ast"
	"go/build/constraint"
	"slices"
	"testing"
)

// TestOnlyTestenvSkips: a test that is not run must say what it needs, in the words that "make test" counts.
func TestOnlyTestenvSkips(t *testing.T) {
	t.Parallel()
	eachSource(t, skips, "x_test.go", "package x\n\nfunc TestX(t *testing.T) { t.Skip() }\n")
}

func skips(s *source) (findings []string) {
	if s.dir() == "internal/testenv" {
		return nil
	}
	ast.Inspect(s.ast, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		x, ok := sel.X.(*ast.Ident)
		if ok && slices.Contains([]string{"t", "b", "f", "tb"}, x.Name) &&
			slices.Contains([]string{"Skip", "Skipf", "SkipNow"}, sel.Sel.Name) {
			findings = append(findings, s.at(sel)+": skips by itself: say what it needs with testenv.Need")
		}
		return true
	})
	return findings
}

// TestNoBuildTagHidesATest: only the operating system, and the one engine that needs a C library, decide
// which tests are compiled.
func TestNoBuildTagHidesATest(t *testing.T) {
	t.Parallel()
	eachSource(t, hides, "x_test.go", "//go:build integration\n\npackage x\n")
}

func hides(s *source) (findings []string) {
	if !s.test {
		return nil
	}
	known := []string{"linux", "windows", "darwin", "unix", "amd64", "arm64", "cgo", "yara", "race"}
	for _, group := range s.ast.Comments {
		for _, c := range group.List {
			expr, err := constraint.Parse(c.Text)
			if err != nil {
				continue
			}
			expr.Eval(func(tag string) bool {
				if !slices.Contains(known, tag) {
					findings = append(findings, fmt.Sprintf("%s: the tag %q hides a test: use testenv.Need", s.at(c), tag))
				}
				return true
			})
		}
	}
	return findings
}
