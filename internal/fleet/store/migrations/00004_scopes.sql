-- +goose Up
-- Which labels a token lets its host say about itself, as KEY=VALUE; an empty list is any.
ALTER TABLE enrol_tokens ADD COLUMN scope TEXT NOT NULL DEFAULT 'null';
ALTER TABLE hosts ADD COLUMN scope TEXT NOT NULL DEFAULT 'null';

-- +goose Down
ALTER TABLE hosts DROP COLUMN scope;
ALTER TABLE enrol_tokens DROP COLUMN scope;
