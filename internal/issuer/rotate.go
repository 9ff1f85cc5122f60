package issuer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// Rotate gives a set of keys a new one for each of its keys, or for the one named (label or beginning of its id).
// Revoke is Rotate without a new key. Both need the keys above: root's for its own and the online ones and for
// delegations. The secret halves of keys that do not count any more are kept with the ending .revoked.
func (i *Issuer) Rotate(set, only string, now time.Time) ([]Progress, error) {
	return i.replace(set, only, true, now)
}

// Revoke takes one key away: from the next metadata on it counts for nothing.
func (i *Issuer) Revoke(name string, now time.Time) ([]Progress, error) {
	for _, r := range roles(i.about.Party) {
		if ids, _ := i.dropped(r, name); len(ids) == 1 {
			return i.replace(r.name, name, false, now)
		}
	}
	return nil, refuse(CodeKeys, "keepout keys show lists them", "no one key is named %q", name)
}

func (i *Issuer) replace(set, only string, anew bool, now time.Time) ([]Progress, error) {
	r, ok := roleOf(i.about.Party, set)
	if !ok {
		return nil, refuse(CodeKeys, "keepout keys show lists them", "there is no set of keys %q", set)
	}
	if waits := append(i.pending(), i.pendingRootName()...); len(waits) > 0 {
		return nil, refuse(CodePending, "keepout keys sign "+i.home+", or keepout keys discard "+i.home,
			"a change of %s waits for signatures", strings.Join(waits, ", "))
	}
	drop, err := i.dropped(r, only)
	if err != nil {
		return nil, err
	}
	ids, err := i.idsOf(r)
	if err != nil {
		return nil, err
	}
	if left := len(ids) - len(drop); !anew && left < r.threshold {
		return nil, refuse(CodeKeys, "keepout keys rotate "+i.home+" "+set+" replaces keys",
			"%s would have %d keys left, and %d must sign", set, left, r.threshold)
	}
	var fresh []*metadata.Key
	if anew {
		if fresh, err = i.makeMore(r, len(drop)); err != nil {
			return nil, err
		}
	}
	p, err := i.exchange(r, drop, fresh, now)
	if err != nil || len(p) == 0 || !p[0].Published {
		return p, err
	}
	return p, i.retire(r, drop)
}

// idsOf are the ids of a set's keys.
func (i *Issuer) idsOf(r keyRole) ([]string, error) {
	role := r.name
	if tuf := r.signs(); tuf != nil {
		role = tuf[0]
	}
	ids, _, err := i.signers(role)
	return ids, err
}

// dropped finds the keys that are meant: all of a set, or the one that is named.
func (i *Issuer) dropped(r keyRole, only string) ([]string, error) {
	ids, err := i.idsOf(r)
	if err != nil || only == "" {
		return ids, err
	}
	for _, file := range i.ring.files(r.name) {
		if label(file) == only {
			key, err := readKey(file, i.ring.ask)
			if err != nil {
				return nil, err
			}
			only = string(idOf(key))
		}
	}
	var out []string
	for _, id := range ids {
		if len(only) >= 8 && strings.HasPrefix(id, only) {
			out = append(out, id)
		}
	}
	if len(out) == 0 {
		return nil, refuse(CodeKeys, "keepout keys show lists them", "%s has no key %q", r.name, only)
	}
	return out, nil
}

// makeMore makes further keys of a set, in this party's own folder.
func (i *Issuer) makeMore(r keyRole, n int) (out []*metadata.Key, err error) {
	last := 0
	dir := filepath.Join(i.home, keysDir)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("look for keys: %w", err)
	}
	for _, e := range entries {
		number, found := strings.CutPrefix(e.Name(), r.name+"-")
		number, _, _ = strings.Cut(number, ".")
		if k, err := strconv.Atoi(number); found && err == nil {
			last = max(last, k)
		}
	}
	for k := range n {
		passphrase := ""
		if r.place != Online && i.ring.ask != nil {
			if passphrase, err = i.ring.ask(fmt.Sprintf("%s-%d%s", r.name, last+k+1, keySuffix)); err != nil {
				return nil, err
			}
		}
		public, err := makeKey(dir, r.name, last+k+1, passphrase)
		if err != nil {
			return nil, err
		}
		key, err := metadata.KeyFromPublicKey(public)
		if err != nil {
			return nil, fmt.Errorf("describe a key: %w", err)
		}
		out = append(out, key)
	}
	return out, nil
}

// exchange writes the file that names the keys of a set: root, or targets for delegations.
func (i *Issuer) exchange(r keyRole, drop []string, fresh []*metadata.Key, now time.Time) ([]Progress, error) {
	if r.paths != "" {
		var failed error
		p, err := i.amend("targets", now, func(t *metadata.TargetsType) {
			for _, key := range fresh {
				failed = errors.Join(failed, t.AddKey(key, r.name))
			}
			for _, id := range drop {
				failed = errors.Join(failed, t.RevokeKey(id, r.name))
			}
		})
		return p, errors.Join(failed, err)
	}
	root, err := i.root()
	if err != nil {
		return nil, err
	}
	root.Signatures = nil
	root.Signed.Version++
	root.Signed.Expires = until(now, rootLifetime)
	for _, role := range r.signs() {
		for _, key := range fresh {
			err = errors.Join(err, root.Signed.AddKey(key, role))
		}
		for _, id := range drop {
			err = errors.Join(err, root.Signed.RevokeKey(id, role))
		}
	}
	if err != nil {
		return nil, fmt.Errorf("exchange keys: %w", err)
	}
	p, err := i.publishRoot(root)
	return i.after(p, now, err)
}

// publishRoot signs a root file with the keys of the one before and with its own, and publishes it when both are
// enough.
func (i *Issuer) publishRoot(m *metadata.Metadata[metadata.RootType]) (Progress, error) {
	need := m.Signed.Roles["root"].Threshold
	ids := slices.Clone(m.Signed.Roles["root"].KeyIDs)
	before := m
	if m.Signed.Version > 1 {
		var err error
		if before, err = i.root(); err != nil {
			return Progress{}, err
		}
		for _, id := range before.Signed.Roles["root"].KeyIDs {
			if !slices.Contains(ids, id) {
				ids = append(ids, id)
			}
		}
	}
	missing, err := addSignatures(i, rootKeys, ids, m)
	if err != nil {
		return Progress{}, err
	}
	raw, err := m.ToBytes(false)
	if err != nil {
		return Progress{}, fmt.Errorf("encode root: %w", err)
	}
	p := Progress{
		Role: "root", Version: m.Signed.Version, Have: len(ids) - len(missing), Need: need, Waiting: missing,
	}
	if p.Have > 0 && (before.VerifyDelegate("root", m) != nil || m.VerifyDelegate("root", m) != nil) {
		p.Need = max(p.Need, p.Have+1) // enough keys in all, and not enough of the old or of the new ones
	}
	err = i.settle(&p, "root", raw)
	return p, err
}

func (i *Issuer) pendingRoot() (*metadata.Metadata[metadata.RootType], error) {
	raw, err := os.ReadFile(filepath.Join(i.home, pendingDir, "root.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // nothing waits
	}
	if err != nil {
		return nil, fmt.Errorf("read what waits: %w", err)
	}
	m, err := metadata.Root().FromBytes(raw)
	if err != nil {
		return nil, refuse(CodePending, "give it up: keepout keys discard "+i.home, "what waits is damaged: %v", err)
	}
	return m, nil
}

func (i *Issuer) pendingRootName() []string {
	if m, err := i.pendingRoot(); m == nil && err == nil {
		return nil
	}
	return []string{"root"}
}

// retire renames the files of keys that do not count any more, as far as they are at hand.
func (i *Issuer) retire(r keyRole, drop []string) error {
	for _, file := range i.ring.files(r.name) {
		key, ok := i.ring.read[file]
		if !ok {
			var err error
			if key, err = readKey(file, i.ring.ask); err != nil {
				return err
			}
		}
		if slices.Contains(drop, string(idOf(key))) {
			if err := os.Rename(file, file+".revoked"); err != nil {
				return fmt.Errorf("put a revoked key away: %w", err)
			}
		}
	}
	return nil
}
