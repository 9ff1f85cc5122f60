//go:build linux

package copies

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keepout-security/keepout/internal/boot"
)

// machine is a host's own trees, with a folder of copies.
type machine struct {
	t     *testing.T
	root  string
	dir   string
	trees Trees
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	root := t.TempDir()
	m := &machine{t: t, root: root, dir: filepath.Join(root, "copies"), trees: Trees{
		"config": filepath.Join(root, "etc"), "program": filepath.Join(root, "lib"), "state": filepath.Join(root, "state"),
	}}
	m.write("etc/keepout.yaml", "watch: [/]\n", 0o640)
	m.write("lib/keepoutd", "elf", 0o755)
	m.write("state/slots.json", "{}", 0o600)
	m.write("state/trust/memory.json", "what was seen", 0o600)
	m.keep()
	return m
}

func (m *machine) write(name, text string, mode os.FileMode) {
	m.t.Helper()
	name = filepath.Join(m.root, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), mode); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) keep() {
	m.t.Helper()
	if err := Keep(m.dir, m.trees); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) restore(path, text string) error {
	return Restore(m.dir, m.trees, boot.Restore{Path: path, SHA256: digestOf(text)})
}

func (m *machine) want(name, text string) {
	m.t.Helper()
	if got, err := os.ReadFile(filepath.Join(m.root, name)); err != nil || string(got) != text {
		m.t.Errorf("%s is %q, %v; want %q", name, got, err, text)
	}
}

func digestOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// TestRestoreGivesBack: a file that was changed, damaged or removed gets what it was at a good boot, with its mode,
// also after later good boots, and again when it is asked for twice.
func TestRestoreGivesBack(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.write("etc/keepout.yaml", "watch: []\n", 0o600)
	m.keep()
	if err := os.Remove(filepath.Join(m.root, "lib", "keepoutd")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := m.restore("config/keepout.yaml", "watch: [/]\n"); err != nil {
			t.Fatal(err)
		}
		if err := m.restore("program/keepoutd", "elf"); err != nil {
			t.Fatal(err)
		}
	}
	m.want("etc/keepout.yaml", "watch: [/]\n")
	m.want("lib/keepoutd", "elf")
	if info, err := os.Stat(filepath.Join(m.root, "lib", "keepoutd")); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("the program's mode: %v, %v", info.Mode(), err)
	}
}

// TestRestoreRefuses: what is not kept, damaged, or not Keepout's own stays as it is.
func TestRestoreRefuses(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.write("elsewhere/shadow", "root:x", 0o600)
	for name, link := range map[string]string{"etc/out": "../elsewhere", "etc/abs": filepath.Join(m.root, "elsewhere")} {
		if err := os.Symlink(link, filepath.Join(m.root, name)); err != nil {
			t.Fatal(err)
		}
	}
	for path, text := range map[string]string{
		"config/keepout.yaml": "never seen", "config/out/shadow": "elf", "config/abs/shadow": "elf",
		"config/../elsewhere/shadow": "elf", "config//x": "elf", "config/": "elf", "config": "elf", "etc/passwd": "elf",
		"state/trust/memory.json": "what was seen", "/config/x": "elf", "": "elf",
	} {
		if err := m.restore(path, text); err == nil {
			t.Errorf("%s: restored", path)
		}
	}
	m.want("elsewhere/shadow", "root:x")
	m.want("etc/keepout.yaml", "watch: [/]\n")
	if err := os.WriteFile(filepath.Join(m.dir, digestOf("{}")), []byte("{ }"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := m.restore("state/slots.json", "{}"); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("from a damaged copy: %v", err)
	}
}

// TestALinkAtTheFileIsReplaced: it is not written through.
func TestALinkAtTheFileIsReplaced(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.write("elsewhere/shadow", "root:x", 0o600)
	name := filepath.Join(m.root, "etc", "keepout.yaml")
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../elsewhere/shadow", name); err != nil {
		t.Fatal(err)
	}
	if err := m.restore("config/keepout.yaml", "watch: [/]\n"); err != nil {
		t.Fatal(err)
	}
	m.want("etc/keepout.yaml", "watch: [/]\n")
	m.want("elsewhere/shadow", "root:x")
}

// TestCopiesAreBounded: only the last good boots' files stay, and nothing is copied twice.
func TestCopiesAreBounded(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	for i := range 2 * generations {
		m.write("etc/keepout.yaml", strings.Repeat("#", i+1), 0o640)
		m.keep()
		m.keep()
	}
	entries, err := os.ReadDir(m.dir)
	if err != nil || len(entries) != generations+2+1 { // the changed file's, the two others, the list
		t.Errorf("%d files are kept, %v", len(entries), err)
	}
	if err := m.restore("config/keepout.yaml", "watch: [/]\n"); err == nil {
		t.Error("the oldest copy is still there")
	}
	if err := m.restore("config/keepout.yaml", strings.Repeat("#", generations+1)); err != nil {
		t.Error(err)
	}
}

// TestADamagedListLosesNoCopies: they are found by their digests.
func TestADamagedListLosesNoCopies(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.write("etc/keepout.yaml", "broken", 0o600)
	if err := os.WriteFile(filepath.Join(m.dir, listName), []byte("{torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := m.restore("config/keepout.yaml", "watch: [/]\n"); err != nil {
		t.Fatal(err)
	}
	m.want("etc/keepout.yaml", "watch: [/]\n")
}

// FuzzList: whatever the list says, only a copy with the right digest is given back, in its place.
func FuzzList(f *testing.F) {
	f.Add([]byte(`{"good":[[{"path":"config/keepout.yaml","sha256":"aa","mode":420,"size":1}]]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		m := newMachine(t)
		if err := os.WriteFile(filepath.Join(m.dir, listName), text, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := m.restore("config/keepout.yaml", "watch: [/]\n"); err != nil {
			t.Fatal(err)
		}
		m.want("etc/keepout.yaml", "watch: [/]\n")
		m.keep()
	})
}
