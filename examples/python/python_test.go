// Package python_test checks the example in Python.
package python_test

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/keepout-security/keepout/internal/testenv"
	"github.com/keepout-security/keepout/provider/conformance"
)

func TestConformance(t *testing.T) {
	testenv.Need(t, testenv.Python)
	bad := []byte("a file that is on the list\n")
	content := t.TempDir()
	list := fmt.Sprintf("# digest, name\n\n%x Test.Bad\n", sha256.Sum256(bad))
	if err := os.WriteFile(filepath.Join(content, "deny.txt"), []byte(list), 0o600); err != nil {
		t.Fatal(err)
	}
	conformance.Run(t, conformance.Command{
		Path: "provider.py", Content: content, Deny: bad, Allow: []byte("another file\n"),
	})
}

func TestGoldenVectors(t *testing.T) {
	testenv.Need(t, testenv.Python)
	check := exec.Command("/usr/bin/python3", "vectors_test.py", "../../wire/testdata/vectors")
	out, err := check.CombinedOutput()
	if err != nil {
		t.Fatalf("vectors_test.py: %v\n%s", err, out)
	}
	t.Logf("%s", out)
}

// TestStaysReadable keeps the example an example.
func TestStaysReadable(t *testing.T) {
	text, err := os.ReadFile("provider.py")
	if err != nil {
		t.Fatal(err)
	}
	lines := slices.DeleteFunc(strings.Split(string(text), "\n"), func(line string) bool { return line == "" })
	if len(lines) >= 200 {
		t.Errorf("provider.py has %d lines that are not empty", len(lines))
	}
}
