-- +goose Up
-- Diagnostics bundles: the header, who the host was, and the sealed rest for as long as there is room.
CREATE TABLE bundles (
  digest    TEXT PRIMARY KEY,
  machine   TEXT NOT NULL,
  signature TEXT NOT NULL,
  level     TEXT NOT NULL,
  test      INTEGER NOT NULL,
  received  INTEGER NOT NULL,
  host      TEXT NOT NULL,
  suspect   TEXT NOT NULL,
  asked     INTEGER NOT NULL,
  size      INTEGER NOT NULL,
  parcel    BLOB NOT NULL
);
CREATE INDEX bundles_by_time ON bundles (received);
CREATE INDEX bundles_by_machine ON bundles (machine, received);
CREATE INDEX bundles_by_signature ON bundles (signature);

-- What was active on the host of a bundle, and whether that was not the proven version.
CREATE TABLE bundle_versions (
  digest  TEXT NOT NULL,
  version TEXT NOT NULL,
  changed INTEGER NOT NULL,
  PRIMARY KEY (digest, version)
) WITHOUT ROWID;

CREATE TABLE remediations (
  id              TEXT PRIMARY KEY,
  status          TEXT NOT NULL,
  envelope        BLOB NOT NULL,
  signers         TEXT NOT NULL,
  created_by      TEXT NOT NULL,
  created         INTEGER NOT NULL,
  approved_by     TEXT NOT NULL,
  approved        INTEGER NOT NULL,
  revoked_by      TEXT NOT NULL,
  revoked_because TEXT NOT NULL,
  served          INTEGER NOT NULL
);
CREATE INDEX remediations_by_status ON remediations (status, created);

-- +goose Down
DROP TABLE remediations;
DROP TABLE bundle_versions;
DROP TABLE bundles;
