package store

import (
	"fmt"
	"time"
)

// What is kept of diagnostics. A machine, and all those machines that are not enrolled, can only push out their own
// bundles, never those of others.
const (
	KeptBundles  = 10_000 // headers
	KeptParcels  = 1_000  // sealed bodies, of at most 256 KiB each
	KeptMachine  = 16     // bundles of one machine
	KeptStranger = 200    // bundles of machines that are not enrolled
)

// The states of a remediation.
const (
	FixWaiting = "waiting" // for the second person
	FixActive  = "active"  // machines get it
	FixRevoked = "revoked"
)

// Bundle is one diagnostics bundle: what its header says, and who sent it. Without a signature it is only the question
// for a fix of a machine that sends no diagnostics.
type Bundle struct {
	Digest, Machine, Signature, Level string
	Test                              bool
	Received                          time.Time
	Host                              string // the enrolled host with this pseudonym, or empty
	Suspect                           string // as the machine said when it asked for a fix
	Asked                             bool   // for a fix: it was in recovery
	Size                              int    // bytes of the parcel; 0 once only the header is kept
	Versions                          []BundleVersion
}

// BundleVersion is one package that was active on the host of a bundle.
type BundleVersion struct {
	Version string // "acme content sha256:…"
	Changed bool   // it was not the proven one
}

// Group is the sum of the bundles with one signature, without those of rehearsals.
type Group struct {
	Signature         string
	Bundles, Machines uint64
	First, Last       time.Time
	Known             uint64            // bundles of enrolled hosts
	Versions, Changed map[string]uint64 // of those hosts
}

// Remediation is one fix.
type Remediation struct {
	ID, Status string
	Envelope   []byte
	Signers    []string
	CreatedBy  string
	Created    time.Time
	ApprovedBy string
	Approved   time.Time
	RevokedBy  string
	Because    string // why it was revoked
	Served     uint64
}

const bundleColumns = "digest, machine, signature, level, test, received, host, suspect, asked, size"

func scanBundle(s scanner) (b Bundle, err error) {
	err = s.Scan(&b.Digest, &b.Machine, &b.Signature, &b.Level, &b.Test, column{&b.Received}, &b.Host, &b.Suspect,
		&b.Asked, &b.Size)
	return b, err
}

func (t *tx) versionsOf(b Bundle, err error) (Bundle, error) {
	if err != nil {
		return b, err
	}
	b.Versions, err = all(t, func(s scanner) (v BundleVersion, err error) {
		err = s.Scan(&v.Version, &v.Changed)
		return v, err
	}, "SELECT version, changed FROM bundle_versions WHERE digest = ? ORDER BY version LIMIT ?", b.Digest, Page)
	return b, err
}

// Bundle implements Reader.
func (t *tx) Bundle(digest string) (Bundle, error) {
	return t.versionsOf(one(t, scanBundle, "SELECT "+bundleColumns+" FROM bundles WHERE digest = ?", digest))
}

// BundleLike implements Reader.
func (t *tx) BundleLike(prefix string) (Bundle, error) {
	found, err := all(t, scanBundle, "SELECT "+bundleColumns+` FROM bundles WHERE substr(digest, 1, ?) = ?
		ORDER BY received DESC, digest LIMIT 2`, len(prefix), prefix)
	if err == nil && len(found) != 1 {
		err = ErrNotFound
	}
	if err != nil {
		return Bundle{}, err
	}
	return t.versionsOf(found[0], nil)
}

// Parcel implements Reader.
func (t *tx) Parcel(digest string) ([]byte, error) {
	return one(t, func(s scanner) (b []byte, err error) {
		err = s.Scan(&b)
		return b, err
	}, "SELECT parcel FROM bundles WHERE digest = ? AND size > 0", digest)
}

// Bundles implements Reader.
func (t *tx) Bundles(signature, machine string, limit int) ([]Bundle, error) {
	return all(t, scanBundle, "SELECT "+bundleColumns+` FROM bundles
		WHERE (? = '' OR signature = ?) AND (? = '' OR machine = ?) ORDER BY received DESC, digest LIMIT ?`,
		signature, signature, machine, machine, bounded(limit))
}

// Groups implements Reader.
func (t *tx) Groups(limit int) ([]Group, error) {
	list, err := all(t, func(s scanner) (g Group, err error) {
		err = s.Scan(&g.Signature, &g.Bundles, &g.Machines, column{&g.First}, column{&g.Last}, &g.Known)
		return g, err
	}, `SELECT signature, count(*), count(DISTINCT machine), min(received), max(received), sum(host <> '')
		FROM bundles WHERE test = 0 AND signature <> '' GROUP BY signature
		ORDER BY count(*) DESC, signature LIMIT ?`, bounded(limit))
	if err != nil {
		return nil, err
	}
	for i := range list {
		g := &list[i]
		g.Versions, g.Changed = map[string]uint64{}, map[string]uint64{}
		_, err := all(t, func(s scanner) (struct{}, error) {
			var version string
			var active, changed uint64
			err := s.Scan(&version, &active, &changed)
			g.Versions[version] = active
			if changed > 0 {
				g.Changed[version] = changed
			}
			return struct{}{}, err
		}, `SELECT v.version, count(*), sum(v.changed) FROM bundle_versions v JOIN bundles b ON b.digest = v.digest
			WHERE b.signature = ? AND b.test = 0 GROUP BY v.version ORDER BY count(*) DESC, v.version LIMIT ?`,
			g.Signature, Page)
		if err != nil {
			return nil, fmt.Errorf("versions of group %s: %w", g.Signature, err)
		}
	}
	return list, nil
}

// PutBundle implements Tx.
func (t *tx) PutBundle(b *Bundle, parcel []byte) (added bool, err error) {
	if parcel == nil {
		parcel = []byte{}
	}
	n, err := t.exec("INSERT INTO bundles ("+bundleColumns+`, parcel) VALUES (?,?,?,?,?,?,?,?,?,?,?)
		ON CONFLICT (digest) DO UPDATE SET signature = excluded.signature, level = excluded.level, size = excluded.size,
		parcel = excluded.parcel WHERE signature = '' AND machine = excluded.machine AND excluded.size > 0`,
		b.Digest, b.Machine, b.Signature, b.Level, b.Test, millis(b.Received), b.Host, b.Suspect, b.Asked, len(parcel),
		parcel)
	if err != nil || n == 0 {
		return false, err
	}
	for _, v := range b.Versions {
		_, err := t.exec("INSERT OR REPLACE INTO bundle_versions (digest, version, changed) VALUES (?,?,?)",
			b.Digest, v.Version, v.Changed)
		if err != nil {
			return false, err
		}
	}
	return true, t.prune(b)
}

// prune keeps the bounds. What a machine pushes out is its own, or, when it is not enrolled, other strangers'.
func (t *tx) prune(b *Bundle) error {
	const oldest = "SELECT digest FROM bundles WHERE %s ORDER BY received DESC, digest LIMIT -1 OFFSET ?"
	steps := []struct {
		change, which string
		args          []any
	}{
		{"DELETE FROM bundles WHERE digest IN (%s)", "machine = ?", []any{b.Machine, KeptMachine}},
		{"DELETE FROM bundles WHERE digest IN (%s)", "host = ''", []any{KeptStranger}},
		{"DELETE FROM bundles WHERE digest IN (%s)", "1", []any{KeptBundles}},
		{"UPDATE bundles SET parcel = x'', size = 0 WHERE digest IN (%s)", "size > 0", []any{KeptParcels}},
	}
	for _, s := range steps {
		if _, err := t.exec(fmt.Sprintf(s.change, fmt.Sprintf(oldest, s.which)), s.args...); err != nil {
			return err
		}
	}
	_, err := t.exec("DELETE FROM bundle_versions WHERE digest NOT IN (SELECT digest FROM bundles)")
	return err
}

// MarkBundle implements Tx.
func (t *tx) MarkBundle(digest, suspect string) error {
	n, err := t.exec("UPDATE bundles SET asked = 1, suspect = ? WHERE digest = ?", suspect, digest)
	if err == nil && n == 0 {
		return ErrNotFound
	}
	return err
}

const fixColumns = `id, status, envelope, signers, created_by, created, approved_by, approved, revoked_by,
	revoked_because, served`

func scanFix(s scanner) (r Remediation, err error) {
	err = s.Scan(&r.ID, &r.Status, &r.Envelope, column{&r.Signers}, &r.CreatedBy, column{&r.Created}, &r.ApprovedBy,
		column{&r.Approved}, &r.RevokedBy, &r.Because, &r.Served)
	return r, err
}

// Remediation implements Reader.
func (t *tx) Remediation(id string) (Remediation, error) {
	return one(t, scanFix, "SELECT "+fixColumns+" FROM remediations WHERE id = ?", id)
}

// Remediations implements Reader.
func (t *tx) Remediations(status string, limit int) ([]Remediation, error) {
	return all(t, scanFix, "SELECT "+fixColumns+` FROM remediations WHERE ? = '' OR status = ?
		ORDER BY created DESC, id LIMIT ?`, status, status, bounded(limit))
}

// PutRemediation implements Tx.
func (t *tx) PutRemediation(r *Remediation) error {
	_, err := t.exec("INSERT OR REPLACE INTO remediations ("+fixColumns+") VALUES (?,?,?,?,?,?,?,?,?,?,?)",
		r.ID, r.Status, r.Envelope, asJSON(r.Signers), r.CreatedBy, millis(r.Created), r.ApprovedBy, millis(r.Approved),
		r.RevokedBy, r.Because, r.Served)
	return err
}
