package tidy

import (
	"bytes"
	"fmt"
	"go/ast"
	"path"
	"strings"
	"testing"
	"unicode/utf8"
)

const (
	fileLines     = 500
	testFileLines = 800
	funcLines     = 70 // of the body; a table of tests may be longer
	mainLines     = 40
	columns       = 120
)

func TestFilesAreShort(t *testing.T) {
	t.Parallel()
	eachSource(t, longFile, "x.go", "package x\n"+strings.Repeat("\n", fileLines))
}

func longFile(s *source) []string {
	limit := fileLines
	switch {
	case s.generated:
		return nil
	case s.test:
		limit = testFileLines
	case strings.HasPrefix(s.name, "cmd/") && path.Base(s.name) == "main.go":
		limit = mainLines
	}
	if n := bytes.Count(s.text, []byte("\n")); n > limit {
		return []string{fmt.Sprintf("%s: %d lines, limit %d: split it by what it does", s.name, n, limit)}
	}
	return nil
}

func TestMainIsShort(t *testing.T) {
	t.Parallel()
	eachSource(t, longFile, "cmd/x/main.go", "package main\n"+strings.Repeat("\n", mainLines))
}

func TestFunctionsFitAScreen(t *testing.T) {
	t.Parallel()
	eachSource(t, longFunction, "x.go", "package x\n\nfunc f() {\n"+strings.Repeat("\tf()\n", funcLines+1)+"}\n")
}

func longFunction(s *source) (findings []string) {
	if s.generated || s.test {
		return nil
	}
	for _, d := range s.ast.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok || f.Body == nil {
			continue
		}
		n := s.fset.Position(f.Body.Rbrace).Line - s.fset.Position(f.Body.Lbrace).Line - 1
		if n > funcLines {
			findings = append(findings, fmt.Sprintf("%s: %s has %d lines, limit %d: give a step a name",
				s.at(f), f.Name.Name, n, funcLines))
		}
	}
	return findings
}

func TestLinesAreNarrow(t *testing.T) {
	t.Parallel()
	eachSource(t, wideLine, "x.go", "package x\n\n// "+strings.Repeat("x", columns)+"\n")
}

func wideLine(s *source) (findings []string) {
	if s.generated {
		return nil
	}
	number := 0
	for line := range bytes.Lines(s.text) {
		number++
		if n := utf8.RuneCount(bytes.TrimRight(line, "\n")); n > columns {
			findings = append(findings, fmt.Sprintf("%s:%d: %d columns, limit %d: break the line",
				s.name, number, n, columns))
		}
	}
	return findings
}
