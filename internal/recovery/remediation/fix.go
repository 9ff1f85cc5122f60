package remediation

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
)

// PayloadType is what a fix is signed as (sign.Seal).
const PayloadType = "application/vnd.keepout.remediation.v1+json"

// Format is the version of the encoding.
const Format = 1

// Bounds of a fix.
const (
	MaxFix      = 64 << 10 // bytes of an encoded fix
	MaxEnvelope = 128 << 10
	MaxActions  = 16
	MaxMachines = 256
	MaxRevoked  = 64
	MaxSequence = 1 << 53 // what every JSON reader keeps exactly
	maxText     = 400
	maxName     = 128
	maxLife     = 400 * 24 * time.Hour
)

// Kind says for whom a fix is.
type Kind string

// The kinds.
const (
	Campaign   Kind = "campaign"   // for every machine with the symptom; newer ones replace older ones
	Targeted   Kind = "targeted"   // the answer to one diagnostics bundle
	Revocation Kind = "revocation" // takes other fixes back; it has no actions
)

// Verb is what an action does. The list is closed.
type Verb string

// The verbs.
const (
	DisableProvider Verb = "disable-provider" // Provider is not started any more
	RollbackContent Verb = "rollback-content" // Provider runs its last-known-good content
	RestoreFile     Verb = "restore-file"     // Path of Keepout's own trees gets the content with SHA256
	SafeMode        Verb = "safe-mode"        // the machine starts without third-party providers
	UnsetSafeMode   Verb = "unset-safe-mode"  // it starts with them again
	Hold            Verb = "hold"             // it stays in recovery and asks again
	Collect         Verb = "collect"          // it makes a fresh bundle of level full and sends it
)

// Verbs lists the verbs.
func Verbs() []Verb {
	return []Verb{DisableProvider, RollbackContent, RestoreFile, SafeMode, UnsetSafeMode, Hold, Collect}
}

// vendorVerbs are what a vendor's key may do, to its own provider.
func vendorVerbs() []Verb { return []Verb{DisableProvider, RollbackContent} }

// Trees are the folders that restore-file may write to: Keepout's own. A path begins with one of these words; which
// folder that is, the one who applies it knows.
func Trees() []string { return []string{"config", "program", "state"} }

// Action is one step of a fix.
type Action struct {
	Verb     Verb   `json:"verb"`
	Provider string `json:"provider,omitempty"` // of disable-provider and rollback-content
	Path     string `json:"path,omitempty"`     // of restore-file: "config/keepout.yaml", "state/…", "program/…"
	SHA256   string `json:"sha256,omitempty"`   // of restore-file: the content, 64 hexadecimal digits
}

// Fix is what is signed.
type Fix struct {
	Format   int       `json:"format"`
	ID       string    `json:"id"` // chosen by its author: letters, digits, dots and dashes
	Kind     Kind      `json:"kind"`
	Sequence uint64    `json:"sequence,omitempty"` // of campaigns: each is higher than all before it
	Issued   time.Time `json:"issued"`
	Expires  time.Time `json:"expires"`
	Reason   string    `json:"reason"` // for people, and kept on the machine
	// Vendor names the provider whose vendor signs; empty: the organisation does.
	Vendor   string   `json:"vendor,omitempty"`
	Machines Selector `json:"machines,omitzero"`
	Symptom  Symptom  `json:"symptom,omitzero"` // of a campaign
	Bundle   string   `json:"bundle,omitempty"` // of a targeted fix: the digest of the bundle that it answers
	Actions  []Action `json:"actions,omitempty"`
	Revokes  []string `json:"revokes,omitempty"` // ids, of a revocation
	// RevokesKeys are the ids of keys (sign.IDOf), of a revocation: what they sign counts no more.
	RevokesKeys []string `json:"revokes_keys,omitempty"`
	Test        bool     `json:"test,omitempty"` // harmless: for keepout recovery test
}

// Selector limits a fix to machines. The zero value is every machine.
type Selector struct {
	IDs []string `json:"ids,omitempty"` // pseudonyms (diagnostics.Pseudonym)
}

// Symptom is what a campaign looks for. Every part that is not empty must fit; at least one must be given.
type Symptom struct {
	Signature string `json:"signature,omitempty"` // diagnostics.Signature.ID
	Provider  string `json:"provider,omitempty"`  // a provider that the machine has
	Engine    string `json:"engine,omitempty"`    // its active version; needs Provider
	Content   string `json:"content,omitempty"`   // its active version; needs Provider
}

// None reports whether nothing is looked for.
func (s Symptom) None() bool { return s == Symptom{} }

var (
	identifier = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)
	hex16      = regexp.MustCompile(`^[0-9a-f]{16}$`)
	hex32      = regexp.MustCompile(`^[0-9a-f]{32}$`)
	hex64      = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// Encode checks a fix and returns its bytes, which are what is signed.
func Encode(f *Fix) ([]byte, error) {
	if err := f.Check(); err != nil {
		return nil, fmt.Errorf("encode fix: %w", err)
	}
	data, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode fix: %w", err)
	}
	if len(data) >= MaxFix {
		return nil, fmt.Errorf("encode fix: %d bytes, at most %d", len(data), MaxFix)
	}
	return append(data, '\n'), nil
}

// Decode reads a fix and checks it. An unknown field is an error: a machine must not do a part of what was signed.
func Decode(data []byte) (Fix, error) {
	if len(data) > MaxFix {
		return Fix{}, fmt.Errorf("decode fix: %d bytes, at most %d", len(data), MaxFix)
	}
	var f Fix
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&f); err != nil {
		return Fix{}, fmt.Errorf("decode fix: %w", err)
	}
	if dec.More() {
		return Fix{}, errors.New("decode fix: something follows it")
	}
	if err := f.Check(); err != nil {
		return Fix{}, fmt.Errorf("decode fix: %w", err)
	}
	return f, nil
}

// Check reports the first thing that is wrong with a fix by itself, whatever machine it is for.
func (f *Fix) Check() error {
	switch {
	case f.Format != Format:
		return fmt.Errorf("format %d, want %d", f.Format, Format)
	case !identifier.MatchString(f.ID):
		return fmt.Errorf("id %.40q: letters, digits, dots and dashes, at most %d", f.ID, maxName)
	case f.Issued.IsZero() || f.Expires.IsZero() || !f.Expires.After(f.Issued):
		return errors.New("it must be issued before it expires")
	case f.Expires.Sub(f.Issued) > maxLife:
		return fmt.Errorf("it lives longer than %d days", int(maxLife.Hours())/24)
	case f.Issued.Year() < 2020 || f.Expires.Year() > 9998:
		return errors.New("its times are out of range")
	case f.Vendor != "" && !identifier.MatchString(f.Vendor):
		return fmt.Errorf("vendor %.40q is no provider's id", f.Vendor)
	case !plainText(f.Reason) || f.Reason == "":
		return fmt.Errorf("it needs a reason: one line of at most %d characters", maxText)
	case len(f.Machines.IDs) > MaxMachines || !all(f.Machines.IDs, hex32.MatchString):
		return fmt.Errorf("machines: at most %d pseudonyms of 32 hexadecimal digits", MaxMachines)
	}
	return f.checkKind()
}

func (f *Fix) checkKind() error {
	switch f.Kind {
	case Campaign:
		if f.Sequence == 0 || f.Sequence > MaxSequence || f.Bundle != "" || f.revokes() > 0 {
			return errors.New("a campaign has a sequence number, no bundle and revokes nothing")
		}
		if err := f.Symptom.check(); err != nil {
			return err
		}
	case Targeted:
		if f.Sequence != 0 || !hex64.MatchString(f.Bundle) || !f.Symptom.None() || f.revokes() > 0 {
			return errors.New("a targeted fix has the digest of a bundle, no sequence number and no symptom")
		}
	case Revocation:
		if f.Sequence != 0 || f.Bundle != "" || !f.Symptom.None() || len(f.Actions) > 0 || f.Vendor != "" ||
			f.revokes() == 0 || f.revokes() > MaxRevoked || !all(f.Revokes, identifier.MatchString) ||
			!all(f.RevokesKeys, hex64.MatchString) {
			return fmt.Errorf("a revocation has 1 to %d ids of fixes or keys, no sequence number, and nothing to do",
				MaxRevoked)
		}
		return nil
	default:
		return fmt.Errorf("kind %.40q is not known", f.Kind)
	}
	if len(f.Actions) == 0 || len(f.Actions) > MaxActions {
		return fmt.Errorf("a fix has 1 to %d actions", MaxActions)
	}
	for i := range f.Actions {
		if err := f.Actions[i].check(); err != nil {
			return fmt.Errorf("action %d: %w", i+1, err)
		}
	}
	return f.checkTogether()
}

func (f *Fix) revokes() int { return len(f.Revokes) + len(f.RevokesKeys) }

// checkTogether refuses actions that contradict one another, and a test that does something.
func (f *Fix) checkTogether() error {
	has := func(v Verb) bool {
		return slices.ContainsFunc(f.Actions, func(a Action) bool { return a.Verb == v })
	}
	switch {
	case has(SafeMode) && has(UnsetSafeMode):
		return errors.New("it both sets and unsets safe mode")
	case has(Hold) && slices.ContainsFunc(f.Actions, func(a Action) bool { return a.Verb != Hold && a.Verb != Collect }):
		return errors.New("hold goes with collect only: a machine that is held does not start")
	case f.Test && slices.ContainsFunc(f.Actions, func(a Action) bool { return a.Verb != Collect }):
		return errors.New("a test may only collect")
	}
	return nil
}

func (s *Symptom) check() error {
	switch {
	case s.None():
		return errors.New("a campaign needs a symptom: a signature, or a provider")
	case s.Signature != "" && !hex16.MatchString(s.Signature):
		return fmt.Errorf("signature %.40q: 16 hexadecimal digits", s.Signature)
	case s.Provider != "" && !identifier.MatchString(s.Provider):
		return fmt.Errorf("provider %.40q is no id", s.Provider)
	case s.Provider == "" && (s.Engine != "" || s.Content != ""):
		return errors.New("a version without its provider")
	case !plainText(s.Engine) || !plainText(s.Content):
		return errors.New("a version is not one line of text")
	}
	return nil
}

func (a *Action) check() error {
	extra := Action{Verb: a.Verb}
	switch a.Verb {
	case DisableProvider, RollbackContent:
		if !identifier.MatchString(a.Provider) {
			return fmt.Errorf("%s needs a provider's id", a.Verb)
		}
		extra.Provider = a.Provider
	case RestoreFile:
		if !ownPath(a.Path) || !hex64.MatchString(a.SHA256) {
			return fmt.Errorf("%s needs a path in %s, and a SHA-256", a.Verb, strings.Join(Trees(), ", "))
		}
		extra.Path, extra.SHA256 = a.Path, a.SHA256
	case SafeMode, UnsetSafeMode, Hold, Collect:
	default:
		return fmt.Errorf("verb %.40q is not known", a.Verb)
	}
	if *a != extra {
		return fmt.Errorf("%s has more than it takes", a.Verb)
	}
	return nil
}

// ownPath reports whether a path is a clean one below one of the trees.
func ownPath(p string) bool {
	tree, rest, found := strings.Cut(p, "/")
	return found && slices.Contains(Trees(), tree) && len(p) <= 256 && path.Clean(p) == p && rest != "" &&
		!strings.HasPrefix(rest, "../") && rest != ".." && plainText(p) && !strings.ContainsAny(p, "\\\x00")
}

func plainText(text string) bool {
	return len(text) <= maxText && !strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) })
}

func all(list []string, fits func(string) bool) bool {
	return !slices.ContainsFunc(list, func(s string) bool { return !fits(s) })
}
