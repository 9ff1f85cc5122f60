//go:build linux

package arming

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TestAnyCutIsTakenBack: arming that ends after any of its changes, by a power cut or because a disk takes nothing
// more, is taken back to the byte.
func TestAnyCutIsTakenBack(t *testing.T) {
	t.Parallel()
	for name, files := range map[string]map[string]string{"GRUB": grubSystem(nil), "systemd-boot": sdSystem(nil)} {
		for cut := 0; ; cut++ {
			root := build(t, files)
			before := tree(t, root)
			p := plan(t, root, Options{})
			if cut > len(p.Changes) {
				break
			}
			if err := p.foretell(); err != nil {
				t.Fatal(err)
			}
			for i := range p.Changes[:cut] {
				if err := p.apply(&p.Changes[i]); err != nil {
					t.Fatal(err)
				}
			}
			if cut < len(p.Changes) {
				half(t, root, &p.Changes[cut])
			}
			takenBack(t, name, root, before)
		}
	}
}

// half does what a change of name and content does first.
func half(t *testing.T, root string, c *Change) {
	t.Helper()
	if c.To == "" || c.To == filepath.Base(c.Path) {
		return
	}
	path := filepath.Join(root, c.Path)
	if err := os.Rename(path, filepath.Join(filepath.Dir(path), c.To)); err != nil {
		t.Fatal(err)
	}
}

// TestADiskThatTakesNothing: where Keepout's folder cannot be made, arming says so, and what it had changed is known.
func TestADiskThatTakesNothing(t *testing.T) {
	t.Parallel()
	root := build(t, sdSystem(nil))
	before := tree(t, root)
	p := plan(t, root, Options{})
	obstacle := filepath.Join(root, p.Changes[slices.IndexFunc(p.Changes, func(c Change) bool {
		return filepath.Base(c.Path) == "crumb"
	})].Path)
	if err := os.WriteFile(filepath.Dir(obstacle), []byte("in the way"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := p.Apply(); err == nil {
		t.Error("nothing went wrong")
	}
	if err := os.Remove(filepath.Dir(obstacle)); err != nil {
		t.Fatal(err)
	}
	takenBack(t, "afterwards", root, before)
}

func takenBack(t *testing.T, name, root string, before map[string]string) {
	t.Helper()
	back, err := Disarm(Options{Root: root})
	if err != nil || len(back.Notes) > 0 {
		t.Fatalf("%s: %v %v", name, err, back.Notes)
	}
	if err := back.Apply(); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if left := slices.DeleteFunc(differences(before, tree(t, root)), forRecord); len(left) > 0 {
		t.Errorf("%s: not as before: %v", name, left)
	}
	if armed, err := Armed(root); armed || err != nil {
		t.Errorf("%s: still armed: %v", name, err)
	}
}
