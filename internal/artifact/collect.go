package artifact

import (
	"archive/tar"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/keepout-security/keepout/internal/artifact/layout"
	"github.com/keepout-security/keepout/internal/health"
)

// entry is one file that goes into a package.
type entry struct {
	name       string // slash-separated, below the folder
	size       int64
	executable bool
}

// collect lists the files of a folder, sorted by name. What no package may hold is refused here already, and by name.
func collect(dir string) (list []entry, size int64, err error) {
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return nil, 0, fmt.Errorf("the files of a package lie in a folder, and %s is none", dir)
	}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() {
			return refused(name, "is a link, a pipe or a device", "put the file itself there")
		}
		if info.Mode()&(fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky) != 0 {
			return refused(name, "is set-user-id, set-group-id or sticky", "chmod ug-s,-t it")
		}
		if len(list) == layout.MaxEntries {
			return refused(name, fmt.Sprintf("is one more than %d files", layout.MaxEntries), "leave out what is not needed")
		}
		size += info.Size()
		list = append(list, entry{
			name: filepath.ToSlash(name), size: info.Size(), executable: info.Mode()&0o111 != 0,
		})
		return nil
	})
	if err != nil {
		return nil, 0, fmt.Errorf("collect the files of %s: %w", dir, err)
	}
	slices.SortFunc(list, func(a, b entry) int { return strings.Compare(a.name, b.name) })
	return list, size, nil
}

func refused(name, why, next string) error {
	return health.Problem{
		Code: layout.CodeForbidden, Severity: health.Failure, Title: fmt.Sprintf("%q %s", name, why), Fix: next,
	}
}

// writeTar writes the archive. Owner, times and modes are the same everywhere, and nothing is compressed: a compressor
// of another version gives other bytes.
func writeTar(w io.Writer, sum hash.Hash, dir string, list []entry) (int64, error) {
	count := &counter{w: io.MultiWriter(w, sum)}
	archive := tar.NewWriter(count)
	for _, e := range list {
		if err := writeFile(archive, dir, e); err != nil {
			return 0, fmt.Errorf("pack %s: %w", e.name, err)
		}
	}
	if err := archive.Close(); err != nil {
		return 0, fmt.Errorf("pack: %w", err)
	}
	return count.n, nil
}

func writeFile(archive *tar.Writer, dir string, e entry) (err error) {
	mode := int64(0o644)
	if e.executable {
		mode = 0o755
	}
	err = archive.WriteHeader(&tar.Header{
		Typeflag: tar.TypeReg, Name: e.name, Size: e.size, Mode: mode, ModTime: time.Unix(0, 0).UTC(), Format: tar.FormatPAX,
	})
	if err != nil {
		return err
	}
	f, err := os.Open(filepath.Join(dir, filepath.FromSlash(e.name)))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if n, err := io.Copy(archive, io.LimitReader(f, e.size)); err != nil || n != e.size {
		return errors.Join(err, fmt.Errorf("it changed while it was read: %d of %d bytes", n, e.size))
	}
	return nil
}

type counter struct {
	w io.Writer
	n int64
}

// Write implements io.Writer.
func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
