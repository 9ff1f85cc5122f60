package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// tempPrefix begins the name of every file and folder that is not finished; CleanTemps knows it by that.
const tempPrefix = ".keepout-tmp-"

// WriteFile replaces path by data, atomically and durably: a temporary file in the same folder, write,
// fsync, rename, fsync of the folder. The mode is set exactly, whatever the umask. A symbolic link at path
// is replaced, not followed. On an error the old content is still there and no temporary file stays; only
// an error that says "sync folder" leaves open whether the old or the new content would survive a power
// cut. Concurrent calls for one path are safe, the last rename wins.
func WriteFile(path string, data []byte, mode fs.FileMode) error {
	return WriteFileOn(OS(), path, data, mode)
}

// fill closes the file in every case; the first error is the one that says why.
func fill(temp File, data []byte, mode fs.FileMode) error {
	_, err := temp.Write(data)
	return errors.Join(err, fillRest(temp, err == nil, mode))
}

// fillRest sets the mode and syncs, if what was written is whole, and closes.
func fillRest(f File, whole bool, mode fs.FileMode) error {
	var err error
	if whole {
		err = f.Chmod(mode)
	}
	if whole && err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// OpenAppend creates path, which must not exist, for appending, and makes its name durable. What is written
// to it is durable only after the file's Sync.
func OpenAppend(path string, mode fs.FileMode) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return nil, fmt.Errorf("open for appending: %w", err)
	}
	if err := SyncDir(filepath.Dir(path)); err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(path))
	}
	return f, nil
}

// CleanTemps removes the temporary files that a crash or a power cut left in dir (not below it) and returns
// how many there were. Call it once, at the start, while nobody writes there: it cannot tell a leftover
// from a write in progress. A folder that does not exist has none.
func CleanTemps(dir string) (int, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("look for temporary files: %w", err)
	}
	removed, errs := 0, []error(nil)
	for _, entry := range entries {
		if !entry.Type().IsRegular() || !strings.HasPrefix(entry.Name(), tempPrefix) {
			continue
		}
		if err := os.Remove(filepath.Join(dir, entry.Name())); err != nil {
			errs = append(errs, err)
			continue
		}
		removed++
	}
	return removed, errors.Join(errs...)
}

// Overwrite writes data over the beginning of a file that is there and at least as long, in place, and syncs it. It
// is not atomic: a power cut may leave a mixture of old and new bytes. It is for files of which there are two copies
// with checksums, and for small ones that may get lost, where a rename would be worse: on FAT it changes neither the
// folder nor the allocation table, and it needs no room on a full disk. A symbolic link is an error.
func Overwrite(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|noFollow|noWait, 0)
	if err != nil {
		return fmt.Errorf("overwrite: %w", err)
	}
	info, err := f.Stat()
	if err == nil && (!info.Mode().IsRegular() || info.Size() < int64(len(data))) {
		err = fmt.Errorf("it is not a file of %d bytes or more", len(data))
	}
	if err == nil {
		_, err = f.WriteAt(data, 0)
	}
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("overwrite %s: %w", path, err)
	}
	return nil
}
