package sim

import (
	"fmt"
	"path"
	"slices"

	"github.com/keepout-security/keepout/internal/rollback"
	"github.com/keepout-security/keepout/internal/simdisk"
	"github.com/keepout-security/keepout/internal/store"
)

// Damage plays one history, flips bits on the disk, and says what is wrong with how the platform starts after that:
// it must start, run nothing that is not as it was stored, and say what it found.
func Damage(seed uint64) error {
	rng := random(seed, 1)
	disk := simdisk.New()
	h := NewHistory(disk, storeDir, rng)
	if err := live(h, disk); err != nil {
		return err
	}
	want := h.damage(disk)
	// What was committed last may be what was damaged.
	h = h.On(disk)
	h.Ledger = NewLedger()
	if rng.IntN(2) == 0 { // the power is cut while it recovers
		disk.CutAt(1 + rng.IntN(40))
		if err := live(h, disk); err != nil {
			return err
		}
		disk = disk.Crash(rng)
		h, want = h.On(disk), ""
		h.Ledger = NewLedger()
	}
	if err := h.Boot(); err != nil {
		return fmt.Errorf("it does not start: %w", err)
	}
	said := func(p problem) bool { return p.Code == want }
	if want != "" && !slices.ContainsFunc(h.store.Problems(), said) {
		return wrong(fmt.Errorf("%s is not said: %v", want, h.store.Problems()))
	}
	return h.Well(store.CodeTorn, store.CodeForgotten, rollback.CodeLost)
}

// damage flips a bit somewhere and returns the code of the problem that must be said, "" if none need be.
func (h *History) damage(disk *simdisk.Disk) (code string) {
	id := providers()[h.Rand.IntN(len(providers()))]
	copies := []string{path.Join(storeDir, "state", id, "a"), path.Join(storeDir, "state", id, "b")}
	switch h.Rand.IntN(3) {
	case 0:
		disk.Damage(h.Rand, copies[h.Rand.IntN(2)])
		return store.CodeTorn
	case 1:
		for _, c := range copies {
			disk.Damage(h.Rand, c)
		}
		return store.CodeForgotten
	}
	// Any file of any package.
	st := h.states[id]
	all := st.Digests()
	d := all[h.Rand.IntN(len(all))]
	files := tree(disk, path.Join(storeDir, "objects", string(d)))
	disk.Damage(h.Rand, files[h.Rand.IntN(len(files))])
	if d == st.Engine.Factory.Digest || d == st.Content.Factory.Digest {
		return "" // healed: what came with the installation is imported at each start
	}
	return rollback.CodeLost
}

// tree lists the files below a folder.
func tree(disk *simdisk.Disk, dir string) (files []string) {
	entries, err := disk.ReadDir(dir)
	if err != nil {
		return nil
	}
	for _, e := range entries {
		name := path.Join(dir, e.Name())
		if e.IsDir() {
			files = append(files, tree(disk, name)...)
		} else {
			files = append(files, name)
		}
	}
	return files
}
