package sign

import (
	"encoding/json"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
)

// Class says whose signatures a release needs and how fast it may go to a fleet.
type Class string

// The classes.
const (
	// Engine is a program, or content that makes an engine do what it has never done: several people sign.
	Engine Class = "engine"
	// Content is signatures, rules or models of a known shape: an online key signs.
	Content Class = "content"
)

// Bounds of a release's description.
const (
	maxHardware = 16
	maxCounter  = 1 << 53 // what every JSON reader keeps exact
)

// Release is what vendor and operator both say about a target beside its digest: the "custom" of TUF. They must say
// the same, field by field.
type Release struct {
	Provider string `json:"provider"` // the provider's id, as in its manifest
	// Kind is which part of a provider this is. Content of class Engine is still content.
	Kind    Class  `json:"kind"`
	Class   Class  `json:"class"`
	Version string `json:"version"` // the vendor's name for it, for people
	// Counter orders the releases of one provider and kind; a later release has a higher one. From 1.
	Counter uint64 `json:"counter"`
	// Floor is the lowest counter that may still run where this release was seen: what lies below has a hole.
	Floor uint64 `json:"floor,omitempty"`
	// Hardware lists what this release is for, as "linux/amd64". Content that suits every machine says "any".
	Hardware []string `json:"hardware"`
	// Size is the number of bytes of all files in the package, unpacked.
	Size int64 `json:"size"`
	// Shrinks is set when content is meant to be empty or less than half of the release before.
	Shrinks bool `json:"shrinks,omitempty"`
}

// Target is one release that vendor and operator both name. It is only ever made by Verify.
type Target struct {
	Path   string // as "acme-edr/engine/4.2.0"
	Digest string // of the package's OCI manifest: "sha256:" and 64 hexadecimal digits
	Length int64  // of that manifest, in bytes
	Vendor string // who made it, as the operator calls them
	Release
}

var (
	providerName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)
	versionName  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+-]{0,126}$`)
)

// TargetPath is the name under which both repositories list a release: provider, class, then the version, which for
// content of class Engine has "content-" before it, so that it cannot be confused with an engine's.
func (r Release) TargetPath() string {
	version := r.Version
	if r.Kind == Content && r.Class == Engine {
		version = "content-" + version
	}
	return path.Join(r.Provider, string(r.Class), version)
}

// Check says what is wrong with a release's description, or nil.
func (r Release) Check() error {
	switch {
	case !providerName.MatchString(r.Provider):
		return fmt.Errorf("provider %q: small letters, digits and dashes, at most 63", r.Provider)
	case !versionName.MatchString(r.Version):
		return fmt.Errorf("version %q: letters, digits and . _ + -, at most 127", r.Version)
	case r.Kind != Engine && r.Kind != Content:
		return fmt.Errorf("kind %q: engine or content", r.Kind)
	case r.Class != Engine && r.Class != Content:
		return fmt.Errorf("class %q: engine or content", r.Class)
	case r.Kind == Engine && r.Class != Engine:
		return fmt.Errorf("an engine has class engine, not %q", r.Class)
	case r.Counter < 1 || r.Counter > maxCounter:
		return fmt.Errorf("counter %d: 1 to %d", r.Counter, int64(maxCounter))
	case r.Floor > r.Counter:
		return fmt.Errorf("floor %d is above the release's own counter %d", r.Floor, r.Counter)
	case r.Size < 0:
		return fmt.Errorf("size %d is negative", r.Size)
	case len(r.Hardware) < 1 || len(r.Hardware) > maxHardware:
		return fmt.Errorf("%d hardware identifiers: 1 to %d", len(r.Hardware), maxHardware)
	}
	for _, h := range r.Hardware {
		if h == "" || len(h) > 64 || strings.ContainsAny(h, " \t\n") {
			return fmt.Errorf("hardware %q is no identifier", h)
		}
	}
	return nil
}

// runsOn reports whether the release is for this hardware.
func (r Release) runsOn(hardware string) bool {
	return slices.Contains(r.Hardware, "any") || slices.Contains(r.Hardware, hardware)
}

// line names what is released one after another: one kind of one provider.
func (r Release) line() string { return r.Provider + "/" + string(r.Kind) }

// decodeRelease reads the custom part of a target. A field that this version does not know is an error: it may be a
// condition.
func decodeRelease(raw []byte) (r Release, err error) {
	if err := decodeStrict(raw, &r); err != nil {
		return Release{}, err
	}
	return r, r.Check()
}

// Custom is the release as both repositories hold it.
func (r Release) Custom() (json.RawMessage, error) {
	if err := r.Check(); err != nil {
		return nil, err
	}
	return json.Marshal(r)
}

// Describes compares what a package says of itself (the config of its manifest) with what vendor and operator signed.
// The digest already binds the one to the other; a package that tells another story is refused all the same.
func (t Target) Describes(config []byte) error {
	r, err := decodeRelease(config)
	if err != nil {
		return refuse(CodeRelease, "make it again", "the package %s does not describe itself: %v", t.Path, err)
	}
	if field := t.difference(r); field != "" {
		return refuse(CodeDiffer, "do not use it", "the package %s says another %s of itself than what was signed", t.Path,
			field)
	}
	return nil
}

// difference names the first field in which two releases differ, or "".
func (r Release) difference(o Release) string {
	for _, f := range []struct {
		name string
		same bool
	}{
		{"provider", r.Provider == o.Provider},
		{"kind", r.Kind == o.Kind},
		{"class", r.Class == o.Class},
		{"version", r.Version == o.Version},
		{"counter", r.Counter == o.Counter},
		{"floor", r.Floor == o.Floor},
		{"hardware", slices.Equal(r.Hardware, o.Hardware)},
		{"size", r.Size == o.Size},
		{"shrinks", r.Shrinks == o.Shrinks},
	} {
		if !f.same {
			return f.name
		}
	}
	return ""
}
