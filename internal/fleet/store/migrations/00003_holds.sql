-- +goose Up
-- What operators want for their hosts, whatever is rolled out.
CREATE TABLE holds (
  name   TEXT PRIMARY KEY,
  spec   TEXT NOT NULL,
  set_by TEXT NOT NULL,
  set_at INTEGER NOT NULL
);

-- +goose Down
DROP TABLE holds;
