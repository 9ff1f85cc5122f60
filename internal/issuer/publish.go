package issuer

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/keepout-security/keepout/internal/durable"
)

// Progress says how far a change has come.
type Progress struct {
	Role    string `json:"role"`
	Version int64  `json:"version"`
	Have    int    `json:"signatures"`
	Need    int    `json:"needed"`
	// Published is false while signatures are missing. Everybody whose key counts runs the same command.
	Published bool `json:"published"`
	// Waiting are the keys whose signatures could complete it, by the beginning of their ids.
	Waiting []string `json:"waiting,omitempty"`
}

// file is where a version of a role lies.
func (i *Issuer) file(role string, version int64) string {
	return filepath.Join(i.home, metadataDir, fmt.Sprintf("%d.%s.json", version, role))
}

// newest finds the highest version of a role that was published; 0 when there is none.
func (i *Issuer) newest(role string) (version int64, err error) {
	entries, err := os.ReadDir(filepath.Join(i.home, metadataDir))
	if err != nil {
		return 0, fmt.Errorf("look for metadata: %w", err)
	}
	for _, e := range entries {
		var n int64
		number, name, _ := strings.Cut(e.Name(), ".")
		if name != role+".json" {
			continue
		}
		if _, err := fmt.Sscanf(number, "%d", &n); err == nil && n > version {
			version = n
		}
	}
	return version, nil
}

func load[T metadata.Roles](i *Issuer, role string, empty *metadata.Metadata[T]) (*metadata.Metadata[T], error) {
	version, err := i.newest(role)
	if err != nil {
		return nil, err
	}
	m, err := empty.FromFile(i.file(role, version))
	if err != nil {
		return nil, refuse(CodeHome, "restore the folder from its copy", "the %s metadata of %s cannot be read: %v", role,
			i.home, err)
	}
	return m, nil
}

func (i *Issuer) root() (*metadata.Metadata[metadata.RootType], error) {
	return load(i, "root", metadata.Root())
}

func (i *Issuer) targets(role string) (*metadata.Metadata[metadata.TargetsType], error) {
	return load(i, role, metadata.Targets())
}

// signers are the ids of the keys that may sign a role, and how many must.
func (i *Issuer) signers(role string) (ids []string, threshold int, err error) {
	if r := keysFor(role); r != role || role == "root" {
		root, err := i.root()
		if err != nil {
			return nil, 0, err
		}
		return root.Signed.Roles[role].KeyIDs, root.Signed.Roles[role].Threshold, nil
	}
	targets, err := i.targets("targets")
	if err != nil {
		return nil, 0, err
	}
	for _, d := range targets.Signed.Delegations.Roles {
		if d.Name == role {
			return d.KeyIDs, d.Threshold, nil
		}
	}
	return nil, 0, refuse(CodeKeys, "keepout keys show lists the roles", "there is no role %q", role)
}

// addSignatures signs with all keys at hand that count and have not signed yet. It returns who has not.
func addSignatures[T metadata.Roles](i *Issuer, set string, ids []string, m *metadata.Metadata[T]) ([]string, error) {
	keys, err := i.ring.keys(set)
	if err != nil {
		return nil, err
	}
	has := func(id string) bool {
		return slices.ContainsFunc(m.Signatures, func(s metadata.Signature) bool { return s.KeyID == id })
	}
	for _, key := range keys {
		id := string(idOf(key))
		if !slices.Contains(ids, id) || has(id) {
			continue
		}
		signer, err := signature.LoadED25519Signer(key)
		if err == nil {
			_, err = m.Sign(signer)
		}
		if err != nil {
			return nil, fmt.Errorf("sign: %w", err)
		}
	}
	var missing []string
	for _, id := range ids {
		if !has(id) {
			missing = append(missing, id[:12])
		}
	}
	return missing, nil
}

// publishTargets signs a targets file of a role and publishes it as soon as enough have signed.
func (i *Issuer) publishTargets(role string, m *metadata.Metadata[metadata.TargetsType]) (Progress, error) {
	ids, threshold, err := i.signers(role)
	if err != nil {
		return Progress{}, err
	}
	waiting, err := i.pendingTargets(role)
	if err != nil {
		return Progress{}, err
	}
	if waiting != nil {
		if !sameChange(waiting, m) {
			return Progress{}, refuse(CodePending, "complete it, or give it up: keepout keys discard "+i.home,
				"another change of %s waits for signatures", role)
		}
		m = waiting
	}
	missing, err := addSignatures(i, keysFor(role), ids, m)
	if err != nil {
		return Progress{}, err
	}
	p := Progress{
		Role: role, Version: m.Signed.Version, Have: len(ids) - len(missing), Need: threshold, Waiting: missing,
	}
	raw, err := m.ToBytes(false)
	if err != nil {
		return p, fmt.Errorf("encode %s: %w", role, err)
	}
	err = i.settle(&p, role, raw)
	return p, err
}

// settle publishes what has enough signatures, and keeps what has not.
func (i *Issuer) settle(p *Progress, role string, raw []byte) error {
	if p.Have == 0 {
		return refuse(CodeKeys, "bring the medium that holds one and name it with --keys",
			"no key of %s is at hand (%d of %d must sign)", keysFor(role), p.Need, p.Have+len(p.Waiting))
	}
	pending := filepath.Join(i.home, pendingDir, role+".json")
	if p.Have < p.Need {
		if err := os.MkdirAll(filepath.Dir(pending), 0o700); err != nil {
			return fmt.Errorf("keep what waits: %w", err)
		}
		return durable.WriteFileOn(durable.OS(), pending, raw, 0o644)
	}
	p.Published, p.Waiting = true, nil
	if err := durable.WriteFileOn(durable.OS(), i.file(role, p.Version), raw, 0o644); err != nil {
		return err
	}
	if err := os.Remove(pending); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget what waited: %w", err)
	}
	return nil
}

func (i *Issuer) pendingTargets(role string) (*metadata.Metadata[metadata.TargetsType], error) {
	raw, err := os.ReadFile(filepath.Join(i.home, pendingDir, role+".json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // nothing waits
	}
	if err != nil {
		return nil, fmt.Errorf("read what waits: %w", err)
	}
	m, err := metadata.Targets().FromBytes(raw)
	if err != nil {
		return nil, refuse(CodePending, "give it up: keepout keys discard "+i.home,
			"what waits for signatures is damaged: %v", err)
	}
	return m, nil
}

// sameChange compares two changes; when each of them was begun does not count.
func sameChange(a, b *metadata.Metadata[metadata.TargetsType]) bool {
	x, y := a.Signed, b.Signed
	x.Expires, y.Expires = time.Time{}, time.Time{}
	left, errLeft := json.Marshal(x)
	right, errRight := json.Marshal(y)
	return errLeft == nil && errRight == nil && bytes.Equal(left, right)
}

// seal signs snapshot and timestamp over what is published, the timestamp last: until then readers see the old ones.
func (i *Issuer) seal(now time.Time) error {
	root, err := i.root()
	if err != nil {
		return err
	}
	meta := map[string]*metadata.MetaFiles{}
	names := []string{"targets"}
	for _, r := range roles(i.about.Party) {
		if r.lifetime > 0 {
			names = append(names, r.name)
		}
	}
	for _, name := range names {
		version, err := i.newest(name)
		if err != nil {
			return err
		}
		if meta[name+".json"], err = i.describe(name, version); err != nil {
			return err
		}
	}
	version, err := i.newest("snapshot")
	if err != nil {
		return err
	}
	snapshot := metadata.Snapshot(until(now, onlineLifetime))
	snapshot.Signed.Version, snapshot.Signed.Meta = version+1, meta
	if err := writeOnline(i, root, "snapshot", snapshot, i.file("snapshot", version+1)); err != nil {
		return err
	}
	named, err := i.describe("snapshot", version+1)
	if err != nil {
		return err
	}
	timestamp := metadata.Timestamp(until(now, onlineLifetime))
	timestamp.Signed.Version = version + 1
	timestamp.Signed.Meta = map[string]*metadata.MetaFiles{"snapshot.json": named}
	timestamp.Signed.UnrecognizedFields = map[string]any{"x-keepout-signed-at": until(now, 0).Format(time.RFC3339)}
	return writeOnline(i, root, "timestamp", timestamp, filepath.Join(i.home, metadataDir, "timestamp.json"))
}

func (i *Issuer) describe(role string, version int64) (*metadata.MetaFiles, error) {
	raw, err := os.ReadFile(i.file(role, version))
	if err != nil {
		return nil, fmt.Errorf("describe %s: %w", role, err)
	}
	sum := sha256.Sum256(raw)
	return &metadata.MetaFiles{Version: version, Length: int64(len(raw)), Hashes: metadata.Hashes{"sha256": sum[:]}}, nil
}

func writeOnline[T metadata.Roles](
	i *Issuer, root *metadata.Metadata[metadata.RootType], role string, m *metadata.Metadata[T], file string,
) error {
	ids := root.Signed.Roles[role].KeyIDs
	missing, err := addSignatures(i, onlineKeys, ids, m)
	if err != nil {
		return err
	}
	if len(ids)-len(missing) < root.Signed.Roles[role].Threshold {
		return refuse(CodeKeys, "whoever has it runs keepout package sign --refresh; until then hosts see what was before",
			"the online key, which says what is current, is not at hand")
	}
	raw, err := m.ToBytes(false)
	if err != nil {
		return fmt.Errorf("encode %s: %w", role, err)
	}
	return durable.WriteFileOn(durable.OS(), file, raw, 0o644)
}
