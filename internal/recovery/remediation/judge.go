package remediation

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/keepout-security/keepout/internal/health"
	"github.com/keepout-security/keepout/internal/sign"
)

// Trust is whose signatures count. The zero value trusts nobody.
type Trust struct {
	// Organisation is the operator's remediation role. Fewer than two signatures are never enough for a fix, whatever
	// its threshold says; for a revocation, which only stops things, one is.
	Organisation sign.Role
	// Vendors are the keys of the providers' vendors, by the provider's id.
	Vendors map[string]sign.Role
}

// Machine is what a fix is held against.
type Machine struct {
	ID        string // diagnostics.Pseudonym
	Bundle    string // the digest of this failure's bundle; empty where none was made
	Signature string // of this failure
	Providers []Provider
	// Now is the machine's clock, which is not trusted by itself: see State.Floor.
	Now time.Time
	// Noted is what that clock showed when this failure was noted; zero: that is not known.
	Noted time.Time
	// Test says that this is a rehearsal: only fixes marked so are taken, and elsewhere none of them.
	Test bool
}

// Provider is a provider that the machine has, with its active versions.
type Provider struct{ ID, Engine, Content string }

// State is what a machine remembers between fixes, on the ESP. The zero value remembers nothing.
type State struct {
	// Sequence is the highest of the organisation's campaigns that was taken.
	Sequence uint64 `json:"sequence,omitempty"`
	// Vendors are the same for the vendors' campaigns.
	Vendors map[string]uint64 `json:"vendors,omitempty"`
	// Applied are the digests of the targeted fixes' bundles that were answered, the newest last. The oldest make room: a
	// bundle's digest comes once, so that what is forgotten answers a report that no later failure has.
	Applied []string `json:"applied,omitempty"`
	// Revoked are the ids that were taken back, the newest last.
	Revoked []string `json:"revoked,omitempty"`
	// RevokedKeys are the ids of keys that were taken back (sign.IDOf): nothing that they sign counts.
	RevokedKeys []string `json:"revoked_keys,omitempty"`
	// Floor is a time that has passed for certain: the recovery image's build, or the latest issue of a fix that was
	// believed. The clock may be wrong in both directions; this cannot be.
	Floor time.Time `json:"floor,omitzero"`
}

// Bounds of a state. A floor is not moved further at once than leap: a fix that was issued by a wrong clock must not
// make all later ones look expired.
const (
	maxApplied = 64
	maxRevoked = 256
	maxKeys    = 64
	maxVendors = 64
	leap       = maxLife
)

// Plan is what to do about a fix that was believed.
type Plan struct {
	Fix     Fix
	Signers []sign.KeyID
	// Effects are in order. All are to be carried out, and then State is to be kept (Apply). Until it is kept, the same
	// fix is believed again: who only writes it down for the next boot, as the recovery environment does, keeps nothing.
	Effects []Action
	State   State
	// Notes are for the screen and the journal: what was odd, and believed nevertheless.
	Notes []string
}

// Codes of refusals.
const (
	CodeSignature  = "KO-2521" // too few signatures that count
	CodeMalformed  = "KO-2522" // signed, and not a fix that this version understands
	CodeForeign    = "KO-2523" // for another machine or another failure
	CodeReplay     = "KO-2524" // applied already, or older than what was
	CodeExpired    = "KO-2525" // expired
	CodeOverreach  = "KO-2526" // does more than its signer may
	CodeRevoked    = "KO-2527" // taken back
	CodeTestOnly   = "KO-2528" // a rehearsal's fix outside of one, or the reverse
	CodeFull       = "KO-2529" // a revocation, or a vendor's first campaign, for which there is no room
	CodeUnkept     = "KO-2530" // believed, and cannot be remembered now
	minimumSigners = 2
)

func refuse(code, fix, format string, args ...any) error {
	return health.Problem{Code: code, Title: fmt.Sprintf(format, args...), Severity: health.Failure, Fix: fix}
}

// Unkept is the refusal of a fix that was believed, for now: whoever does not remember that it was taken could take it
// again.
func Unkept(f *Fix, why error) error {
	return refuse(CodeUnkept, "make the partition with the boot files writable, give it room, and restart: the fix waits",
		"fix %s cannot be remembered: %v", f.ID, why)
}

// Judge decides about one sealed fix. It verifies before it reads, and reads before it compares. An error is a
// health.Problem with one of the codes above; then nothing is to be done, and the state stays what it was.
func Judge(trust Trust, state State, machine Machine, sealed []byte) (Plan, error) {
	fix, signers, err := open(trust.without(state.RevokedKeys), sealed)
	if err != nil {
		return Plan{}, err
	}
	plan := Plan{Fix: fix, Signers: signers, Effects: slices.Clone(fix.Actions)}
	for _, check := range []func() error{
		func() error { return mayDo(&fix) },
		func() error { return fix.MayRevoke(signers) },
		func() error { return isMeant(&fix, &machine) },
		func() error { return isFresh(&fix, &state) },
		func() error { return inTime(&plan, &state, &machine) },
	} {
		if err := check(); err != nil {
			return Plan{}, err
		}
	}
	plan.State = state.after(&fix, machine.Now)
	return plan, nil
}

// open verifies the signatures of whoever could have made the fix, and only then decodes it. Which role that is must
// not be taken from the fix before it is verified, so every role is tried.
func open(trust Trust, sealed []byte) (Fix, []sign.KeyID, error) {
	if len(sealed) > MaxEnvelope {
		return Fix{}, nil, refuse(CodeMalformed, "get the fix again", "a fix of %d bytes, at most %d are read",
			len(sealed), MaxEnvelope)
	}
	var firstErr error
	try := func(role sign.Role, least int, fits func(f *Fix) bool) (Fix, []sign.KeyID, bool, error) {
		payload, signers, err := sign.Open(role.Keys, max(role.Threshold, least), PayloadType, sealed)
		if err != nil {
			if firstErr == nil {
				firstErr = err
			}
			return Fix{}, nil, false, nil
		}
		f, err := Decode(payload)
		if err != nil {
			return Fix{}, nil, true, refuse(CodeMalformed, "this machine needs a newer Keepout, or its author another try",
				"signed, but no fix that this version understands: %v", err)
		}
		ok := fits(&f)
		return f, signers, ok, nil
	}
	if f, signers, ok, err := try(trust.Organisation, minimumSigners, func(f *Fix) bool { return f.Vendor == "" }); ok {
		return f, signers, err
	}
	one := sign.Role{Keys: trust.Organisation.Keys, Threshold: 1}
	if f, signers, ok, err := try(one, 1, func(f *Fix) bool { return f.Kind == Revocation }); ok && err == nil {
		return f, signers, nil
	}
	for _, id := range slices.Sorted(maps.Keys(trust.Vendors)) {
		if f, signers, ok, err := try(trust.Vendors[id], 1, func(f *Fix) bool { return f.Vendor == id }); ok {
			return f, signers, err
		}
	}
	why := "nobody whose signature counts has signed it"
	if firstErr != nil {
		why = health.Unadvised(firstErr)
	}
	return Fix{}, nil, refuse(CodeSignature, "have it approved by a second key: keepout remediation approve", "%s", why)
}

// mayDo holds a vendor to its own provider and to the two verbs that only take away what it brought.
func mayDo(f *Fix) error {
	if f.Vendor == "" {
		return nil
	}
	for _, a := range f.Actions {
		if !slices.Contains(vendorVerbs(), a.Verb) {
			return refuse(CodeOverreach, "let the organisation sign it", "the vendor of %s may not %s", f.Vendor, a.Verb)
		}
		if a.Provider != f.Vendor {
			return refuse(CodeOverreach, "let the organisation sign it", "the vendor of %s may not %s %s", f.Vendor, a.Verb,
				a.Provider)
		}
	}
	return nil
}

// isMeant reports whether the fix is for this machine and this failure.
func isMeant(f *Fix, m *Machine) error {
	const next = "nothing; it is meant for others"
	if len(f.Machines.IDs) > 0 && !slices.Contains(f.Machines.IDs, m.ID) {
		return refuse(CodeForeign, next, "fix %s is for other machines", f.ID)
	}
	if f.Kind == Revocation {
		return nil
	}
	if f.Test != m.Test {
		return refuse(CodeTestOnly, "keepout recovery test", "fix %s is for a rehearsal, or this is one and it is not", f.ID)
	}
	if f.Kind == Targeted {
		if m.Bundle == "" || f.Bundle != m.Bundle {
			return refuse(CodeForeign, next, "fix %s answers another report", f.ID)
		}
		return nil
	}
	s := f.Symptom
	if s.Signature != "" && s.Signature != m.Signature {
		return refuse(CodeForeign, next, "fix %s is for another failure", f.ID)
	}
	if s.Provider == "" {
		return nil
	}
	has := slices.ContainsFunc(m.Providers, func(p Provider) bool {
		return p.ID == s.Provider && (s.Engine == "" || s.Engine == p.Engine) && (s.Content == "" || s.Content == p.Content)
	})
	if !has {
		return refuse(CodeForeign, next, "fix %s is for machines with another version of %s", f.ID, s.Provider)
	}
	return nil
}

// isFresh refuses what was applied already, what is older than what was, and what was taken back.
func isFresh(f *Fix, s *State) error {
	const next = "get a newer fix"
	if slices.Contains(s.Revoked, f.ID) {
		return refuse(CodeRevoked, next, "fix %s was taken back", f.ID)
	}
	switch f.Kind {
	case Targeted:
		if slices.Contains(s.Applied, f.Bundle) {
			return refuse(CodeReplay, next, "fix %s was applied already", f.ID)
		}
		return nil
	case Revocation:
		fixes, keys := united(s.Revoked, f.Revokes), united(s.RevokedKeys, f.RevokesKeys)
		if len(fixes) == len(s.Revoked) && len(keys) == len(s.RevokedKeys) {
			return refuse(CodeReplay, "nothing; it is in force", "revocation %s was taken already", f.ID)
		}
		if len(fixes) > maxRevoked || len(keys) > maxKeys {
			return refuse(CodeFull, "issue the next campaign, which replaces all before it",
				"%d fixes and %d keys are revoked, and no more are remembered", len(s.Revoked), len(s.RevokedKeys))
		}
		return nil
	case Campaign:
	}
	if last := s.last(f.Vendor); f.Sequence <= last {
		return refuse(CodeReplay, next, "fix %s has sequence number %d, and %d was taken already", f.ID, f.Sequence, last)
	}
	if _, known := s.Vendors[f.Vendor]; f.Vendor != "" && !known && len(s.Vendors) >= maxVendors {
		return refuse(CodeFull, "let the organisation sign it, whose fixes always have room",
			"the campaigns of %d vendors are remembered, and no more are", len(s.Vendors))
	}
	return nil
}

func (s *State) last(vendor string) uint64 {
	if vendor == "" {
		return s.Sequence
	}
	return s.Vendors[vendor]
}

// inTime holds the expiry against a time that has passed for certain, and, for a campaign, against the clock as well.
// What answers this very failure cannot be old, so that a clock in the future does not keep a machine from its fix. But
// it may have waited: a clock that showed a time before the expiry when the failure was noted is believed after it.
func inTime(p *Plan, s *State, m *Machine) error {
	const next = "have it issued again"
	f, now := &p.Fix, m.Now
	if s.Floor.After(f.Expires) {
		return refuse(CodeExpired, next, "fix %s expired on %s", f.ID, f.Expires.UTC().Format(time.DateOnly))
	}
	if now.Before(s.Floor) {
		p.Notes = append(p.Notes, "the clock is behind "+s.Floor.UTC().Format(time.DateOnly)+
			", which has passed for certain")
		return nil
	}
	if !now.After(f.Expires) {
		return nil
	}
	waited := !m.Noted.IsZero() && !m.Noted.After(f.Expires)
	if f.Kind != Targeted || waited {
		return refuse(CodeExpired, next, "fix %s expired on %s by this machine's clock", f.ID,
			f.Expires.UTC().Format(time.DateOnly))
	}
	p.Notes = append(p.Notes, "by this machine's clock the fix has expired; it answers this failure, "+
		"so the clock is taken to be wrong")
	return nil
}

// after is what is remembered once a fix was believed.
func (s State) after(f *Fix, now time.Time) State {
	out := State{
		Sequence: s.Sequence, Floor: s.Floor, Vendors: maps.Clone(s.Vendors), Applied: slices.Clone(s.Applied),
		Revoked: slices.Clone(s.Revoked), RevokedKeys: slices.Clone(s.RevokedKeys),
	}
	switch {
	case f.Kind == Revocation:
		out.Revoked, out.RevokedKeys = united(s.Revoked, f.Revokes), united(s.RevokedKeys, f.RevokesKeys)
		return out // one key is enough for it, and that must not move the time
	case f.Kind == Targeted:
		out.Applied = newest(append(out.Applied, f.Bundle), maxApplied)
	case f.Vendor != "":
		if out.Vendors == nil {
			out.Vendors = map[string]uint64{}
		}
		out.Vendors[f.Vendor] = f.Sequence
	default:
		out.Sequence = f.Sequence
	}
	latest := now
	if out.Floor.After(latest) {
		latest = out.Floor
	}
	// A vendor alone must not move the time by which the organisation's fixes expire.
	if f.Vendor == "" && f.Issued.After(out.Floor) && f.Issued.Before(latest.Add(leap)) {
		out.Floor = f.Issued
	}
	return out
}

func newest(list []string, most int) []string { return list[max(len(list)-most, 0):] }

// Remember makes a state of what was kept, or reports what no Judge could have left there.
func Remember(data []byte) (State, error) {
	var s State
	if len(data) > MaxState {
		return State{}, fmt.Errorf("remediation state: %d bytes, at most %d", len(data), MaxState)
	}
	if err := json.Unmarshal(data, &s); err != nil {
		return State{}, fmt.Errorf("remediation state: %w", err)
	}
	if len(s.Applied) > maxApplied || len(s.Revoked) > maxRevoked || !all(s.Applied, hex64.MatchString) ||
		!all(s.Revoked, identifier.MatchString) || len(s.RevokedKeys) > maxKeys ||
		!all(s.RevokedKeys, hex64.MatchString) || s.Floor.Year() > 9998 {
		return State{}, errors.New("remediation state: out of range")
	}
	return s, nil
}

// MaxState bounds an encoded state (encoding/json), in bytes; whatever the bounds above allow fits.
const MaxState = 64 << 10

// PublicKeys reads the public keys of a role's members out of their private ones, for who makes a Trust by hand.
func PublicKeys(keys ...ed25519.PrivateKey) []ed25519.PublicKey {
	out := make([]ed25519.PublicKey, 0, len(keys))
	for _, k := range keys {
		if public, ok := k.Public().(ed25519.PublicKey); ok {
			out = append(out, public)
		}
	}
	return out
}
