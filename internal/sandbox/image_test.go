package sandbox

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestImageIsInMemory: what the launcher is executed from must not be on a file system that can be watched, and must be
// this very program.
func TestImageIsInMemory(t *testing.T) {
	if image() == nil {
		t.Fatal("the launcher is not executed from memory")
	}
	path := fmt.Sprintf("/proc/self/fd/%d", image().Fd())
	to, err := os.Readlink(path)
	if err != nil || !strings.HasPrefix(to, "/memfd:") {
		t.Fatalf("the launcher is executed from %q (%v), want memory", to, err)
	}
	copied, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	own, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(copied, own) {
		t.Errorf("%d bytes in memory differ from the %d of this program", len(copied), len(own))
	}
}
