-- +goose Up
-- Times are milliseconds since 1970, UTC; 0 is never. Lists and maps are JSON.
CREATE TABLE meta (
  key   TEXT PRIMARY KEY,
  value TEXT NOT NULL
);

CREATE TABLE hosts (
  id          TEXT PRIMARY KEY,
  hostname    TEXT NOT NULL,
  machine_id  TEXT NOT NULL,
  state       TEXT NOT NULL,
  reason      TEXT NOT NULL,
  labels      TEXT NOT NULL,
  fixed       TEXT NOT NULL,
  serial      TEXT NOT NULL,
  pending     TEXT NOT NULL,
  key_hash    TEXT NOT NULL,
  cert_ends   INTEGER NOT NULL,
  enrolled    INTEGER NOT NULL,
  last_seen   INTEGER NOT NULL,
  instance    TEXT NOT NULL,
  boot_id     TEXT NOT NULL,
  installed   TEXT NOT NULL
);
CREATE INDEX hosts_by_machine ON hosts (machine_id);
CREATE INDEX hosts_by_key ON hosts (key_hash);

CREATE TABLE enrol_tokens (
  id         TEXT PRIMARY KEY,
  hash       TEXT NOT NULL UNIQUE,
  created_by TEXT NOT NULL,
  created    INTEGER NOT NULL,
  expires    INTEGER NOT NULL,
  used_by    TEXT NOT NULL,
  revoked    INTEGER NOT NULL,
  labels     TEXT NOT NULL,
  note       TEXT NOT NULL
);

CREATE TABLE access_tokens (
  id      TEXT PRIMARY KEY,
  hash    TEXT NOT NULL UNIQUE,
  person  TEXT NOT NULL,
  roles   TEXT NOT NULL,
  vendor  TEXT NOT NULL,
  created INTEGER NOT NULL,
  expires INTEGER NOT NULL,
  revoked INTEGER NOT NULL
);

CREATE TABLE rollouts (
  id         TEXT PRIMARY KEY,
  name       TEXT NOT NULL,
  spec       TEXT NOT NULL,
  state      BLOB NOT NULL,
  status     TEXT NOT NULL,
  reason     TEXT NOT NULL,
  created_by TEXT NOT NULL,
  created    INTEGER NOT NULL,
  approvals  TEXT NOT NULL,
  revision   INTEGER NOT NULL
);
CREATE INDEX rollouts_by_time ON rollouts (created);

CREATE TABLE rollout_rows (
  rollout TEXT NOT NULL,
  host    TEXT NOT NULL,
  data    TEXT NOT NULL,
  due     INTEGER NOT NULL,
  PRIMARY KEY (rollout, host)
) WITHOUT ROWID;
CREATE INDEX rows_due ON rollout_rows (rollout, due) WHERE due > 0;

CREATE TABLE buckets (
  provider   TEXT NOT NULL,
  digest     TEXT NOT NULL,
  signature  TEXT NOT NULL,
  kind       TEXT NOT NULL,
  count      INTEGER NOT NULL,
  first_seen INTEGER NOT NULL,
  last_seen  INTEGER NOT NULL,
  sample     TEXT NOT NULL,
  PRIMARY KEY (provider, digest, signature)
) WITHOUT ROWID;

CREATE TABLE bucket_hosts (
  provider  TEXT NOT NULL,
  digest    TEXT NOT NULL,
  signature TEXT NOT NULL,
  host      TEXT NOT NULL,
  PRIMARY KEY (provider, digest, signature, host)
) WITHOUT ROWID;

CREATE TABLE beacons (
  host      TEXT NOT NULL,
  digest    TEXT NOT NULL,
  at        INTEGER NOT NULL,
  signature TEXT NOT NULL,
  detail    TEXT NOT NULL,
  PRIMARY KEY (host, digest)
) WITHOUT ROWID;

CREATE TABLE audit (
  seq     INTEGER PRIMARY KEY,
  at      INTEGER NOT NULL,
  actor   TEXT NOT NULL,
  action  TEXT NOT NULL,
  subject TEXT NOT NULL,
  detail  TEXT NOT NULL,
  prev    TEXT NOT NULL,
  hash    TEXT NOT NULL
);

-- +goose StatementBegin
CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit
BEGIN
  SELECT RAISE(ABORT, 'the audit trail is append-only');
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER audit_is_not_shortened BEFORE DELETE ON audit
BEGIN
  SELECT RAISE(ABORT, 'the audit trail is append-only');
END;
-- +goose StatementEnd

-- +goose Down
DROP TABLE audit;
DROP TABLE beacons;
DROP TABLE bucket_hosts;
DROP TABLE buckets;
DROP TABLE rollout_rows;
DROP TABLE rollouts;
DROP TABLE access_tokens;
DROP TABLE enrol_tokens;
DROP TABLE hosts;
DROP TABLE meta;
