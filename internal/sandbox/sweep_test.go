package sandbox

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/internal/testenv"
)

// die gives the locks of a daemon up, as the kernel does when a process ends.
func die(g *Groups) { closeAll(g.locks) }

// severalHierarchies makes two daemons, and lists the folders of the first.
func severalHierarchies(t *testing.T) (dead, other *Groups, tops []string) {
	t.Helper()
	testenv.Need(t, testenv.Root, testenv.CGroup1)
	dead, other = NewGroups(stateDir(t)), NewGroups(stateDir(t))
	t.Cleanup(other.Close)
	t.Cleanup(dead.Close)
	if tops = dead.tops(dead.name); len(tops) < 2 {
		t.Fatalf("groups in %q only", tops)
	}
	return dead, other, tops
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// TestAnInterruptedSweepGoesOn: while anything is left of a dead daemon, its folder in the first hierarchy is, by which
// the next sweep knows whose it was.
func TestAnInterruptedSweepGoesOn(t *testing.T) {
	dead, other, tops := severalHierarchies(t)
	last := tops[len(tops)-1]
	stays := filepath.Join(last, "stays") // no slot of ours: the folder cannot be removed while it is there
	must(t, os.Mkdir(stays, 0o755))
	t.Cleanup(func() { _ = unix.Rmdir(stays) })
	die(dead)
	other.sweep()
	if !exists(last) || !exists(tops[0]) {
		t.Fatalf("the last hierarchy's folder is there: %v, the first one's: %v", exists(last), exists(tops[0]))
	}
	must(t, unix.Rmdir(stays))
	other.sweep()
	for _, top := range tops {
		if exists(top) {
			t.Errorf("%s is left", top)
		}
	}
}

// TestSweepLooksInEachHierarchy: what a dead daemon left in one hierarchy goes although nothing is left in the first,
// as when that daemon had another parent there; of one that lives it stays, and nobody is ended.
func TestSweepLooksInEachHierarchy(t *testing.T) {
	dead, other, tops := severalHierarchies(t)
	slot := slotDir(cpuController, filepath.Join(filepath.Dir(tops[1]), dead.name), "slot-3")
	must(t, os.Mkdir(slot, 0o755))
	t.Cleanup(func() { _ = unix.Rmdir(slot) })
	must(t, unix.Rmdir(tops[0]))
	other.sweep()
	if !exists(slot) || !exists(tops[1]) {
		t.Fatal("the folder of a daemon that lives was removed")
	}
	die(dead)
	other.sweep()
	if exists(slot) {
		t.Errorf("%s is left", slot)
	}
	for _, top := range tops {
		if exists(top) {
			t.Errorf("%s is left", top)
		}
	}
}

// TestCloseLeavesNothing: a group that a core before this one left, and that is not used again, goes as well.
func TestCloseLeavesNothing(t *testing.T) {
	dead, _, tops := severalHierarchies(t)
	must(t, os.Mkdir(filepath.Join(tops[0], "slot-9"), 0o755))
	dead.Close()
	for _, top := range tops {
		if exists(top) {
			t.Errorf("%s is left", top)
		}
	}
}
