package config

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/content"
)

// ManifestFile is the manifest's name in a provider's folder.
const ManifestFile = "provider.yaml"

// Manifest says what a provider is and what it asks for. Its effective rights are what both the manifest asks
// for and the administrator allows.
type Manifest struct {
	Version    int             `yaml:"version"`    // of this format; 1
	ID         string          `yaml:"id"`         // equals the folder's name
	Title      string          `yaml:"title"`      // for people
	Roles      []string        `yaml:"roles"`      // antivirus, edr, anti-cheat, …; for people
	Executable string          `yaml:"executable"` // file in the same folder
	SHA256     string          `yaml:"sha256"`     // of the executable, lower-case hex
	Protocol   []uint32        `yaml:"protocol"`   // major versions of the wire protocol
	Events     []ManifestEvent `yaml:"events"`
	Settings   []string        `yaml:"settings"` // keys that an administrator may set
	Grants     Grants          `yaml:"grants"`   // the most it asks for
	Health     Health          `yaml:"health"`
	Schema     content.Schema  `yaml:"content_schema"` // what its content must look like

	dir  string
	name string // what the id must be; "": the folder's name
	doc  *document
}

// Dir is the folder that the manifest was read from.
func (m *Manifest) Dir() string { return m.dir }

// ManifestEvent is one event type that a provider may subscribe to.
type ManifestEvent struct {
	Type    string `yaml:"type"`
	Content string `yaml:"content"` // metadata, digest or descriptor
}

// Health says how a provider shows that it is well.
type Health struct {
	Heartbeat Duration `yaml:"heartbeat"` // interval, 100ms to 10s
	Selftest  string   `yaml:"selftest"`  // file in the same folder that it denies whatever its content is
}

// LoadManifest reads the manifest in a provider's folder. It does not look at the executable.
func LoadManifest(dir string) (*Manifest, error) { return loadManifest(dir, "") }

// LoadPackaged is LoadManifest for a folder that is not named after its provider, whose id must be id.
func LoadPackaged(dir, id string) (*Manifest, error) { return loadManifest(dir, id) }

func loadManifest(dir, name string) (*Manifest, error) {
	m, err := readManifest(dir)
	if err != nil {
		return nil, err
	}
	m.name = name
	if err := m.check(); err != nil {
		return nil, err
	}
	return m, nil
}

func readManifest(dir string) (*Manifest, error) {
	m := &Manifest{dir: dir, Health: Health{Heartbeat: Duration(2 * time.Second)}}
	var err error
	m.doc, err = decodeFile(filepath.Join(dir, ManifestFile), CodeManifest, m)
	m.fill()
	return m, err
}

// fill puts defaults where the manifest says nothing.
func (m *Manifest) fill() {
	if m.Grants.State == 0 {
		m.Grants.State = defaultState
	}
	if m.Grants.Log == 0 {
		m.Grants.Log = defaultLog
	}
}

var digestPattern = regexp.MustCompile(`^[0-9a-f]{64}$`)

func (m *Manifest) check() error {
	var errs []error
	bad := func(path, fix, format string, args ...any) {
		if len(errs) < maxErrors {
			errs = append(errs, m.doc.at(path, CodeManifest, fmt.Sprintf(format, args...), fix))
		}
	}
	if m.Version != 1 {
		bad("$.version", "write version: 1", "manifest version %d is not known", m.Version)
	}
	folder := filepath.Base(m.dir)
	if abs, err := filepath.Abs(m.dir); err == nil { // "." has a name, too
		folder = filepath.Base(abs)
	}
	if m.name != "" {
		folder = m.name
	}
	if m.ID != folder {
		bad("$.id", "give the folder and the provider one name", "id %q in folder %q", m.ID, folder)
	}
	if !plainName(m.Executable) {
		bad("$.executable", "name a file in the manifest's folder", "executable %q is not a plain file name", m.Executable)
	}
	if m.SHA256 != "" && !digestPattern.MatchString(m.SHA256) {
		bad("$.sha256", sealFix(m.dir), "sha256 is not 64 lower-case hex digits")
	}
	if len(m.Protocol) == 0 {
		bad("$.protocol", "write protocol: [1]", "no protocol version")
	}
	for i, e := range m.Events {
		if _, err := event.ParseType(e.Type); err != nil {
			bad(fmt.Sprintf("$.events[%d].type", i), "choose one of the known events", "%v", err)
		}
		if !slices.Contains([]string{"metadata", "digest", "descriptor"}, e.Content) {
			bad(fmt.Sprintf("$.events[%d].content", i), "write metadata, digest or descriptor", "content %q is not known",
				e.Content)
		}
	}
	if len(m.Events) == 0 {
		bad("$.events", "list what the provider may see", "no events")
	}
	m.checkGrants(bad)
	if h := time.Duration(m.Health.Heartbeat); h < 100*time.Millisecond || h > 10*time.Second {
		bad("$.health.heartbeat", "choose 100ms to 10s", "heartbeat %v is out of range", h)
	}
	if s := m.Health.Selftest; s != "" && !plainName(s) {
		bad("$.health.selftest", "name a file in the manifest's folder", "selftest %q is not a plain file name", s)
	}
	m.checkSchema(bad)
	return errors.Join(errs...)
}

// plainName reports whether a name is that of a visible file in the manifest's own folder.
func plainName(name string) bool {
	return name != "" && name == filepath.Base(name) && !strings.HasPrefix(name, ".") && name != "/"
}

func sealFix(dir string) string { return "keepout provider seal " + dir }

// OpenExecutable opens the executable and checks its digest. What is open is what was checked, whatever happens
// to the path afterwards.
func (m *Manifest) OpenExecutable() (*os.File, error) {
	path := filepath.Join(m.dir, m.Executable)
	f, err := os.Open(path)
	if err != nil {
		return nil, m.doc.at("$.executable", CodeExecutable, err.Error(), "build the provider, or correct the name")
	}
	digest, err := digestOf(f)
	if err != nil {
		err = m.doc.at("$.executable", CodeExecutable, err.Error(), "build the provider, or correct the name")
	}
	if err == nil && m.SHA256 == "" {
		err = m.doc.at("$.executable", CodeDigest, "the manifest has no sha256", sealFix(m.dir))
	}
	if err == nil && digest != m.SHA256 {
		err = m.doc.at("$.sha256", CodeDigest,
			fmt.Sprintf("%s has SHA-256 %s, the manifest says %s", path, digest, m.SHA256),
			"reinstall the provider, or if you built it: "+sealFix(m.dir))
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func digestOf(r io.Reader) (string, error) {
	h := sha256.New()
	if _, err := io.Copy(h, r); err != nil {
		return "", fmt.Errorf("hash executable: %w", err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// Seal writes the executable's digest into the manifest of a provider's folder, as its last line or in place of
// the old one, and returns it.
func Seal(dir string) (string, error) {
	m, err := readManifest(dir)
	if err != nil {
		return "", err
	}
	m.SHA256 = "" // whatever it says, it is about to be replaced
	if err := m.check(); err != nil {
		return "", err
	}
	f, err := os.Open(filepath.Join(dir, m.Executable))
	if err != nil {
		return "", m.doc.at("$.executable", CodeExecutable, err.Error(), "build the provider, or correct the name")
	}
	digest, err := digestOf(f)
	if err := errors.Join(err, f.Close()); err != nil {
		return "", err
	}
	path := filepath.Join(dir, ManifestFile)
	old, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("seal: %w", err)
	}
	var lines []string
	for line := range strings.Lines(string(old)) {
		if !strings.HasPrefix(line, "sha256:") {
			lines = append(lines, strings.TrimRight(line, "\n"))
		}
	}
	lines = append(lines, "sha256: "+digest, "")
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")), 0o644); err != nil {
		return "", fmt.Errorf("seal: %w", err)
	}
	return digest, nil
}
