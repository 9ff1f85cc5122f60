package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"

	"github.com/pressly/goose/v3"
	"modernc.org/sqlite" // the database itself
)

//go:embed migrations/*.sql
var migrations embed.FS

// readers is how many views may read at once; SQLite lets them read while one writes.
const readers = 4

// SQLite is a store in one file. Make it with OpenSQLite.
type SQLite struct {
	write *sql.DB // one connection: updates come one after the other
	read  *sql.DB
}

var _ Store = (*SQLite)(nil)

// OpenSQLite opens the database at path, makes it if it is not there, and brings its tables up to date.
func OpenSQLite(ctx context.Context, path string) (*SQLite, error) {
	// synchronous(full): a transaction is on the disk when it is reported as done, also in WAL mode.
	write, err := open(path, url.Values{
		"_pragma": {
			"journal_mode(wal)", "synchronous(full)", "busy_timeout(10000)", "foreign_keys(on)",
			"wal_autocheckpoint(2000)",
		},
		"_txlock": {"immediate"},
	})
	if err != nil {
		return nil, err
	}
	write.SetMaxOpenConns(1)
	if err := migrate(ctx, write); err != nil {
		return nil, errors.Join(err, write.Close())
	}
	read, err := open(path, url.Values{"_pragma": {"query_only(on)", "busy_timeout(10000)"}})
	if err != nil {
		return nil, errors.Join(err, write.Close())
	}
	read.SetMaxOpenConns(readers)
	return &SQLite{write: write, read: read}, nil
}

func open(path string, options url.Values) (*sql.DB, error) {
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: path}).EscapedPath()+"?"+options.Encode())
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return db, nil
}

func migrate(ctx context.Context, db *sql.DB) error {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return fmt.Errorf("migrations: %w", err)
	}
	provider, err := goose.NewProvider(goose.DialectSQLite3, db, files)
	if err != nil {
		return fmt.Errorf("migrations: %w", err)
	}
	if _, err := provider.Up(ctx); err != nil {
		return fmt.Errorf("bring the database up to date: %w", err)
	}
	return nil
}

// View implements Store.
func (s *SQLite) View(ctx context.Context, read func(Reader) error) error {
	return transact(ctx, s.read, &sql.TxOptions{ReadOnly: true}, func(t *tx) error { return read(t) })
}

// Update implements Store.
func (s *SQLite) Update(ctx context.Context, change func(Tx) error) error {
	return transact(ctx, s.write, nil, func(t *tx) error { return change(t) })
}

func transact(ctx context.Context, db *sql.DB, options *sql.TxOptions, do func(*tx) error) error {
	begun, err := db.BeginTx(ctx, options)
	if err != nil {
		return fmt.Errorf("begin: %w", full(err))
	}
	if err := do(&tx{ctx: ctx, tx: begun}); err != nil {
		return errors.Join(full(err), ignoreDone(begun.Rollback()))
	}
	if err := begun.Commit(); err != nil {
		return fmt.Errorf("commit: %w", full(err))
	}
	return nil
}

// sqliteFull is the result code of a disk without room (sqlite.org/rescode.html#full); extended codes have it in their
// lowest byte.
const sqliteFull = 13

// full names the reason why most writes fail that fail.
func full(err error) error {
	var e *sqlite.Error
	if errors.As(err, &e) && e.Code()&0xff == sqliteFull {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return err
}

// ignoreDone leaves out the rollback of what a cancelled context has rolled back already.
func ignoreDone(err error) error {
	if errors.Is(err, sql.ErrTxDone) {
		return nil
	}
	return err
}

// Close implements Store.
func (s *SQLite) Close() error { return errors.Join(s.read.Close(), s.write.Close()) }
