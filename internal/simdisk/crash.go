package simdisk

import (
	"bytes"
	"maps"
	"math/rand/v2"
	"slices"
)

// Revive gives the power back without any loss: as if only the process had been killed. What was not synced still is
// not.
func (d *Disk) Revive() { d.dead, d.cut = false, 0 }

// Crash returns the disk as it is found after the power is back. The old one is used up.
func (d *Disk) Crash(rng *rand.Rand) *Disk {
	return &Disk{root: d.root.crash(rng), temps: d.temps + 1000}
}

// crash draws what is left of a node. A node has one name at a time, so each is met once.
func (n *node) crash(rng *rand.Rand) *node {
	out := &node{dir: n.dir, mode: n.safeMode}
	if rng.IntN(2) == 0 {
		out.mode = n.mode
	}
	if n.dir {
		list := maps.Clone(n.safeList)
		for _, c := range n.pending[:rng.IntN(len(n.pending)+1)] {
			c.to(list)
		}
		out.list = map[string]*node{}
		for _, name := range slices.Sorted(maps.Keys(list)) { // in order: each draws from the seed
			out.list[name] = list[name].crash(rng)
		}
		out.safeList = maps.Clone(out.list)
	} else {
		out.data = tear(rng, n.safeData, n.data)
		out.safeData = slices.Clone(out.data)
	}
	out.safeMode = out.mode
	return out
}

// tear draws what is left of a file that was synced as safe and written as data since.
func tear(rng *rand.Rand, safe, data []byte) []byte {
	if bytes.Equal(safe, data) {
		return slices.Clone(data)
	}
	switch rng.IntN(4) {
	case 0:
		return slices.Clone(safe)
	case 1:
		return slices.Clone(data)
	}
	shorter, longer := min(len(safe), len(data)), max(len(safe), len(data))
	out := make([]byte, shorter+rng.IntN(longer-shorter+1))
	for at := 0; at < len(out); at += block {
		end := min(at+block, len(out))
		switch rng.IntN(3) {
		case 0:
			copy(out[at:end], safe[min(at, len(safe)):min(end, len(safe))])
		case 1:
			copy(out[at:end], data[min(at, len(data)):min(end, len(data))])
		}
	}
	return out
}
