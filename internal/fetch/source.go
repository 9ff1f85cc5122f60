package fetch

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/keepout-security/keepout/internal/durable"
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

// partSuffix ends the name of what is not whole.
const partSuffix = ".part"

// download brings one metadata file into the staging folder; it is whole or not there. It takes its bytes up to limit;
// more than that is an error.
func download(ctx context.Context, from source, name, to string, limit int64) error {
	return staged(name, to, os.O_TRUNC, func(f *os.File) (worthKeeping bool, err error) {
		if err := pour(ctx, from, name, f, 0, limit); err != nil {
			return false, err
		}
		return false, fits(name, io.NewSectionReader(f, 0, limit))
	})
}

// downloadBlob is download of a file whose name is its digest. What an earlier call got of it is not fetched again, and
// what is not what its name says is not kept.
func downloadBlob(ctx context.Context, from source, name, to string, limit int64) error {
	return staged(name, to, 0, func(f *os.File) (worthKeeping bool, err error) {
		sum := sha256.New()
		right := func() bool { return hex.EncodeToString(sum.Sum(nil)) == path.Base(name) }
		had, err := io.Copy(sum, io.LimitReader(f, limit+1))
		if err != nil || had > limit || right() {
			return false, err
		}
		if err = pour(ctx, from, name, io.MultiWriter(f, sum), had, limit-had); err == nil && !right() {
			err = errOther
		}
		return interrupted(err), err
	})
}

var (
	errOther   = errors.New("its digest is another")
	errLong    = errors.New("it is longer than it may be")
	errVersion = errors.New("its version is not the one of its name")
)

// fits reports what is wrong with a file as far as its name tells: a blob's is its digest, and that of metadata begins
// with its version. It finds whatever a power cut leaves of a file, for zeros are no JSON; the core verifies the rest.
func fits(name string, r io.Reader) error {
	if strings.HasPrefix(name, blobDir) {
		sum := sha256.New()
		if _, err := io.Copy(sum, r); err != nil {
			return err
		}
		if hex.EncodeToString(sum.Sum(nil)) != path.Base(name) {
			return errOther
		}
		return nil
	}
	text, err := io.ReadAll(io.LimitReader(r, maxMeta+1))
	if err != nil {
		return err
	}
	var m metadata
	if err := json.Unmarshal(text, &m); err != nil {
		return fmt.Errorf("it is no metadata: %w", err)
	}
	named, _, _ := strings.Cut(path.Base(name), ".")
	if v, err := strconv.ParseInt(named, 10, 64); err == nil && v != m.Signed.Version {
		return fmt.Errorf("%w: %d", errVersion, m.Signed.Version)
	}
	return nil
}

// interrupted reports whether more may come of a file. Where the disk takes no more, what is there is in the way.
func interrupted(err error) bool {
	var here *fs.PathError
	return err != nil && !errors.As(err, &here) && !errors.Is(err, errOther) && !errors.Is(err, errLong) &&
		!errors.Is(err, fs.ErrNotExist) && !errors.Is(err, client.ErrNoRest)
}

// pour copies the rest of a file, and no more than limit.
func pour(ctx context.Context, from source, name string, to io.Writer, offset, limit int64) error {
	r, err := from.open(ctx, name, offset)
	if err != nil {
		return err
	}
	n, err := io.Copy(to, io.LimitReader(r, limit+1))
	err = errors.Join(err, r.Close())
	if n > limit {
		return fmt.Errorf("%w: %d bytes", errLong, offset+limit)
	}
	return err
}

// staged lets somebody write a file and gives it its name when that went well: so that it is whole there, also after a
// power cut.
func staged(name, to string, how int, write func(*os.File) (worthKeeping bool, err error)) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o750); err != nil {
		return fmt.Errorf("stage %s: %w", name, err)
	}
	part := to + partSuffix
	f, err := os.OpenFile(part, os.O_CREATE|os.O_RDWR|how, 0o640)
	if err != nil {
		return fmt.Errorf("stage %s: %w", name, err)
	}
	keep, err := write(f)
	if err == nil {
		err = settle(durable.OS(), f, to)
	} else {
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		if !keep {
			_ = os.Remove(part) // what is left is overwritten the next time, or not what its name says
		}
		return fmt.Errorf("stage %s: %w", name, err)
	}
	return nil
}

// settle closes a file that is whole and gives it its name, in the same folder. Its bytes are on the disk before: that
// no file system does by itself when the name is a new one.
func settle(disk durable.Disk, f durable.File, to string) error {
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	return durable.MoveOn(disk, f.Name(), to)
}
