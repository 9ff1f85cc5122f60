package tidy

import (
	"go/scanner"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// guardLines bounds what must be read to trust the guard: lines that are neither blank nor comment, imports included.
const guardLines = 399

// guards are the packages that only the guard links.
var guards = []string{"cmd/keepoutd", "internal/guard"}

// TestGuardIsSmall counts the guard's own lines.
func TestGuardIsSmall(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(filepath.Join(root, "internal", "guard", "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	total := 0
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		total += codeLines(text)
	}
	if total > guardLines || total < guardLines/2 {
		t.Errorf("%d lines of code, limit %d", total, guardLines)
	}
	t.Logf("%d lines of code", total)
}

// TestGuardHidesNothing: whatever else of ours the guard links, the core links, too. So none of it is the guard moved
// out of sight.
func TestGuardHidesNothing(t *testing.T) {
	t.Parallel()
	core := goList(t, "-deps", "./cmd/keepout-core")
	for _, p := range goList(t, "-deps", "./cmd/keepoutd") {
		pkg, own := local(p.ImportPath)
		shared := slices.ContainsFunc(core, func(c listed) bool { return c.ImportPath == p.ImportPath })
		if own && !shared && !slices.Contains(guards, pkg) {
			t.Errorf("%s is linked by the guard alone: count its lines in TestGuardIsSmall", pkg)
		}
	}
}

func TestCodeLines(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int{
		"": 0, "package x\n": 1, "// a\n\npackage x // b\n\n/* c\nd */ var y = `e\n\nf`\n": 4,
	} {
		if got := codeLines([]byte(text)); got != want {
			t.Errorf("%q: %d lines of code, want %d", text, got, want)
		}
	}
}

// codeLines counts the lines that hold a part of a token that is no comment.
func codeLines(text []byte) int {
	file := token.NewFileSet().AddFile("", -1, len(text))
	var s scanner.Scanner
	s.Init(file, text, nil, 0)
	lines := map[int]bool{}
	for {
		pos, tok, literal := s.Scan()
		if tok == token.EOF {
			return len(lines)
		}
		for i := range 1 + strings.Count(literal, "\n") {
			if tok != token.SEMICOLON || literal != "\n" { // not one that the scanner has put there
				lines[file.Line(pos)+i] = true
			}
		}
	}
}
