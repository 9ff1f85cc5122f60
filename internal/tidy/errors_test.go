package tidy

import (
	"go/ast"
	"go/token"
	"regexp"
	"strings"
	"testing"
)

var (
	code      = regexp.MustCompile(`\bKO-\d{4}\b`)
	codeEntry = regexp.MustCompile(`(?m)^(?:#+ +|\| *)` + "`?" + `(KO-\d{4})\b`)
)

// TestEveryErrorCodeIsExplained: docs/errors.md lists exactly the codes that the program can print, each
// once.
func TestEveryErrorCodeIsExplained(t *testing.T) {
	t.Parallel()
	used := map[string]string{}
	for _, s := range tree(t) {
		if s.test {
			continue
		}
		ast.Inspect(s.ast, func(n ast.Node) bool {
			if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
				for _, c := range code.FindAllString(lit.Value, -1) {
					used[c] = s.at(lit)
				}
			}
			return true
		})
	}
	explained := map[string]int{}
	for _, m := range codeEntry.FindAllStringSubmatch(document(t, "docs/errors.md"), -1) {
		explained[m[1]]++
	}
	for c, where := range used {
		if explained[c] == 0 {
			t.Errorf("docs/errors.md: no entry for %s (%s): add \"| %s |\" with cause and next command", c, where, c)
		}
	}
	for c, n := range explained {
		if used[c] == "" {
			t.Errorf("docs/errors.md: %s is printed nowhere: remove its entry, never use its number again", c)
		}
		if n > 1 {
			t.Errorf("docs/errors.md: %s has %d entries", c, n)
		}
	}
}

func TestErrorsAreLowerCaseAndDirect(t *testing.T) {
	t.Parallel()
	eachSource(t, failedTo, "x.go", "package x\n\nimport \"errors\"\n\nvar _ = errors.New(\"failed to open\")\n")
}

// failedTo finds errors that spend their first words on saying that they are errors.
func failedTo(s *source) (findings []string) {
	if s.test || s.generated {
		return nil
	}
	ast.Inspect(s.ast, func(n ast.Node) bool {
		lit, ok := n.(*ast.BasicLit)
		if ok && lit.Kind == token.STRING && strings.HasPrefix(strings.ToLower(lit.Value[1:]), "failed to ") {
			findings = append(findings, s.at(lit)+": \"failed to\" says nothing: begin with what was tried")
		}
		return true
	})
	return findings
}
