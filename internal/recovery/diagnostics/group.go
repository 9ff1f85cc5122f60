package diagnostics

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// Bounds of a group.
const (
	maxMachines      = 10000 // told apart; more are only counted
	maxGroupVersions = 256   // versions told apart in a group
)

// Group is what the bundles of one signature have in common: what a person looks at first.
type Group struct {
	Signature Signature
	Bundles   int // those of rehearsals left out
	First     time.Time
	Last      time.Time
	// Versions counts in how many bundles a version was active: "acme-av content 291".
	Versions map[string]int
	machines map[string]bool
	changes  map[string]int
}

// NewGroup begins the group of a bundle and adds it.
func NewGroup(b *Bundle, received time.Time) *Group {
	g := &Group{
		Signature: b.Signature, Versions: map[string]int{}, machines: map[string]bool{}, changes: map[string]int{},
	}
	g.Add(b, received)
	return g
}

// Add counts a bundle, by the time at which the server got it: the machine's own clock is not to be trusted. Bundles of
// another signature and of rehearsals are not counted.
func (g *Group) Add(b *Bundle, received time.Time) {
	if b.Signature.ID != g.Signature.ID || b.Test {
		return
	}
	g.Bundles++
	if g.First.IsZero() || received.Before(g.First) {
		g.First = received
	}
	if received.After(g.Last) {
		g.Last = received
	}
	if g.Signature.Title == "" {
		g.Signature = b.Signature // the first one was of level minimal
	}
	if len(g.machines) < maxMachines {
		g.machines[b.Machine] = true
	}
	for i := range b.Providers {
		p := &b.Providers[i]
		count(g.Versions, p.ID, " engine ", p.Engine.Active)
		count(g.Versions, p.ID, " content ", p.Content.Active)
		// What is active and not yet proven changed last.
		if p.Engine.Active != p.Engine.LKG {
			count(g.changes, p.ID, " engine ", p.Engine.Active)
		}
		if p.Content.Active != p.Content.LKG {
			count(g.changes, p.ID, " content ", p.Content.Active)
		}
	}
}

func count(in map[string]int, id, part, version string) {
	if version == "" {
		return
	}
	name := id + part + version
	if _, known := in[name]; known || len(in) < maxGroupVersions {
		in[name]++
	}
}

// Machines is how many machines sent bundles, up to 10,000.
func (g *Group) Machines() int { return len(g.machines) }

// SuspectedChange is the version that changed last on most of the machines, and the share of bundles in which it had.
// It is empty where that is less than half: then there is no evidence.
func (g *Group) SuspectedChange() (change string, share float64) {
	names := slices.Sorted(maps.Keys(g.changes))
	if len(names) == 0 || g.Bundles == 0 {
		return "", 0
	}
	change = slices.MaxFunc(names, func(a, b string) int { return cmp.Compare(g.changes[a], g.changes[b]) })
	share = float64(g.changes[change]) / float64(g.Bundles)
	if share < 0.5 {
		return "", 0
	}
	return change, share
}
