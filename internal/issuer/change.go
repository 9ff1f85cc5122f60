package issuer

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/keepout-security/keepout/internal/sign"
)

// CodeRelease is a release that contradicts one that was signed before.
const CodeRelease = "KO-2144"

// RoleFor is the role under which this party signs a class.
func (i *Issuer) RoleFor(class sign.Class) string {
	if i.about.Party == Operator {
		return "catalog-" + string(class)
	}
	return string(class)
}

// Release names a package in this party's repository: digest and length of its OCI manifest, and what it says of
// itself. A path that was signed once keeps its bytes, and a counter its release.
func (i *Issuer) Release(r sign.Release, digest string, length int64, now time.Time) ([]Progress, error) {
	custom, err := r.Custom()
	if err != nil {
		return nil, refuse(CodeRelease, "make the package again", "the release is not right: %v", err)
	}
	file, err := target(digest, length, custom)
	if err != nil {
		return nil, err
	}
	role := i.RoleFor(r.Class)
	current, err := i.targets(role)
	if err != nil {
		return nil, err
	}
	if err := contradicts(current.Signed.Targets, r, file); err != nil {
		return nil, err
	}
	return i.amend(role, now, func(t *metadata.TargetsType) { t.Targets[r.TargetPath()] = file })
}

func target(digest string, length int64, custom []byte) (*metadata.TargetFiles, error) {
	sum, err := hex.DecodeString(digest[min(len(digest), len("sha256:")):])
	if err != nil || len(sum) != sha256.Size {
		return nil, refuse(CodeRelease, "name the package by its folder", "%q is no SHA-256", digest)
	}
	raw := json.RawMessage(custom)
	return &metadata.TargetFiles{Length: length, Hashes: metadata.Hashes{"sha256": sum}, Custom: &raw}, nil
}

// contradicts compares a release with those that were signed before.
func contradicts(signed map[string]*metadata.TargetFiles, r sign.Release, file *metadata.TargetFiles) error {
	for path, had := range signed {
		var old sign.Release
		if had.Custom == nil || json.Unmarshal(*had.Custom, &old) != nil {
			continue // no release of ours
		}
		switch {
		case path == r.TargetPath() && !bytes.Equal(had.Hashes["sha256"], file.Hashes["sha256"]):
			return refuse(CodeRelease, "give it another version", "%s was signed before, with other bytes (sha256:%.12x…)", path,
				[]byte(had.Hashes["sha256"]))
		case path != r.TargetPath() && old.Provider == r.Provider && old.Kind == r.Kind && old.Counter == r.Counter:
			return refuse(CodeRelease, "build it with a higher --counter", "counter %d belongs to %s", r.Counter, path)
		}
	}
	return nil
}

// amend changes a targets file of a role and publishes it when enough have signed.
func (i *Issuer) amend(role string, now time.Time, edit func(*metadata.TargetsType)) ([]Progress, error) {
	m, err := i.targets(role)
	if err != nil {
		return nil, err
	}
	lifetime := rootLifetime
	if r, ok := roleOf(i.about.Party, role); ok {
		lifetime = r.lifetime
	}
	m.Signatures = nil
	m.Signed.Version++
	m.Signed.Expires = until(now, lifetime)
	edit(&m.Signed)
	p, err := i.publishTargets(role, m)
	return i.after(p, now, err)
}

// after goes on from a change: when it is published, it finishes what hangs on it. It says how far all of it has come.
func (i *Issuer) after(p Progress, now time.Time, err error) ([]Progress, error) {
	if err != nil {
		return nil, err
	}
	if !p.Published {
		return []Progress{p}, nil
	}
	more, err := i.finish(now)
	return append([]Progress{p}, more...), err
}

// finish signs anew what a change of keys left without enough signatures, and then says what is current. What it cannot
// complete waits; the change itself is in force all the same: a key that was taken away counts for nothing, even
// where that bars a release until others have signed it.
func (i *Issuer) finish(now time.Time) (out []Progress, err error) {
	root, err := i.root()
	if err != nil {
		return nil, err
	}
	targets, err := i.targets("targets")
	if err != nil {
		return nil, err
	}
	stale := []string{}
	if root.VerifyDelegate("targets", targets) != nil {
		stale = append(stale, "targets")
	}
	for _, r := range roles(i.about.Party) {
		if r.lifetime == 0 {
			continue
		}
		m, err := i.targets(r.name)
		if err != nil {
			return nil, err
		}
		if targets.VerifyDelegate(r.name, m) != nil {
			stale = append(stale, r.name)
		}
	}
	for _, role := range stale {
		p, err := i.again(role, now)
		if err != nil {
			return out, err
		}
		out = append(out, p)
	}
	return out, i.seal(now)
}

// again signs a role's file as it is, with a new version and time.
func (i *Issuer) again(role string, now time.Time) (Progress, error) {
	m, err := i.targets(role)
	if err != nil {
		return Progress{}, err
	}
	lifetime := rootLifetime
	if r, ok := roleOf(i.about.Party, role); ok {
		lifetime = r.lifetime
	}
	m.Signatures = nil
	m.Signed.Version++
	m.Signed.Expires = until(now, lifetime)
	return i.publishTargets(role, m)
}

// Refresh says anew that what is published is current: the online roles, snapshot and timestamp, and further roles
// that are named.
func (i *Issuer) Refresh(now time.Time, more ...string) ([]Progress, error) {
	var out []Progress
	for _, r := range roles(i.about.Party) {
		if r.lifetime == 0 || r.place != Online && !slices.Contains(more, r.name) {
			continue
		}
		p, err := i.again(r.name, now)
		if err != nil {
			return out, err
		}
		out = append(out, p)
	}
	if slices.Contains(more, "targets") {
		p, err := i.again("targets", now)
		if err != nil {
			return out, err
		}
		out = append(out, p)
	}
	rest, err := i.finish(now)
	return append(out, rest...), err
}

// Complete adds the signatures of the keys at hand to all that waits, and publishes what has enough.
func (i *Issuer) Complete(now time.Time) (out []Progress, err error) {
	if waiting, err := i.pendingRoot(); err != nil {
		return nil, err
	} else if waiting != nil {
		p, err := i.publishRoot(waiting)
		if out = append(out, p); err != nil || !p.Published {
			return out, err
		}
	}
	for _, role := range i.pending() {
		m, err := i.pendingTargets(role)
		if err != nil {
			return out, err
		}
		p, err := i.publishTargets(role, m)
		if out = append(out, p); err != nil {
			return out, err
		}
	}
	if len(out) == 0 {
		return nil, nil
	}
	more, err := i.finish(now)
	return append(out, more...), err
}

// pending lists the targets roles that wait for signatures, the one that names the others first.
func (i *Issuer) pending() (out []string) {
	names := make([]string, 0, 8)
	names = append(names, "targets")
	for _, r := range roles(i.about.Party) {
		names = append(names, r.name)
	}
	for _, name := range names {
		if _, err := os.Lstat(filepath.Join(i.home, pendingDir, name+".json")); err == nil && name != rootKeys {
			out = append(out, name)
		}
	}
	return out
}

// Discard gives up all that waits for signatures.
func (i *Issuer) Discard() (names []string, err error) {
	dir := filepath.Join(i.home, pendingDir)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for what waits: %w", err)
	}
	for _, e := range entries {
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
			return names, fmt.Errorf("give up what waits: %w", err)
		}
		names = append(names, e.Name())
	}
	return names, nil
}

// Admit lets a vendor make releases of the providers: trust in it begins with this root file.
func (i *Issuer) Admit(vendor string, root []byte, providers []string, now time.Time) ([]Progress, error) {
	if i.about.Party != Operator {
		return nil, refuse(CodeHome, "name the operator's folder", "%s is a vendor's, and only operators admit vendors",
			i.home)
	}
	m, err := metadata.Root().FromBytes(root)
	if err != nil || m.Signed.Type != metadata.ROOT || m.VerifyDelegate("root", m) != nil {
		return nil, refuse(CodeRelease, "name the vendor's newest N.root.json", "this is no root file that signs itself")
	}
	slices.Sort(providers)
	custom, err := json.Marshal(sign.VendorEntry{RootVersion: m.Signed.Version, Providers: slices.Compact(providers)})
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(root)
	file, err := target("sha256:"+hex.EncodeToString(sum[:]), int64(len(root)), custom)
	if err != nil {
		return nil, err
	}
	return i.amend("targets", now, func(t *metadata.TargetsType) { t.Targets[sign.VendorPath(vendor)] = file })
}

// Dismiss ends trust in a vendor: nothing of it is activated any more.
func (i *Issuer) Dismiss(vendor string, now time.Time) ([]Progress, error) {
	current, err := i.targets("targets")
	if err != nil {
		return nil, err
	}
	if current.Signed.Targets[sign.VendorPath(vendor)] == nil {
		return nil, refuse(CodeKeys, "keepout keys show lists them", "no vendor %q is admitted", vendor)
	}
	return i.amend("targets", now, func(t *metadata.TargetsType) {
		t.Targets = maps.Clone(t.Targets)
		delete(t.Targets, sign.VendorPath(vendor))
	})
}
