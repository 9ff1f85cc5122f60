package store

import (
	"errors"
	"fmt"
)

// Meta implements Reader.
func (t *tx) Meta(key string) (string, error) {
	return one(t, scanText,
		"SELECT value FROM meta WHERE key = ?", key)
}

// SetMeta implements Tx.
func (t *tx) SetMeta(key, value string) error {
	_, err := t.exec("INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
		key, value)
	return err
}

const hostColumns = `id, hostname, machine_id, state, reason, labels, fixed, serial, pending, key_hash, cert_ends,
	enrolled, last_seen, instance, boot_id, installed, scope`

func scanHost(s scanner) (h Host, err error) {
	err = s.Scan(&h.ID, &h.Hostname, &h.MachineID, &h.State, &h.Reason, column{&h.Labels}, column{&h.Fixed},
		&h.Serial, &h.Pending, &h.KeyHash, column{&h.CertEnds}, column{&h.Enrolled}, column{&h.LastSeen},
		&h.Instance, &h.BootID, column{&h.Installed}, column{&h.Scope})
	return h, err
}

// Host implements Reader.
func (t *tx) Host(id string) (Host, error) {
	return one(t, scanHost, "SELECT "+hostColumns+" FROM hosts WHERE id = ?", id)
}

// Hosts implements Reader.
func (t *tx) Hosts(after, state string, limit int) ([]Host, error) {
	return all(t, scanHost, "SELECT "+hostColumns+" FROM hosts WHERE id > ? AND (? = '' OR state = ?) ORDER BY id LIMIT ?",
		after, state, state, bounded(limit))
}

// HostsLike implements Reader.
func (t *tx) HostsLike(machineID, keyHash string) ([]Host, error) {
	return all(t, scanHost, "SELECT "+hostColumns+` FROM hosts
		WHERE machine_id = ? AND ? <> '' OR key_hash = ? AND ? <> '' ORDER BY id LIMIT ?`,
		machineID, machineID, keyHash, keyHash, Page)
}

// PutHost implements Tx.
func (t *tx) PutHost(h Host) error {
	_, err := t.exec("INSERT OR REPLACE INTO hosts ("+hostColumns+") VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
		h.ID, h.Hostname, h.MachineID, h.State, h.Reason, asJSON(h.Labels), asJSON(h.Fixed), h.Serial, h.Pending, h.KeyHash,
		millis(h.CertEnds), millis(h.Enrolled), millis(h.LastSeen), h.Instance, h.BootID, asJSON(h.Installed),
		asJSON(h.Scope))
	return err
}

// CheckIns implements Tx.
func (t *tx) CheckIns(batch []CheckIn) (err error) {
	st, err := t.tx.PrepareContext(t.ctx, `UPDATE hosts SET last_seen = max(last_seen, ?), instance = ?, boot_id = ?,
		labels = coalesce(?, labels), installed = coalesce(?, installed) WHERE id = ?`)
	if err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	for i := range batch {
		c := &batch[i]
		var labels, installed any
		if c.Labels != nil {
			labels = asJSON(c.Labels)
		}
		if c.Installed != nil {
			installed = asJSON(c.Installed)
		}
		if _, err := st.ExecContext(t.ctx, millis(c.At), c.Instance, c.BootID, labels, installed, c.Host); err != nil {
			return fmt.Errorf("check in %s: %w", c.Host, err)
		}
	}
	return nil
}

const enrolColumns = "id, hash, created_by, created, expires, used_by, revoked, labels, note, scope"

func scanEnrolToken(s scanner) (e EnrolToken, err error) {
	err = s.Scan(&e.ID, &e.Hash, &e.CreatedBy, column{&e.Created}, column{&e.Expires}, &e.UsedBy, &e.Revoked,
		column{&e.Labels}, &e.Note, column{&e.Scope})
	return e, err
}

// EnrolTokens implements Reader.
func (t *tx) EnrolTokens() ([]EnrolToken, error) {
	return all(t, scanEnrolToken, "SELECT "+enrolColumns+" FROM enrol_tokens ORDER BY created DESC, id LIMIT ?", Page)
}

// EnrolTokenByHash implements Reader.
func (t *tx) EnrolTokenByHash(hash string) (EnrolToken, error) {
	return one(t, scanEnrolToken, "SELECT "+enrolColumns+" FROM enrol_tokens WHERE hash = ?", hash)
}

// EnrolToken implements Reader.
func (t *tx) EnrolToken(id string) (EnrolToken, error) {
	return one(t, scanEnrolToken, "SELECT "+enrolColumns+" FROM enrol_tokens WHERE id = ?", id)
}

// PutEnrolToken implements Tx.
func (t *tx) PutEnrolToken(e EnrolToken) error {
	_, err := t.exec("INSERT OR REPLACE INTO enrol_tokens ("+enrolColumns+") VALUES (?,?,?,?,?,?,?,?,?,?)",
		e.ID, e.Hash, e.CreatedBy, millis(e.Created), millis(e.Expires), e.UsedBy, e.Revoked, asJSON(e.Labels), e.Note,
		asJSON(e.Scope))
	return err
}

const accessColumns = "id, hash, person, roles, vendor, created, expires, revoked"

func scanAccessToken(s scanner) (a AccessToken, err error) {
	err = s.Scan(&a.ID, &a.Hash, &a.Person, column{&a.Roles}, &a.Vendor, column{&a.Created}, column{&a.Expires},
		&a.Revoked)
	return a, err
}

// AccessTokens implements Reader.
func (t *tx) AccessTokens() ([]AccessToken, error) {
	return all(t, scanAccessToken, "SELECT "+accessColumns+" FROM access_tokens ORDER BY created DESC, id LIMIT ?", Page)
}

// AccessTokenByHash implements Reader.
func (t *tx) AccessTokenByHash(hash string) (AccessToken, error) {
	return one(t, scanAccessToken, "SELECT "+accessColumns+" FROM access_tokens WHERE hash = ?", hash)
}

// AccessToken implements Reader.
func (t *tx) AccessToken(id string) (AccessToken, error) {
	return one(t, scanAccessToken, "SELECT "+accessColumns+" FROM access_tokens WHERE id = ?", id)
}

// PutAccessToken implements Tx.
func (t *tx) PutAccessToken(a AccessToken) error {
	_, err := t.exec("INSERT OR REPLACE INTO access_tokens ("+accessColumns+") VALUES (?,?,?,?,?,?,?,?)",
		a.ID, a.Hash, a.Person, asJSON(a.Roles), a.Vendor, millis(a.Created), millis(a.Expires), a.Revoked)
	return err
}
