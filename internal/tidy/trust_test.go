package tidy

import (
	"strings"
	"testing"
)

// trusting are the packages by which a host decides what it believes. The privileged core links them.
var trusting = []string{"./internal/sign", "./internal/artifact/layout", "./internal/folder"}

// TestTrustIsSmall: what verifies signatures links no network and nobody else's code.
func TestTrustIsSmall(t *testing.T) {
	t.Parallel()
	for _, pkg := range trusting {
		for _, p := range goList(t, "-deps", pkg) {
			_, own := local(p.ImportPath)
			switch {
			case p.ImportPath == "net" || strings.HasPrefix(p.ImportPath, "net/"):
				t.Errorf("%s links %s: it must not be able to speak to anybody", pkg, p.ImportPath)
			case !own && strings.Contains(strings.Split(p.ImportPath, "/")[0], "."):
				t.Errorf("%s links %s: the standard library is all it may use", pkg, p.ImportPath)
			}
		}
	}
}
