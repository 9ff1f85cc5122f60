package guard

import (
	"debug/elf"
	"go/parser"
	"go/scanner"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keepout-security/keepout/internal/testenv"
)

// maxLines bounds what must be read to trust the guard: lines with code, without the imports.
const maxLines = 520

func TestGuardIsSmall(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	total := 0
	for _, name := range files {
		if !strings.HasSuffix(name, "_test.go") {
			total += codeLines(t, name)
		}
	}
	if total > maxLines || total < maxLines/2 {
		t.Errorf("%d lines of code, limit %d", total, maxLines)
	}
	t.Logf("%d lines of code", total)
}

func codeLines(t *testing.T, name string) int {
	t.Helper()
	src, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	set := token.NewFileSet()
	f, err := parser.ParseFile(set, name, src, parser.ImportsOnly)
	if err != nil {
		t.Fatal(err)
	}
	after := set.Position(f.Name.End()).Line
	if n := len(f.Decls); n > 0 {
		after = set.Position(f.Decls[n-1].End()).Line
	}
	lines := map[int]bool{}
	file := set.AddFile(name, -1, len(src))
	var s scanner.Scanner
	s.Init(file, src, nil, 0)
	for {
		pos, tok, _ := s.Scan()
		if tok == token.EOF {
			return len(lines)
		}
		if line := file.Line(pos); line > after {
			lines[line] = true
		}
	}
}

// TestGuardIsStatic: it loads no library, which would be a file that it opens.
func TestGuardIsStatic(t *testing.T) {
	t.Parallel()
	f, err := elf.Open(filepath.Join(testenv.Build(t, "./cmd/keepoutd"), "keepoutd"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			t.Errorf("keepoutd has a %v", p.Type)
		}
	}
}
