package sim

import (
	"fmt"
	"math/rand/v2"

	"github.com/keepout-security/keepout/internal/simdisk"
)

const (
	storeDir  = "/store"
	maxCuts   = 3   // of one history, the last ones often while it boots
	maxActs   = 30  // of one life
	maxWrites = 250 // before a cut
)

// random returns a stream of a seed; each simulation has its own.
func random(seed, stream uint64) *rand.Rand {
	return rand.New(rand.NewPCG(seed, stream)) //nolint:gosec // a history must be repeatable, not secret
}

// PowerCut plays one history on a disk whose power is cut at any of its writes, again and again, and says what is
// wrong with what is found each time.
func PowerCut(seed uint64) error {
	rng := random(seed, 0)
	disk := simdisk.New()
	h := NewHistory(disk, storeDir, rng)
	for range rng.IntN(maxCuts) + 1 {
		disk.CutAt(1 + rng.IntN(maxWrites))
		if err := live(h, disk); err != nil {
			return err
		}
		disk = after(disk, rng)
		h = h.On(disk)
	}
	if err := h.Boot(); err != nil {
		return fmt.Errorf("it does not start: %w", err)
	}
	return h.Well()
}

// live runs a platform until its power is cut, or for a while.
func live(h *History, disk *simdisk.Disk) error {
	err := h.Boot()
	if err == nil {
		err = h.Well()
	}
	for n := 0; err == nil && n < maxActs; n++ {
		err = h.Act()
	}
	if disk.Dead() {
		return nil // whatever it said in its last moments
	}
	return err
}

// after is the disk that the next life finds: mostly after a power cut, sometimes only the process was killed.
func after(disk *simdisk.Disk, rng *rand.Rand) *simdisk.Disk {
	if rng.IntN(4) == 0 {
		disk.Revive()
		return disk
	}
	return disk.Crash(rng)
}
