package simulate

import (
	"fmt"
	"slices"
	"strconv"
	"sync"

	"github.com/keepout-security/keepout/internal/rollout"
)

// strata of the simulated fleet, and their shares of it. Servers are always on.
var strata = []struct {
	label  string
	share  float64
	server bool
}{
	{"win11-23h2", 0.22, false},
	{"win11-22h2", 0.12, false},
	{"win10-22h2", 0.18, false},
	{"macos-14", 0.06, false},
	{"ubuntu-24.04-desktop", 0.02, false},
	{"win-server-2022", 0.14, true},
	{"win-server-2019", 0.09, true},
	{"debian-12", 0.07, true},
	{"ubuntu-22.04", 0.06, true},
	{"rhel-9", 0.03, true},
	{"kiosk", 0.007, true},
	{"rhel-8-arm", 0.003, true},
}

// fleet is what all runs share: who is in which stratum and ring. A run draws everything else anew, so that the same
// host is early in each run, but is another machine.
type fleet struct {
	plan    rollout.Plan
	numbers rollout.Numbers
	spec    rollout.Spec
	stratum []uint8    // index in plan.Strata, by host
	ring    []uint8    // by host
	members [][]uint32 // by ring
	server  []bool     // by index in plan.Strata
}

// name returns the id of a host.
func name(host uint32) string {
	var b [12]byte
	return string(strconv.AppendUint(append(b[:0], 'h'), uint64(host), 10))
}

// labelOf deals the strata out: the i-th host is in the stratum in whose share i/2^32 scrambled lies.
func labelOf(host uint32) int {
	x := float64(scramble(uint64(host))>>11) / (1 << 53)
	for i, s := range strata {
		if x -= s.share; x < 0 {
			return i
		}
	}
	return 0
}

// scramble is the finaliser of SplitMix64: well mixed bits of a counter.
func scramble(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

func newFleet(o *Options) (*fleet, error) {
	f := &fleet{stratum: make([]uint8, o.Hosts), ring: make([]uint8, o.Hosts)}
	var err error
	if f.numbers, err = rollout.Schedule(o.Schedule); err != nil {
		return nil, err
	}
	f.spec = rollout.Spec{
		ID: "simulated", Provider: "acme-edr", Channel: rollout.Content, Digest: "sha256:new", Previous: "sha256:old",
		Release: 2, By: "simulate", Seed: fmt.Appendf(nil, "simulated rollout %016x", o.Seed), Known: known,
	}
	if err := f.draw(); err != nil {
		return nil, fmt.Errorf("draw the rings: %w", err)
	}
	f.members = make([][]uint32, len(f.plan.Rings))
	for r, ring := range f.plan.Rings {
		f.members[r] = make([]uint32, 0, ring.Members)
	}
	for i, r := range f.ring {
		f.members[r] = append(f.members[r], uint32(i))
	}
	f.server = make([]bool, len(f.plan.Strata))
	for i, s := range f.plan.Strata {
		for _, known := range strata {
			f.server[i] = f.server[i] || known.label == s.Label && known.server
		}
	}
	return f, nil
}

// draw throws the dice for each host, once, and finds its ring.
func (f *fleet) draw() (err error) {
	hosts := len(f.ring)
	places := make([]uint64, hosts)
	parallel(hosts, func(from, to int) {
		dice := rollout.NewDice(f.spec.Seed)
		for i := from; i < to; i++ {
			f.stratum[i] = uint8(labelOf(uint32(i)))
			places[i] = dice.Place(name(uint32(i)))
		}
	})
	sorted := make([][]uint64, len(strata))
	for i, s := range f.stratum {
		sorted[s] = append(sorted[s], places[i])
	}
	parallel(len(strata), func(from, to int) {
		for _, in := range sorted[from:to] {
			slices.Sort(in)
		}
	})
	labels := map[string][]uint64{}
	for i, in := range sorted {
		if len(in) > 0 {
			labels[strata[i].label] = in
		}
	}
	if f.plan, err = rollout.DrawPlaces(f.numbers, labels, 0, 0); err != nil {
		return err
	}
	index := make([]uint8, len(strata)) // of a stratum in the plan
	for i := range f.plan.Strata {
		for k := range strata {
			if strata[k].label == f.plan.Strata[i].Label {
				index[k] = uint8(i)
			}
		}
	}
	parallel(hosts, func(from, to int) {
		for i := from; i < to; i++ {
			s := index[f.stratum[i]]
			f.stratum[i], f.ring[i] = s, uint8(f.plan.RingAt(int(s), places[i]))
		}
	})
	return nil
}

// parallel does n things, in two parts on as many processors.
func parallel(n int, do func(from, to int)) {
	var wg sync.WaitGroup
	wg.Go(func() { do(0, n/2) })
	wg.Go(func() { do(n/2, n) })
	wg.Wait()
}
