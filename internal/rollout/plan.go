package rollout

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"iter"
	"math"
	"slices"
	"strings"
)

// MaxStrata bounds the strata of a plan; the smallest beyond share the one called Others.
const MaxStrata = 256

// Others is the stratum of hosts whose label is not in the plan. They are never early.
const Others = "others"

// Plan says who is in which ring. The last ring is the control group, with which all others are compared; it is
// granted when they are done.
type Plan struct {
	Rings  []RingPlan    `json:"rings"`
	Strata []StratumPlan `json:"strata"` // sorted by label; the last one is Others
}

// RingPlan is one ring.
type RingPlan struct {
	Members int `json:"members"` // when the plan was drawn
	W       int `json:"w"`       // hosts that may be outstanding at a time
}

// StratumPlan says how one stratum is divided.
type StratumPlan struct {
	Label string `json:"label"`
	Hosts int    `json:"hosts"`
	// Upto holds for each ring the highest Place that is in it; not falling, and the last is the highest of all.
	Upto []uint64 `json:"upto"`
}

// Draw divides the enrolled hosts into rings. Of each host it reads ID, Stratum and Pin. Each early ring has hosts
// of each stratum that is large enough, and the sizes are exact, not expected.
func Draw(seed []byte, n Numbers, hosts iter.Seq[Host]) (Plan, error) {
	places := map[string][]uint64{}
	first, last := 0, 0
	dice := NewDice(seed)
	for h := range hosts {
		switch h.Pin {
		case Never, Previous: // nobody waits for them
		case First:
			first++
		case Last:
			last++
		default:
			places[h.Stratum] = append(places[h.Stratum], dice.Place(h.ID))
		}
	}
	return DrawPlaces(n, places, first, last)
}

// DrawPlaces is Draw for who has thrown the dice, on several processors perhaps: places holds the places of the hosts
// without a pin by stratum, and is sorted; first and last are how many hosts have these pins.
func DrawPlaces(n Numbers, places map[string][]uint64, first, last int) (Plan, error) {
	total := 0
	for _, in := range places {
		total += len(in)
	}
	if total+first+last == 0 {
		return Plan{}, errors.New("no host to roll out to")
	}
	labels := strataOf(places)
	p := Plan{}
	sizes := ringSizes(n, total)
	for _, label := range labels {
		slices.Sort(places[label])
		p.Strata = append(p.Strata, StratumPlan{Label: label, Hosts: len(places[label]), Upto: make([]uint64, len(sizes))})
	}
	for r, size := range sizes {
		members := p.cut(r, size, places, total)
		p.Rings = append(p.Rings, RingPlan{Members: members, W: max(size, 1)})
	}
	p.Rings[0].Members += first
	p.Rings[len(sizes)-1].Members += last
	others := StratumPlan{Label: Others, Hosts: 0, Upto: make([]uint64, len(sizes))}
	for r := max(len(sizes)-2, 0); r < len(sizes); r++ {
		others.Upto[r] = math.MaxUint64
	}
	p.Strata = append(p.Strata, others)
	err := p.Check()
	return p, err
}

// strataOf returns the labels in order, after the hosts of the smallest beyond MaxStrata were left to Others.
func strataOf(places map[string][]uint64) []string {
	labels := make([]string, 0, len(places))
	for label := range places {
		labels = append(labels, label)
	}
	slices.SortFunc(labels, func(a, b string) int {
		if d := len(places[b]) - len(places[a]); d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
	if len(labels) > MaxStrata-1 {
		labels = labels[:MaxStrata-1]
	}
	labels = slices.DeleteFunc(labels, func(l string) bool { return l == Others })
	slices.Sort(labels)
	return labels
}

// ringSizes returns how many hosts each ring has, the control group last.
func ringSizes(n Numbers, total int) []int {
	control := int(float64(total) * n.ControlShare)
	control = min(max(control, n.ControlMin), n.ControlMax, total/4)
	left := total - control
	// A small fleet begins with fewer: a twentieth, but three, so that two can agree.
	next := min(n.First, max(total/20, 3))
	var sizes []int
	for left > 0 {
		// What would be left for one more ring is not worth one: the last ring has up to twice its size, and W holds.
		if left <= 2*next || len(sizes) == maxRings-2 {
			next = left
		}
		sizes = append(sizes, next)
		left -= next
		next *= n.Growth
	}
	return append(sizes, control)
}

// maxRings bounds the rings of a plan.
const maxRings = 16

// cut sets the bounds of ring r, which should have size hosts, and returns how many it has.
func (p *Plan) cut(r, size int, places map[string][]uint64, total int) (members int) {
	rings := len(p.Strata[0].Upto)
	quota := p.quotas(r, size, total)
	for i := range p.Strata {
		s := &p.Strata[i]
		all := places[s.Label]
		from := 0
		if r > 0 {
			from = upto(all, s.Upto[r-1])
		}
		to := min(from+quota[i], len(all))
		switch {
		case r == rings-1 || to == len(all):
			s.Upto[r], to = math.MaxUint64, len(all)
		case to == 0:
			s.Upto[r] = 0
		default:
			s.Upto[r] = all[to-1]
		}
		members += to - from
	}
	return members
}

// upto returns how many of the sorted places are not above bound.
func upto(all []uint64, bound uint64) int {
	if bound == 0 {
		return 0
	}
	n, found := slices.BinarySearch(all, bound)
	if found {
		n++
	}
	return n
}

// quotas divides size among the strata by their sizes, each at least one: early rings cover each stratum.
func (p *Plan) quotas(_, size, total int) []int {
	quota := make([]int, len(p.Strata))
	type part struct {
		i    int
		rest float64
	}
	rest := make([]part, 0, len(quota))
	left := size
	for i, s := range p.Strata {
		exact := float64(size) * float64(s.Hosts) / float64(total)
		quota[i] = max(int(exact), min(1, s.Hosts))
		left -= quota[i]
		rest = append(rest, part{i, exact - float64(quota[i])})
	}
	slices.SortStableFunc(rest, func(a, b part) int {
		switch {
		case a.rest > b.rest:
			return -1
		case a.rest < b.rest:
			return 1
		}
		return 0
	})
	for k := 0; left > 0 && k < len(rest); k, left = k+1, left-1 {
		quota[rest[k].i]++
	}
	return quota
}

// Check reports a plan that Draw cannot have made.
func (p *Plan) Check() error {
	if len(p.Rings) == 0 || len(p.Rings) > maxRings || len(p.Strata) == 0 || len(p.Strata) > MaxStrata {
		return fmt.Errorf("%d rings and %d strata: want 1 to %d and 1 to %d",
			len(p.Rings), len(p.Strata), maxRings, MaxStrata)
	}
	for _, r := range p.Rings {
		if r.W < 1 || r.Members < 0 {
			return errors.New("a ring has no room")
		}
	}
	for _, s := range p.Strata {
		if len(s.Upto) != len(p.Rings) || !slices.IsSorted(s.Upto) || s.Upto[len(s.Upto)-1] != math.MaxUint64 {
			return fmt.Errorf("the bounds of stratum %q are not in order", s.Label)
		}
	}
	return nil
}

// Find returns where a host belongs: its stratum, and its ring, or -1 for none.
func (p *Plan) Find(dice *Dice, h *Host) (stratum, ring int) {
	stratum = len(p.Strata) - 1
	if i, ok := slices.BinarySearchFunc(p.Strata[:stratum], h.Stratum, func(s StratumPlan, label string) int {
		return strings.Compare(s.Label, label)
	}); ok {
		stratum = i
	}
	switch h.Pin {
	case Never:
		return stratum, -1
	case First:
		return stratum, 0
	case Last:
		return stratum, len(p.Rings) - 1
	case Unpinned, Previous:
	}
	return stratum, p.RingAt(stratum, dice.Place(h.ID))
}

// RingAt returns the ring of the unpinned host that has a place in a stratum.
func (p *Plan) RingAt(stratum int, place uint64) int {
	ring, _ := slices.BinarySearch(p.Strata[stratum].Upto, place)
	return ring
}

// Control returns the index of the control group's ring.
func (p *Plan) Control() int { return len(p.Rings) - 1 }

// Dice throws the keyed hash that decides who is early. It is not for several goroutines at once.
type Dice struct {
	mac hash.Hash
	sum [sha256.Size]byte
	id  []byte // used again and again: a fleet has millions
}

// NewDice returns the dice of one rollout seed.
func NewDice(seed []byte) *Dice { return &Dice{mac: hmac.New(sha256.New, seed)} }

// Place returns the host's place in its stratum: the first eight bytes of HMAC-SHA-256(seed, id), never 0. Nobody
// without the seed can tell it, or choose an id for it.
func (d *Dice) Place(id string) uint64 {
	d.mac.Reset()
	d.id = append(d.id[:0], id...)
	_, _ = d.mac.Write(d.id) // a hash never fails
	return max(binary.BigEndian.Uint64(d.mac.Sum(d.sum[:0])), 1)
}
