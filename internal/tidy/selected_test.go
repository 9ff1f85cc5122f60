package tidy

import (
	"go/ast"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestEveryBenchmarkIsSelected: a benchmark that SPECIFICATION.md names is run by a target of the Makefile: those of
// bench by one that names them, all others by lane-micro.
func TestEveryBenchmarkIsSelected(t *testing.T) {
	t.Parallel()
	named := regexp.MustCompile("`(Benchmark[A-Za-z0-9_]*)(?:/[^`]*)?`").
		FindAllStringSubmatch(document(t, "SPECIFICATION.md"), -1)
	if len(named) == 0 {
		t.Fatal("SPECIFICATION.md names no benchmark")
	}
	folders := map[string][]string{}
	for _, s := range tree(t) {
		for _, d := range s.ast.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && s.test && f.Recv == nil {
				folders[f.Name.Name] = append(folders[f.Name.Name], s.dir())
			}
		}
	}
	makefile := document(t, "Makefile")
	if !strings.Contains(makefile, "-bench . -benchtime 1x $$(grep -rl --include='*_test.go' '^func Benchmark' .") ||
		!strings.Contains(makefile, "grep -vx ./bench)") {
		t.Error("lane-micro does not run every benchmark outside of bench")
	}
	selectors := selectorsOf(t, makefile)
	for _, m := range named {
		if slices.Contains(folders[m[1]], "bench") &&
			!slices.ContainsFunc(selectors, func(r *regexp.Regexp) bool { return r.MatchString(m[1]) }) {
			t.Errorf("SPECIFICATION.md names %s, and no target of the Makefile selects it", m[1])
		}
	}
}

// selectorsOf reads what the Makefile's measurements select in bench.
func selectorsOf(t *testing.T, makefile string) (out []*regexp.Regexp) {
	t.Helper()
	promises := regexp.MustCompile(`(?m)^PROMISES := (.*)$`).FindStringSubmatch(makefile)
	if promises == nil {
		t.Fatal("the Makefile has no PROMISES")
	}
	for _, m := range regexp.MustCompile(`(?m)^\t\$\(BENCH\) -bench '([^']*)'`).FindAllStringSubmatch(makefile, -1) {
		pattern := strings.NewReplacer("$(PROMISES)", promises[1], "$$", "$").Replace(m[1])
		r, err := regexp.Compile(pattern)
		if err != nil {
			t.Fatalf("Makefile: -bench %s: %v", m[1], err)
		}
		out = append(out, r)
	}
	if len(out) < 2 {
		t.Fatalf("%d measurements in the Makefile, want those of bench and bench-promises at least", len(out))
	}
	return out
}
