package issuer

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/keepout-security/keepout/internal/sign"
)

// Overview is what a party has. Field names are stable.
type Overview struct {
	Party   Party            `json:"party"`
	Name    string           `json:"name"`
	Root    int64            `json:"root_version"`
	Sets    []Set            `json:"keys"`
	Files   []Expiry         `json:"metadata"`
	Vendors []AdmittedVendor `json:"vendors,omitempty"`
	Pending []string         `json:"pending,omitempty"`
}

// Set is one set of keys.
type Set struct {
	Name      string   `json:"name"`
	What      string   `json:"what"`
	Place     Place    `json:"place"`
	Threshold int      `json:"threshold"`
	IDs       []string `json:"ids"`
	AtHand    []string `json:"at_hand"` // key files, as engine-1
}

// Expiry is until when a published file is good.
type Expiry struct {
	Role    string    `json:"role"`
	Version int64     `json:"version"`
	Expires time.Time `json:"expires"`
}

// AdmittedVendor is one vendor that an operator trusts.
type AdmittedVendor struct {
	Name      string   `json:"name"`
	Providers []string `json:"providers"`
	Root      int64    `json:"root_version"`
}

// Show reads what a party has, without any secret key.
func (i *Issuer) Show() (Overview, error) {
	root, err := i.root()
	if err != nil {
		return Overview{}, err
	}
	targets, err := i.targets("targets")
	if err != nil {
		return Overview{}, err
	}
	out := Overview{Party: i.about.Party, Name: i.about.Name, Root: root.Signed.Version}
	out.Files = []Expiry{
		{"root", root.Signed.Version, root.Signed.Expires}, {"targets", targets.Signed.Version, targets.Signed.Expires},
	}
	for _, r := range roles(i.about.Party) {
		ids, err := i.idsOf(r)
		if err != nil {
			return Overview{}, err
		}
		set := Set{Name: r.name, What: r.what, Place: r.place, Threshold: r.threshold, AtHand: []string{}}
		for _, id := range ids {
			set.IDs = append(set.IDs, id[:12])
		}
		for _, file := range i.ring.files(r.name) {
			set.AtHand = append(set.AtHand, label(file))
		}
		out.Sets = append(out.Sets, set)
		if r.lifetime > 0 {
			m, err := i.targets(r.name)
			if err != nil {
				return Overview{}, err
			}
			out.Files = append(out.Files, Expiry{r.name, m.Signed.Version, m.Signed.Expires})
		}
	}
	snapshot, err := load(i, "snapshot", metadata.Snapshot())
	if err != nil {
		return Overview{}, err
	}
	out.Files = append(out.Files, Expiry{"snapshot", snapshot.Signed.Version, snapshot.Signed.Expires})
	out.Vendors = admitted(targets.Signed.Targets)
	out.Pending = append(i.pendingRootName(), i.pending()...)
	return out, nil
}

func admitted(targets map[string]*metadata.TargetFiles) (out []AdmittedVendor) {
	for _, path := range slices.Sorted(maps.Keys(targets)) {
		name, ok := strings.CutPrefix(path, sign.VendorPath(""))
		custom := targets[path].Custom
		var e sign.VendorEntry
		if ok && custom != nil && json.Unmarshal(*custom, &e) == nil {
			out = append(out, AdmittedVendor{Name: name, Providers: e.Providers, Root: e.RootVersion})
		}
	}
	return out
}
