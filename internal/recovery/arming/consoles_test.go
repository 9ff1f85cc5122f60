//go:build linux

package arming

import (
	"os"
	"path/filepath"
	"testing"
)

func TestWithConsoles(t *testing.T) {
	t.Parallel()
	const entry = "options   quiet loglevel=3 keepout.copy=a\n"
	for line, want := range map[string]string{
		"root=/dev/vda ro\n": entry,
		"root=/dev/vda console=tty0 ro console=ttyS0,115200n8\n": "options   console=tty0 console=ttyS0,115200n8 " +
			"quiet loglevel=3 keepout.copy=a\n",
		"console=ttyS0;reboot console=\"a console=$(b)\n": entry, // nothing that a loader would read as more than a word
	} {
		root := t.TempDir()
		if err := os.MkdirAll(filepath.Join(root, "proc"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, "proc", "cmdline"), []byte(line), 0o600); err != nil {
			t.Fatal(err)
		}
		p := planner{Options: Options{Root: root}}
		if got := string(p.withConsoles([]byte(entry))); got != want {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
	p := planner{Options: Options{Root: t.TempDir()}}
	if got := string(p.withConsoles([]byte(entry))); got != entry {
		t.Errorf("without a kernel: %q", got)
	}
}
