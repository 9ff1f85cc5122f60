package tidy

import (
	"strings"
	"testing"
)

// TestEveryDependencyHasAReason compares what the tree imports with docs/dependencies.md. It reads the
// imports and not go.mod, whose "indirect" marks are only as right as the last "go mod tidy".
func TestEveryDependencyHasAReason(t *testing.T) {
	t.Parallel()
	modules := map[string]string{} // by package
	for _, p := range goList(t, "-deps", "-test", "./...") {
		if p.Module != nil && !p.Module.Main {
			modules[p.ImportPath] = p.Module.Path
		}
	}
	imported := map[string]string{} // module: who imports it
	for _, p := range goList(t, "./...") {
		for _, list := range [][]string{p.Imports, p.TestImports, p.XTestImports} {
			for _, i := range list {
				if m := modules[i]; m != "" {
					imported[m] = p.ImportPath
				}
			}
		}
	}
	listed := map[string]bool{}
	for _, row := range rows(document(t, "docs/dependencies.md")) {
		name := strings.Trim(row[0], "`")
		if listed[name] {
			t.Errorf("docs/dependencies.md: %s has two lines", name)
		}
		listed[name] = true
		if imported[name] == "" {
			t.Errorf("docs/dependencies.md: %s is imported by no package: remove its line", name)
		}
	}
	for m, who := range imported {
		if !listed[m] {
			t.Errorf("docs/dependencies.md: no line for %s, which %s imports: say why it is worth it", m, who)
		}
	}
}
