package store

import (
	"errors"
	"fmt"
	"time"

	"github.com/keepout-security/keepout/internal/fleet/audit"
)

const rolloutColumns = "id, name, spec, state, status, reason, created_by, created, approvals, revision"

func scanRollout(s scanner) (r Rollout, err error) {
	err = s.Scan(&r.ID, &r.Name, &r.Spec, &r.State, &r.Status, &r.Reason, &r.CreatedBy, column{&r.Created},
		column{&r.Approvals}, &r.Revision)
	return r, err
}

// Rollout implements Reader.
func (t *tx) Rollout(id string) (Rollout, error) {
	return one(t, scanRollout, "SELECT "+rolloutColumns+" FROM rollouts WHERE id = ?", id)
}

// Rollouts implements Reader.
func (t *tx) Rollouts(limit int) ([]Rollout, error) {
	return all(t, scanRollout, "SELECT "+rolloutColumns+" FROM rollouts ORDER BY created DESC, id DESC LIMIT ?",
		bounded(limit))
}

// PutRollout implements Tx.
func (t *tx) PutRollout(r *Rollout) error {
	state := r.State
	if state == nil {
		state = []byte{}
	}
	n, err := t.exec("INSERT INTO rollouts ("+rolloutColumns+`) VALUES (?,?,?,?,?,?,?,?,?,?)
		ON CONFLICT (id) DO UPDATE SET state = excluded.state, status = excluded.status, reason = excluded.reason,
		approvals = excluded.approvals, revision = excluded.revision WHERE revision = ?`,
		r.ID, r.Name, string(r.Spec), state, r.Status, r.Reason, r.CreatedBy, millis(r.Created), asJSON(r.Approvals),
		r.Revision+1, r.Revision)
	if err != nil {
		return err
	}
	if n == 0 {
		return fmt.Errorf("rollout %s: %w", r.ID, ErrStale)
	}
	r.Revision++
	return nil
}

func scanRow(s scanner) (r Row, err error) {
	err = s.Scan(&r.Rollout, &r.Host, &r.Data, &r.Due)
	return r, err
}

// Row implements Reader.
func (t *tx) Row(rollout, host string) (Row, error) {
	return one(t, scanRow, "SELECT rollout, host, data, due FROM rollout_rows WHERE rollout = ? AND host = ?",
		rollout, host)
}

// RowsDue implements Reader.
func (t *tx) RowsDue(rollout string, upto time.Duration, limit int) ([]Row, error) {
	return all(t, scanRow, `SELECT rollout, host, data, due FROM rollout_rows
		WHERE rollout = ? AND due > 0 AND due <= ? ORDER BY due, host LIMIT ?`, rollout, int64(upto), bounded(limit))
}

// PutRows implements Tx.
func (t *tx) PutRows(rows []Row) error {
	for i := range rows {
		r := &rows[i]
		if _, err := t.exec("INSERT OR REPLACE INTO rollout_rows (rollout, host, data, due) VALUES (?,?,?,?)",
			r.Rollout, r.Host, string(r.Data), int64(r.Due)); err != nil {
			return err
		}
	}
	return nil
}

// Signatures implements Reader.
func (t *tx) Signatures(provider, notDigest string, limit int) ([]string, error) {
	return all(t, scanText, `SELECT DISTINCT signature FROM buckets WHERE provider = ? AND digest <> ?
		ORDER BY signature LIMIT ?`, provider, notDigest, limit)
}

func scanBucket(s scanner) (b Bucket, err error) {
	err = s.Scan(&b.Provider, &b.Digest, &b.Signature, &b.Kind, &b.Count, column{&b.FirstSeen}, column{&b.LastSeen},
		&b.Sample, &b.Hosts)
	return b, err
}

// Buckets implements Reader.
func (t *tx) Buckets(provider, digest string, limit int) ([]Bucket, error) {
	return all(t, scanBucket, `SELECT provider, digest, signature, kind, count, first_seen, last_seen, sample,
		(SELECT count(*) FROM bucket_hosts h WHERE h.provider = b.provider AND h.digest = b.digest
		 AND h.signature = b.signature)
		FROM buckets b WHERE (? = '' OR provider = ?) AND (? = '' OR digest = ?)
		ORDER BY count DESC, provider, digest, signature LIMIT ?`, provider, provider, digest, digest, bounded(limit))
}

// KnownSignature implements Reader.
func (t *tx) KnownSignature(provider, signature, notDigest string, before time.Time) (bool, error) {
	return one(t, func(s scanner) (known bool, err error) {
		err = s.Scan(&known)
		return known, err
	},
		`SELECT EXISTS (SELECT 1 FROM buckets WHERE provider = ? AND signature = ? AND digest <> ? AND first_seen < ?)`,
		provider, signature, notDigest, millis(before))
}

// AddBuckets implements Tx.
func (t *tx) AddBuckets(reports []BucketReport) error {
	for i := range reports {
		r := &reports[i]
		_, err := t.exec(`INSERT INTO buckets (provider, digest, signature, kind, count, first_seen, last_seen, sample)
			VALUES (?,?,?,?,?,?,?,?) ON CONFLICT (provider, digest, signature) DO UPDATE
			SET count = count + excluded.count, last_seen = max(last_seen, excluded.last_seen)`,
			r.Provider, r.Digest, r.Signature, r.Kind, r.Count, millis(r.At), millis(r.At), r.Sample)
		if err != nil {
			return err
		}
		_, err = t.exec(`INSERT INTO bucket_hosts (provider, digest, signature, host) VALUES (?,?,?,?)
			ON CONFLICT DO NOTHING`, r.Provider, r.Digest, r.Signature, r.Host)
		if err != nil {
			return err
		}
	}
	return nil
}

// Beacons implements Reader.
func (t *tx) Beacons(limit int) ([]Beacon, error) {
	return all(t, func(s scanner) (b Beacon, err error) {
		err = s.Scan(&b.Host, &b.Digest, column{&b.At}, &b.Signature, &b.Detail)
		return b, err
	}, "SELECT host, digest, at, signature, detail FROM beacons ORDER BY at DESC, host, digest LIMIT ?", bounded(limit))
}

// PutBeacon implements Tx.
func (t *tx) PutBeacon(b Beacon) error {
	_, err := t.exec("INSERT OR REPLACE INTO beacons (host, digest, at, signature, detail) VALUES (?,?,?,?,?)",
		b.Host, b.Digest, millis(b.At), b.Signature, b.Detail)
	return err
}

const auditColumns = "seq, at, actor, action, subject, detail, prev, hash"

func scanAudit(s scanner) (e audit.Entry, err error) {
	err = s.Scan(&e.Seq, column{&e.At}, &e.Actor, &e.Action, &e.Subject, &e.Detail, &e.Prev, &e.Hash)
	return e, err
}

// Audit implements Reader.
func (t *tx) Audit(after uint64, limit int) ([]audit.Entry, error) {
	return all(t, scanAudit, "SELECT "+auditColumns+" FROM audit WHERE seq > ? ORDER BY seq LIMIT ?",
		after, bounded(limit))
}

// AuditHead implements Reader.
func (t *tx) AuditHead() (audit.Entry, error) {
	e, err := one(t, scanAudit, "SELECT "+auditColumns+" FROM audit ORDER BY seq DESC LIMIT 1")
	if errors.Is(err, ErrNotFound) {
		return audit.Entry{}, nil
	}
	return e, err
}

// Append implements Tx.
func (t *tx) Append(e audit.Entry) (audit.Entry, error) {
	last, err := t.AuditHead()
	if err != nil {
		return audit.Entry{}, err
	}
	e = audit.Next(last, e)
	_, err = t.exec("INSERT INTO audit ("+auditColumns+") VALUES (?,?,?,?,?,?,?,?)",
		e.Seq, millis(e.At), e.Actor, e.Action, e.Subject, e.Detail, e.Prev, e.Hash)
	return e, err
}
