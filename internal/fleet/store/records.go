package store

import "time"

// The states of a host.
const (
	Active      = "active"
	Quarantined = "quarantined" // nothing is granted, and no report counts
	Retired     = "retired"     // its certificate is refused
)

// Host is one enrolled machine.
type Host struct {
	ID, Hostname  string
	MachineID     string // what it called itself at enrolment
	State, Reason string
	Labels        map[string]string
	Fixed         map[string]string // those that the token gave it, which it cannot change
	Serial        string            // of its certificate, hexadecimal
	Pending       string            // serial of a renewed certificate that was not used yet
	KeyHash       string            // SHA-256 of the certificate's public key, hexadecimal
	CertEnds      time.Time
	Enrolled      time.Time
	LastSeen      time.Time // zero before the first check-in
	Instance      string    // of its fetcher, at the last check-in
	BootID        string
	Installed     []Installed
	Scope         []string // of the token that it enrolled with
}

// Installed is one package that a host has.
type Installed struct {
	Provider string `json:"provider"`
	Channel  string `json:"channel"` // content or engine
	Digest   string `json:"digest"`
	Slot     string `json:"slot"` // candidate, active, lkg, former or factory
	Counter  uint64 `json:"counter,omitempty"`
}

// CheckIn is what a check-in changes of a host. Nil labels and installed mean unchanged.
type CheckIn struct {
	Host             string
	At               time.Time
	Instance, BootID string
	Labels           map[string]string
	Installed        []Installed
}

// EnrolToken lets one host enrol once.
type EnrolToken struct {
	ID, Hash  string // the hash of its secret, hexadecimal
	CreatedBy string
	Created   time.Time
	Expires   time.Time
	UsedBy    string // the host, empty before
	Revoked   bool
	Labels    map[string]string
	Note      string
	Scope     []string // the labels that its host may say, each KEY=VALUE; empty for any
}

// AccessToken lets a person, or a tool of theirs, call the API.
type AccessToken struct {
	ID, Hash string
	Person   string
	Roles    []string
	Vendor   string // for the role vendor: whose provider
	Created  time.Time
	Expires  time.Time
	Revoked  bool
}

// Rollout is one rollout: what was asked for, and the controller's state.
type Rollout struct {
	ID, Name       string
	Spec           []byte // JSON
	State          []byte // the controller's
	Status, Reason string
	CreatedBy      string
	Created        time.Time
	Approvals      []Approval
	Revision       uint64
}

// Approval is one person's word for a rollout.
type Approval struct {
	Person string    `json:"person"`
	At     time.Time `json:"at"`
	Reason string    `json:"reason"`
}

// Row is what a rollout keeps of one host.
type Row struct {
	Rollout, Host string
	Data          []byte // JSON, the controller's
	Due           time.Duration
}

// BucketReport is one host's count of crashes or would-be denials with the same signature.
type BucketReport struct {
	Host, Provider, Digest, Signature, Kind string
	Count                                   uint64
	At                                      time.Time
	Sample                                  string
}

// Bucket is the sum of such reports.
type Bucket struct {
	Provider, Digest, Signature, Kind string
	Count                             uint64
	Hosts                             int
	FirstSeen, LastSeen               time.Time
	Sample                            string // the first that came
}

// Beacon says that a host came up in its recovery environment while a package was active.
type Beacon struct {
	Host, Digest      string
	At                time.Time
	Signature, Detail string
}
