package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// tx is a transaction of either kind: a reader's has no way to the methods that write.
type tx struct {
	ctx context.Context //nolint:containedctx // a transaction lives within one call of View or Update
	tx  *sql.Tx
}

var _ Tx = (*tx)(nil)

// scanner is a row or the current one of several.
type scanner interface{ Scan(into ...any) error }

func scanText(s scanner) (v string, err error) {
	err = s.Scan(&v)
	return v, err
}

// one reads the only row of a query.
func one[T any](t *tx, scan func(scanner) (T, error), query string, args ...any) (T, error) {
	v, err := scan(t.tx.QueryRowContext(t.ctx, query, args...))
	if errors.Is(err, sql.ErrNoRows) {
		return v, ErrNotFound
	}
	return v, err
}

// all reads every row of a query.
func all[T any](t *tx, scan func(scanner) (T, error), query string, args ...any) (list []T, err error) {
	rows, err := t.tx.QueryContext(t.ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("query: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	return list, rows.Err()
}

func (t *tx) exec(query string, args ...any) (changed int64, err error) {
	r, err := t.tx.ExecContext(t.ctx, query, args...)
	if err != nil {
		return 0, fmt.Errorf("write: %w", err)
	}
	return r.RowsAffected()
}

// bounded keeps a limit within a page.
func bounded(limit int) int {
	if limit <= 0 || limit > Page {
		return Page
	}
	return limit
}

// millis is how times are kept.
func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func fromMillis(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// asJSON is text for a column; it cannot fail on the types that are kept.
func asJSON(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return "null"
	}
	return string(b)
}

// column reads JSON or a time into where it belongs.
type column struct{ into any }

// Scan implements sql.Scanner.
func (c column) Scan(v any) error {
	switch into := c.into.(type) {
	case *time.Time:
		ms, ok := v.(int64)
		if !ok {
			return fmt.Errorf("a time is %T", v)
		}
		*into = fromMillis(ms)
		return nil
	default:
		text, ok := v.(string)
		if !ok {
			return fmt.Errorf("a list is %T", v)
		}
		return json.Unmarshal([]byte(text), into)
	}
}
