package tidy

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write cmd/*/deps.txt")

// neverInCore are packages that open a network connection, or exist to do so.
var neverInCore = []string{
	"net/http", "net/rpc", "net/smtp", "crypto/tls", "google.golang.org/grpc", "plugin", "html/template",
}

// TestCoreKnowsNoNetwork proves that the privileged daemon cannot speak HTTP or TLS: it links no code for it.
func TestCoreKnowsNoNetwork(t *testing.T) {
	t.Parallel()
	for _, p := range goList(t, "-deps", "./cmd/keepout-core") {
		for _, bad := range neverInCore {
			if p.ImportPath == bad || strings.HasPrefix(p.ImportPath, bad+"/") {
				t.Errorf("cmd/keepout-core links %s: find out who imports it with \"go mod why\" or "+
					"\"go list -deps\", and move that to another process", p.ImportPath)
			}
		}
	}
}

// TestLinkedPackages makes a change of what a command links visible in review.
func TestLinkedPackages(t *testing.T) {
	t.Parallel()
	commands := goList(t, "./cmd/...")
	if len(commands) == 0 {
		t.Fatal("no command below cmd")
	}
	for _, c := range commands {
		pkg, _ := local(c.ImportPath)
		t.Run(filepath.Base(pkg), func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(root, filepath.FromSlash(pkg), "deps.txt")
			want := linked(t, "./"+pkg)
			if *update {
				if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			got, err := os.ReadFile(file)
			if err != nil || string(got) != want {
				t.Errorf("%s/deps.txt is not what %s links (%v).\nlinked, not listed: %v\nlisted, not linked: %v\n"+
					"Ask whether it must; then: go test ./internal/tidy -run TestLinkedPackages -update",
					pkg, pkg, err, missing(want, string(got)), missing(string(got), want))
			}
		})
	}
}

// linked lists the packages of others, one a line, sorted. What is internal to them is left out: it changes
// with their releases, and nobody here chose it.
func linked(t *testing.T, pkg string) string {
	t.Helper()
	var b strings.Builder
	var names []string
	for _, p := range goList(t, "-deps", pkg) {
		parts := strings.Split(p.ImportPath, "/")
		inside := slices.Contains(parts, "internal") || parts[0] == "vendor"
		if _, own := local(p.ImportPath); !own && !inside {
			names = append(names, p.ImportPath)
		}
	}
	slices.Sort(names)
	for _, n := range names {
		b.WriteString(n + "\n")
	}
	return b.String()
}

// missing lists the lines of a that b lacks.
func missing(a, b string) (lines []string) {
	have := strings.Fields(b)
	for _, line := range strings.Fields(a) {
		if !slices.Contains(have, line) {
			lines = append(lines, line)
		}
	}
	return lines
}
