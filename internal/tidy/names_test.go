package tidy

import (
	"fmt"
	"go/ast"
	"go/token"
	"regexp"
	"strings"
	"testing"
)

// emptyWords say a role and not a thing; a name that needs one is the name of nothing yet.
var emptyWords = []string{"manager", "handler", "util", "utility", "utilities", "common", "helper", "misc"}

// otherWords are what others call a provider.
var otherWords = []string{"plugin", "agent", "driver"}

func TestNames(t *testing.T) {
	t.Parallel()
	eachSource(t, emptyName, "x.go", "package x\n\ntype eventManager struct{}\n")
}

func emptyName(s *source) (findings []string) {
	if s.generated {
		return nil
	}
	file := strings.TrimSuffix(s.name, ".go")
	for _, part := range append(strings.Split(file, "/"), s.ast.Name.Name) {
		if word := banned(part); word != "" {
			findings = append(findings, fmt.Sprintf("%s: %q in the name of a file or package: name what it holds",
				s.name, word))
		}
	}
	for _, id := range declared(s.ast) {
		// A stand-in for testing.TB must have the interface's method.
		if word := banned(id.Name); word != "" && (!s.test || id.Name != "Helper") {
			findings = append(findings, fmt.Sprintf("%s: %q in %s: name the thing, not its role (a vendor's process "+
				"is a provider)", s.at(id), word, id.Name))
		}
	}
	return findings
}

// The seams of a name: "HTTPServer" is two words, and so is "eventQueue".
var (
	afterAcronym = regexp.MustCompile(`([A-Z])([A-Z][a-z])`)
	afterWord    = regexp.MustCompile(`([a-z0-9])([A-Z])`)
	notAWord     = regexp.MustCompile(`[^A-Za-z0-9]+`)
)

func words(name string) []string {
	name = afterWord.ReplaceAllString(afterAcronym.ReplaceAllString(name, "${1}_$2"), "${1}_$2")
	return notAWord.Split(strings.ToLower(name), -1)
}

// banned returns the first banned word in a name, or "".
func banned(name string) string {
	for _, word := range words(name) {
		for _, bad := range append(emptyWords[:len(emptyWords):len(emptyWords)], otherWords...) {
			if word == bad || word == bad+"s" {
				return bad
			}
		}
	}
	return ""
}

// declared lists the identifiers that a file gives names to.
func declared(f *ast.File) (ids []*ast.Ident) {
	add := func(exprs ...ast.Expr) {
		for _, e := range exprs {
			if id, ok := e.(*ast.Ident); ok {
				ids = append(ids, id)
			}
		}
	}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			ids = append(ids, n.Name)
		case *ast.TypeSpec:
			ids = append(ids, n.Name)
		case *ast.ValueSpec:
			ids = append(ids, n.Names...)
		case *ast.Field:
			ids = append(ids, n.Names...)
		case *ast.LabeledStmt:
			ids = append(ids, n.Label)
		case *ast.AssignStmt:
			if n.Tok == token.DEFINE {
				add(n.Lhs...)
			}
		case *ast.RangeStmt:
			if n.Tok == token.DEFINE {
				add(n.Key, n.Value)
			}
		}
		return true
	})
	return ids
}

func TestBanned(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"EventManager": "manager", "HTTPHandler": "handler", "string_utils": "util", "pluginDir": "plugin",
		"fileHandle": "", "commonality": "", "reagent": "", "Arbiter": "", "agentID": "agent", "x": "",
	} {
		if got := banned(name); got != want {
			t.Errorf("banned(%q) = %q, want %q", name, got, want)
		}
	}
}
