package issuer

import (
	"time"

	"github.com/keepout-security/keepout/internal/sign"
)

// Party is whose repository it is.
type Party string

// The parties.
const (
	Vendor   Party = "vendor"
	Operator Party = "operator"
)

// Place is where a key belongs.
type Place string

// The places.
const (
	Offline Place = "offline" // in a safe, on a medium of its own, with a passphrase
	Person  Place = "person"  // with one person, with a passphrase
	Online  Place = "online"  // on a machine that signs by itself
)

// keyRole is one set of keys. A key's file is named after it: engine-1.key.
type keyRole struct {
	name      string
	keys      int
	threshold int
	place     Place
	// paths is what a delegation covers; "" for the keys that root names itself.
	paths string
	// lifetime is for how long a targets file of this role is good; 0 for roles that sign none.
	lifetime time.Duration
	what     string
}

const (
	day          = 24 * time.Hour
	rootLifetime = 365 * day
	// onlineLifetime is for how long snapshot and timestamp are good: how long a mirror may go on showing the same.
	onlineLifetime = 7 * day

	rootKeys   = "root"
	onlineKeys = "online"
)

// roles are the table of docs/decisions/0008-trust.md.
func roles(p Party) []keyRole {
	all := []keyRole{
		{name: rootKeys, keys: 3, threshold: 2, place: Offline, what: "names all other keys"},
		{name: onlineKeys, keys: 1, threshold: 1, place: Online, what: "says what is current"},
	}
	if p == Vendor {
		return append(all,
			keyRole{"engine", 3, 2, Person, "*/engine/*", 90 * day, "releases engines"},
			keyRole{"content", 1, 1, Online, "*/content/*", 7 * day, "releases content"},
		)
	}
	return append(all,
		keyRole{"catalog-engine", 3, 2, Person, "*/engine/*", 90 * day, "countersigns engines"},
		keyRole{"catalog-content", 1, 1, Online, "*/content/*", 7 * day, "countersigns content"},
		keyRole{sign.RoleDirector, 1, 1, Online, "grants/*", 0, "grants activations"},
		keyRole{sign.RoleHalt, 3, 1, Person, "halts/*", 0, "stops a rollout"},
		keyRole{sign.RoleRecovery, 3, 2, Offline, "remediations/*", 0, "signs remediation"},
	)
}

func roleOf(p Party, name string) (keyRole, bool) {
	for _, r := range roles(p) {
		if r.name == name {
			return r, true
		}
	}
	return keyRole{}, false
}

// signs is the metadata roles of TUF that a set of keys signs.
func (r keyRole) signs() []string {
	switch r.name {
	case rootKeys:
		return []string{"root", "targets"}
	case onlineKeys:
		return []string{"snapshot", "timestamp"}
	}
	return nil
}

// keysFor is the set of keys that signs a metadata role.
func keysFor(role string) string {
	switch role {
	case "root", "targets":
		return rootKeys
	case "snapshot", "timestamp":
		return onlineKeys
	}
	return role
}
