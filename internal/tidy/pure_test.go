package tidy

import (
	"fmt"
	"go/ast"
	"slices"
	"strings"
	"testing"
)

// impureImports are what a decision has no use for; what lies below them counts, too.
var impureImports = []string{
	"os", "net", "sync", "syscall", "golang.org/x/sys", "math/rand", "log", "io/fs", "unsafe",
}

// clock are the functions of package time that read it or wait for it.
var clock = []string{
	"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTicker", "NewTimer",
}

// TestDecisionsArePure keeps the core replayable: the same inputs give the same effects, in a test, in a
// simulation and in the field.
func TestDecisionsArePure(t *testing.T) {
	t.Parallel()
	eachSource(t, impure, "internal/arbiter/x.go",
		"package arbiter\n\nimport \"time\"\n\nfunc f() { go f(); _ = time.Now() }\n")
}

func impure(s *source) (findings []string) {
	if p := placeOf(s.dir()); p == nil || p.layer != core || s.test {
		return nil
	}
	for _, i := range s.ast.Imports {
		imported := strings.Trim(i.Path.Value, `"`)
		for _, bad := range impureImports {
			if imported == bad || strings.HasPrefix(imported, bad+"/") {
				findings = append(findings, fmt.Sprintf("%s: imports %s; a decision does no I/O and shares no state: "+
					"take the fact as an input, return the act as an effect", s.at(i), imported))
			}
		}
	}
	timeName := s.imports("time")
	ast.Inspect(s.ast, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt, *ast.SelectStmt, *ast.SendStmt, *ast.ChanType:
			findings = append(findings, s.at(n)+": starts a goroutine or uses a channel; the shell does that")
		case *ast.SelectorExpr:
			if x, ok := n.X.(*ast.Ident); ok && x.Name == timeName && slices.Contains(clock, n.Sel.Name) {
				findings = append(findings, fmt.Sprintf("%s: time.%s reads the clock; take now as an input",
					s.at(n), n.Sel.Name))
			}
		}
		return true
	})
	return findings
}
