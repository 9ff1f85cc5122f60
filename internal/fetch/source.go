package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/keepout-security/keepout/internal/fleet/client"
	"github.com/keepout-security/keepout/internal/folder"
)

// source is where metadata and blobs lie, by the same names everywhere.
type source interface {
	// open opens a file from an offset; one that is not there is fs.ErrNotExist.
	open(ctx context.Context, name string, offset int64) (io.ReadCloser, error)
}

// disk is a folder: a stick, or a mount.
type disk struct{ dir *folder.Folder }

func (d disk) open(_ context.Context, name string, offset int64) (io.ReadCloser, error) {
	f, err := d.dir.Open(name)
	if err != nil {
		return nil, err
	}
	if _, err := io.CopyN(io.Discard, f, offset); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// server is the control plane's packages folder.
type server struct{ host *client.Host }

func (s server) open(ctx context.Context, name string, offset int64) (io.ReadCloser, error) {
	r, err := s.host.Fetch(ctx, name, offset)
	if errors.Is(err, client.ErrNoFile) {
		return nil, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	return r, err
}

// download brings one file into the staging folder; it is whole or not there. It returns its bytes up to limit; more
// than that is an error before it is written.
func download(ctx context.Context, from source, name, to string, limit int64) error {
	r, err := from.open(ctx, name, 0)
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }() // only read
	if err := os.MkdirAll(filepath.Dir(to), 0o750); err != nil {
		return fmt.Errorf("stage %s: %w", name, err)
	}
	next := to + ".part"
	f, err := os.OpenFile(next, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o640)
	if err != nil {
		return fmt.Errorf("stage %s: %w", name, err)
	}
	n, err := io.Copy(f, io.LimitReader(r, limit+1))
	if err == nil && n > limit {
		err = fmt.Errorf("it has more than %d bytes", limit)
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(next, to)
	}
	if err != nil {
		_ = os.Remove(next) // what is left is overwritten the next time
		return fmt.Errorf("stage %s: %w", name, err)
	}
	return nil
}
