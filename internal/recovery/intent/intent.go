// Package intent stands between a signed fix and the next boot: the recovery environment judges a fix and leaves it
// on the boot file system, bootguard judges it again, because anybody may have written there since, and makes orders
// of it.
//
// It guarantees that both judge by the same rules and against the same memory; that a fix is believed once, and that a
// power cut while it is being applied does not lose it, nor a disk that is full or cannot be read while the machine
// starts; that what is remembered is bounded and can always be read again; that what cannot be done before the core
// runs is said.
package intent

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"path/filepath"
	"time"

	"github.com/keepout-security/keepout/internal/boot"
	"github.com/keepout-security/keepout/internal/durable"
	"github.com/keepout-security/keepout/internal/recovery/esp"
	"github.com/keepout-security/keepout/internal/recovery/remediation"
	"github.com/keepout-security/keepout/internal/sign"
)

// Files below Keepout's folder.
const (
	TrustFile   = "keys.json"    // in the folder esp.Trust
	memoryFile  = "fixes.json"   // what was believed before
	failureFile = "failure.json" // what the recovery environment found last
)

const (
	maxTrust   = 64 << 10 // bytes
	maxFailure = 64 << 10
	maxMemory  = 2*remediation.MaxState + 4096
)

// role is a sign.Role as it is written.
type role struct {
	Keys      [][]byte `json:"keys"` // Ed25519 public keys, base64
	Threshold int      `json:"threshold"`
}

type trustText struct {
	Organisation role            `json:"organisation"`
	Vendors      map[string]role `json:"vendors,omitempty"`
}

// EncodeTrust writes down whose fixes count.
func EncodeTrust(t remediation.Trust) ([]byte, error) {
	text := trustText{Organisation: written(t.Organisation), Vendors: map[string]role{}}
	for id, r := range t.Vendors {
		text.Vendors[id] = written(r)
	}
	data, err := json.MarshalIndent(text, "", " ")
	if err != nil {
		return nil, fmt.Errorf("encode the keys: %w", err)
	}
	return append(data, '\n'), nil
}

func written(r sign.Role) role {
	out := role{Threshold: r.Threshold}
	for _, k := range r.Keys {
		out.Keys = append(out.Keys, k)
	}
	return out
}

// ParseTrust reads what EncodeTrust wrote. Without a usable key nobody is trusted, which is no error.
func ParseTrust(data []byte) (remediation.Trust, error) {
	var text trustText
	if len(data) > maxTrust {
		return remediation.Trust{}, fmt.Errorf("the keys have %d bytes, limit %d", len(data), maxTrust)
	}
	if err := json.Unmarshal(data, &text); err != nil {
		return remediation.Trust{}, fmt.Errorf("decode the keys: %w", err)
	}
	organisation, err := text.Organisation.read()
	if err != nil {
		return remediation.Trust{}, err
	}
	t := remediation.Trust{Organisation: organisation, Vendors: map[string]sign.Role{}}
	for id, r := range text.Vendors {
		if t.Vendors[id], err = r.read(); err != nil {
			return remediation.Trust{}, err
		}
	}
	return t, nil
}

func (r role) read() (sign.Role, error) {
	out := sign.Role{Threshold: r.Threshold}
	for _, k := range r.Keys {
		if len(k) != ed25519.PublicKeySize {
			return sign.Role{}, fmt.Errorf("a key has %d bytes, want %d", len(k), ed25519.PublicKeySize)
		}
		out.Keys = append(out.Keys, k)
	}
	return out, nil
}

// readTrust reads the keys in their folder.
func readTrust(read reading, folder string) (remediation.Trust, error) {
	text, err := read(filepath.Join(folder, TrustFile), maxTrust)
	if err != nil {
		return remediation.Trust{}, fmt.Errorf("the keys: %w", err)
	}
	return ParseTrust(text)
}

// Failure is what the recovery environment found: what a fix is held against, now and at the next boot.
type Failure struct {
	Machine   string                 `json:"machine"`
	Bundle    string                 `json:"bundle"`
	Signature string                 `json:"signature"`
	Providers []remediation.Provider `json:"providers,omitempty"`
	Floor     time.Time              `json:"floor"`       // a time that has passed for certain: the image's build
	At        time.Time              `json:"at,omitzero"` // when it was found, by the machine's clock; zero: not known
}

// Note keeps a failure for the next boot.
func Note(dir *esp.Dir, f *Failure) error {
	data, err := json.Marshal(f)
	if err != nil {
		return fmt.Errorf("note the failure: %w", err)
	}
	return durable.WriteFileOn(esp.Disk(), dir.Join(failureFile), data, 0o600)
}

// Judge decides about a fix in the recovery environment. It changes nothing. A memory that cannot be read is taken as
// empty: a machine must be able to recover, and the digest of its bundle keeps old answers away.
func Judge(
	dir *esp.Dir, trust remediation.Trust, f *Failure, test bool, now time.Time, sealed []byte,
) (remediation.Plan, error) {
	var m memory
	if dir != nil {
		m, _ = recall(read, dir)
	}
	return remediation.Judge(trust, f.raise(m.State), f.machine(test, now), sealed)
}

func (f *Failure) machine(test bool, now time.Time) remediation.Machine {
	m := remediation.Machine{
		ID: f.Machine, Bundle: f.Bundle, Signature: f.Signature, Providers: f.Providers, Now: now, Test: test,
	}
	if !f.At.Before(f.Floor) { // a clock that was behind what has passed says nothing
		m.Noted = f.At
	}
	return m
}

func (f *Failure) raise(s remediation.State) remediation.State {
	if f.Floor.After(s.Floor) {
		s.Floor = f.Floor
	}
	return s
}

// Verify judges what lies in the intents folder, at the next boot, and says what it wants. trust is the folder of the
// keys. It is called again with the same fix when a power cut came before the orders were kept. A fix that cannot be
// remembered is not done, or a later start might do it again, and while the disk does not give what it is judged by
// nothing is known of it: the remedy then says Later, and the error why.
func Verify(sealed []byte, trust string) (boot.Remedy, error) { return verify(read, sealed, trust) }

func verify(read reading, sealed []byte, trust string) (boot.Remedy, error) {
	dir := esp.Open(filepath.Dir(trust))
	roles, err := readTrust(read, trust)
	if unread(err) {
		return boot.Remedy{Later: true}, unreadable("the keys", err)
	}
	if err != nil {
		return boot.Remedy{}, err
	}
	var f Failure
	data, err := read(dir.Join(failureFile), maxFailure)
	if unread(err) {
		return boot.Remedy{Later: true}, unreadable("what the recovery environment found", err)
	}
	if err == nil {
		err = json.Unmarshal(data, &f)
	}
	if err != nil {
		return boot.Remedy{}, fmt.Errorf("what the recovery environment found: %w", err)
	}
	m, lost, err := remembered(read, dir)
	if err != nil {
		return boot.Remedy{Later: true}, err
	}
	plan, next, err := m.take(roles, &f, time.Now(), sealed)
	if err != nil {
		return boot.Remedy{}, err
	}
	remedy, err := Remedy(&plan)
	if err != nil {
		return boot.Remedy{}, err
	}
	if err := keep(dir, next, unsent); err != nil {
		return boot.Remedy{Later: true}, remediation.Unkept(&plan.Fix, cause(err))
	}
	remedy.Lost = lost
	return remedy, nil
}

// take judges a fix, and returns what to do and what to remember before that is done.
func (m memory) take(
	roles remediation.Trust, f *Failure, now time.Time, sealed []byte,
) (remediation.Plan, memory, error) {
	sum := sha256.Sum256(sealed)
	digest := hex.EncodeToString(sum[:])
	state := m.State
	if m.Last == digest {
		state = m.Before
	}
	plan, err := remediation.Judge(roles, f.raise(state), f.machine(false, now), sealed)
	if err != nil {
		return remediation.Plan{}, m, err
	}
	return plan, memory{State: plan.State, Last: digest, Before: state}, nil
}

// Remedy is what a fix means for the machine, at the next boot and from then on. A verb that is not here is an error,
// and then nothing of the fix is done.
func Remedy(p *remediation.Plan) (boot.Remedy, error) {
	r := boot.Remedy{Orders: boot.Orders{Source: "fix " + p.Fix.ID, Reason: p.Fix.Reason}}
	for _, a := range p.Effects {
		switch a.Verb {
		case remediation.DisableProvider:
			r.Orders.Disabled = append(r.Orders.Disabled, a.Provider)
		case remediation.RollbackContent:
			r.Orders.LastKnownGood = append(r.Orders.LastKnownGood, a.Provider)
		case remediation.SafeMode:
			r.Orders.Safe = true
		case remediation.UnsetSafeMode:
			r.Unset = true
		case remediation.RestoreFile:
			r.Restore = append(r.Restore, boot.Restore{Path: a.Path, SHA256: a.SHA256})
		case remediation.Collect, remediation.Hold:
		default:
			return boot.Remedy{}, fmt.Errorf("%s: this version cannot do that", a)
		}
	}
	return r, nil
}
