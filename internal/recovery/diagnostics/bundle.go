package diagnostics

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Format is the version of a bundle's encoding.
const Format = 1

// Bounds, in bytes.
const (
	MaxBundle = 240 << 10 // an encoded bundle
	MaxParcel = 256 << 10 // a sealed one, which is what travels
)

// Level is how much a bundle holds.
type Level string

// The levels.
const (
	Off     Level = "off"     // no bundle is made
	Minimal Level = "minimal" // versions, providers, the signature of the failure; no text that somebody wrote
	Full    Level = "full"    // the panic's text, the change journal, units, timings and modules as well
)

// ParseLevel reads a level; the empty text is Full.
func ParseLevel(text string) (Level, error) {
	switch l := Level(text); l {
	case "":
		return Full, nil
	case Off, Minimal, Full:
		return l, nil
	}
	return "", fmt.Errorf("level %.20q is not known: off, minimal or full", text)
}

// Bundle is a report. What a field may hold is said by its tag: a name is an identifier or a version, a digest is
// SHA-256 in hexadecimal, own is made by this package; every other text is free, and all rules are applied to it.
type Bundle struct {
	Format  int       `json:"format"`
	Level   Level     `json:"level" redact:"own"`
	Nonce   string    `json:"nonce" redact:"own"`   // 32 hexadecimal digits, random: no two bundles have one digest
	Machine string    `json:"machine" redact:"own"` // Pseudonym
	Test    bool      `json:"test,omitempty"`
	Made    time.Time `json:"made,omitzero"` // by the machine's clock, which may be wrong

	Failure   Failure    `json:"failure"`
	Signature Signature  `json:"signature"`
	Versions  Versions   `json:"versions"`
	Providers []Provider `json:"providers,omitempty"`
	Crashes   []Crash    `json:"crashes,omitempty"`
	Starts    []Start    `json:"starts,omitempty"`
	Taint     []string   `json:"taint,omitempty" redact:"name"` // in words
	Modules   []Module   `json:"modules,omitempty"`

	// Only at level full.
	Changes []Change `json:"changes,omitempty"`
	Panic   []string `json:"panic,omitempty"` // the kernel's last lines
	Units   []Unit   `json:"units,omitempty"`
	Timings []Timing `json:"timings,omitempty"`

	Cuts     []Cut      `json:"cuts,omitempty"`     // what did not fit
	Redacted []Redacted `json:"redacted,omitempty"` // what the rules took away
}

// Failure is what is known of it.
type Failure struct {
	Attempts int    `json:"attempts,omitempty"`
	Visits   int    `json:"visits,omitempty"`   // to the recovery environment since the last good boot
	Starting string `json:"starting,omitempty"` // the provider that the last breadcrumb names
	Suspect  string `json:"suspect,omitempty"`  // the provider suspected; empty without evidence
	Reason   string `json:"reason,omitempty"`   // the evidence
	Cause    string `json:"cause,omitempty"`    // the kernel's line
}

// Versions of what is not a provider's.
type Versions struct {
	Keepout  string `json:"keepout,omitempty" redact:"name"`
	Recovery string `json:"recovery,omitempty" redact:"name"` // of the recovery image
	Kernel   string `json:"kernel,omitempty" redact:"name"`
	System   string `json:"system,omitempty" redact:"name"` // "Debian GNU/Linux 12 (bookworm)"
}

// Provider is one provider with its versions.
type Provider struct {
	ID      string `json:"id" redact:"name"`
	State   string `json:"state,omitempty" redact:"name"`
	Engine  Slots  `json:"engine,omitzero"`
	Content Slots  `json:"content,omitzero"`
}

// Slots are one part's versions, as its maker calls them or the beginning of a digest.
type Slots struct {
	Active    string `json:"active,omitempty" redact:"name"`
	Candidate string `json:"candidate,omitempty" redact:"name"`
	LKG       string `json:"lkg,omitempty" redact:"name"`
	Former    string `json:"former,omitempty" redact:"name"`
	Factory   string `json:"factory,omitempty" redact:"name"`
}

// Crash is how a provider ended, and how often.
type Crash struct {
	Provider  string    `json:"provider" redact:"name"`
	Signature string    `json:"signature"` // "signal 11 in yr_scan"
	Count     int       `json:"count"`
	Last      time.Time `json:"last,omitzero"`
}

// Start is one earlier start of the machine.
type Start struct {
	At   time.Time `json:"at,omitzero"`
	What string    `json:"what" redact:"name"` // good, failed, recovery …
	Mode string    `json:"mode,omitempty" redact:"name"`
	Why  string    `json:"why,omitempty"`
}

// Module is a kernel module that taints the kernel.
type Module struct {
	Name  string `json:"name" redact:"name"`
	Taint string `json:"taint,omitempty" redact:"name"` // the kernel's letters, such as OE
	Owner string `json:"owner,omitempty" redact:"name"` // the package, or dkms, or that nobody owns it
}

// Change is an entry of the change journal.
type Change struct {
	At       time.Time `json:"at,omitzero"`
	Code     string    `json:"code,omitempty" redact:"name"`
	Provider string    `json:"provider,omitempty" redact:"name"`
	What     string    `json:"what"`
}

// Unit is a unit of the service manager that failed.
type Unit struct {
	Name   string `json:"name"`
	Result string `json:"result,omitempty" redact:"name"`
}

// Timing is how long a phase of the boot took.
type Timing struct {
	Phase        string `json:"phase" redact:"name"`
	Milliseconds int64  `json:"ms"`
}

// Cut says what was left out.
type Cut struct {
	What string `json:"what" redact:"own"`
	Kept int64  `json:"kept"`
	Of   int64  `json:"of"`
	Unit string `json:"unit" redact:"own"` // bytes, lines or entries
}

// Redacted says how often a rule took something away.
type Redacted struct {
	Rule  string `json:"rule" redact:"own"`
	Count int    `json:"count"`
}

// Encode gives the bytes of a bundle; they are what is signed off in a preview, sealed and digested.
func (b *Bundle) Encode() ([]byte, error) {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", " ")
	if err := enc.Encode(b); err != nil {
		return nil, fmt.Errorf("encode bundle: %w", err)
	}
	return out.Bytes(), nil
}

// ErrFormat matches (errors.Is) the error of a bundle or parcel that is none, or of another version.
var ErrFormat = errors.New("not a diagnostics bundle of a known version")

// Decode reads a bundle from a machine, which may have made it on purpose to harm who reads it: bounded, and every list
// within its limits. Unknown fields are ignored.
func Decode(data []byte) (Bundle, error) {
	if len(data) > MaxBundle {
		return Bundle{}, fmt.Errorf("%w: %d bytes, at most %d", ErrFormat, len(data), MaxBundle)
	}
	var b Bundle
	if err := json.Unmarshal(data, &b); err != nil {
		return Bundle{}, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	switch {
	case b.Format != Format:
		return Bundle{}, fmt.Errorf("%w: format %d", ErrFormat, b.Format)
	case b.Level != Minimal && b.Level != Full:
		return Bundle{}, fmt.Errorf("%w: level %.20q", ErrFormat, b.Level)
	case !isHex(b.Nonce, 32) || !isHex(b.Machine, 32) || !isHex(b.Signature.ID, 16):
		return Bundle{}, fmt.Errorf("%w: nonce, machine or signature", ErrFormat)
	}
	return b, nil
}

// Digest is the SHA-256 of an encoded bundle, in hexadecimal. A targeted remediation names it, and crash.CodeOf makes
// the report code of it.
func Digest(encoded []byte) string {
	sum := sha256.Sum256(encoded)
	return hex.EncodeToString(sum[:])
}

func isHex(text string, digits int) bool {
	if len(text) != digits {
		return false
	}
	for i := range len(text) {
		if c := text[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
