package durable

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Disk is what a durable write asks of a file system, so that the same code runs on the real one and on one
// that loses what a power cut may lose (internal/simdisk). Names are slash-separated paths. A Disk is safe for
// concurrent use if its implementation says so; OS is.
type Disk interface {
	// CreateTemp makes a new empty file with mode 0600 in dir, under a name that CleanTemps knows.
	CreateTemp(dir string) (File, error)
	// MkdirTemp makes a new folder with mode 0700 in dir, under a name that CleanTemps knows.
	MkdirTemp(dir string) (string, error)
	// Create makes a new file for writing; a name that exists is an error.
	Create(name string, mode fs.FileMode) (File, error)
	// Mkdir makes one folder; a name that exists is an error.
	Mkdir(name string, mode fs.FileMode) error
	// Chmod sets the permissions of a file or folder.
	Chmod(name string, mode fs.FileMode) error
	// Rename gives a file or folder a new name in the same folder, atomically; a file may replace a file.
	Rename(from, to string) error
	// Remove removes a file or an empty folder.
	Remove(name string) error
	// SyncDir makes the names in a folder, and its mode, durable.
	SyncDir(name string) error
	// Open opens a regular file for reading; a symbolic link is an error.
	Open(name string) (io.ReadCloser, error)
	// ReadDir lists a folder, sorted by name.
	ReadDir(name string) ([]fs.DirEntry, error)
	// Lstat describes a file without following a symbolic link.
	Lstat(name string) (fs.FileInfo, error)
}

// File is a file that is being written.
type File interface {
	io.Writer
	Name() string
	Chmod(mode fs.FileMode) error
	Sync() error
	Close() error
}

// OS returns the real file system.
func OS() Disk { return osDisk{} }

type osDisk struct{}

// CreateTemp implements Disk. os.CreateTemp opens with mode 0600: a secret is never readable by others, not even
// for a moment.
func (osDisk) CreateTemp(dir string) (File, error) { return os.CreateTemp(dir, tempPrefix+"*") }

func (osDisk) MkdirTemp(dir string) (string, error) { return os.MkdirTemp(dir, tempPrefix+"*") }

func (osDisk) Create(name string, mode fs.FileMode) (File, error) {
	return os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL|noFollow, mode)
}

func (osDisk) Mkdir(name string, mode fs.FileMode) error { return os.Mkdir(name, mode) }
func (osDisk) Chmod(name string, mode fs.FileMode) error { return os.Chmod(name, mode) }
func (osDisk) Rename(from, to string) error              { return rename(from, to) }
func (osDisk) Remove(name string) error                  { return os.Remove(name) }
func (osDisk) SyncDir(name string) error                 { return SyncDir(name) }

// Open does not wait for the other end of a pipe: what it opens is looked at first.
func (osDisk) Open(name string) (io.ReadCloser, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|noFollow|noWait, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: name, Err: errors.New("not a regular file")}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func (osDisk) ReadDir(name string) ([]fs.DirEntry, error) { return os.ReadDir(name) }
func (osDisk) Lstat(name string) (fs.FileInfo, error)     { return os.Lstat(name) }

// WriteFileOn is WriteFile on a disk.
func WriteFileOn(disk Disk, path string, data []byte, mode fs.FileMode) error {
	dir := filepath.Dir(path)
	temp, err := disk.CreateTemp(dir)
	if err != nil {
		return fmt.Errorf("create a temporary file for %s: %w", path, err)
	}
	if err := fill(temp, data, mode); err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, err), disk.Remove(temp.Name()))
	}
	if err := disk.Rename(temp.Name(), path); err != nil {
		return errors.Join(fmt.Errorf("replace %s: %w", path, err), disk.Remove(temp.Name()))
	}
	return disk.SyncDir(dir)
}

// CreateFileOn writes a file that must not exist, with exactly the mode given, and syncs it. Its name is durable
// only after the folder's SyncDir: whoever fills a folder syncs that once, at the end. On an error the file may
// be there, incomplete; the caller removes the folder.
func CreateFileOn(disk Disk, path string, r io.Reader, mode fs.FileMode) error {
	f, err := disk.Create(path, 0o600)
	if err != nil {
		return fmt.Errorf("create: %w", err)
	}
	_, err = io.Copy(f, r)
	if err := errors.Join(err, fillRest(f, err == nil, mode)); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// MoveOn gives a finished file or folder its name in the same folder and makes that durable.
func MoveOn(disk Disk, from, to string) error {
	if err := disk.Rename(from, to); err != nil {
		return fmt.Errorf("move into place: %w", err)
	}
	return disk.SyncDir(filepath.Dir(to))
}

// RemoveTreeOn removes a folder that nobody writes to, whatever its modes, and all below it. It follows no
// symbolic link. To make it atomic, give the folder a temporary name first (DiscardOn).
func RemoveTreeOn(disk Disk, dir string) error {
	// Without write permission on a folder only root could empty it.
	if err := disk.Chmod(dir, 0o700); err != nil {
		return fmt.Errorf("remove: %w", err)
	}
	entries, err := disk.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("remove: %w", err)
	}
	for _, e := range entries {
		name := filepath.Join(dir, e.Name())
		if e.IsDir() {
			err = RemoveTreeOn(disk, name)
		} else {
			err = disk.Remove(name)
		}
		if err != nil {
			return err
		}
	}
	return disk.Remove(dir)
}

// DiscardOn removes a folder so that a power cut leaves either all of it or nothing under its name; what is left
// under a temporary name goes with the next CleanTempsOn.
func DiscardOn(disk Disk, dir string) error {
	parent := filepath.Dir(dir)
	temp := filepath.Join(parent, tempPrefix+"gone-"+filepath.Base(dir))
	if _, err := disk.Lstat(temp); err == nil { // an earlier attempt got no further
		if err := RemoveTreeOn(disk, temp); err != nil {
			return err
		}
	}
	if err := MoveOn(disk, dir, temp); err != nil {
		return err
	}
	return RemoveTreeOn(disk, temp)
}

// CleanTempsOn is CleanTemps on a disk, and removes temporary folders as well.
func CleanTempsOn(disk Disk, dir string) (int, error) {
	entries, err := disk.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("look for temporary files: %w", err)
	}
	removed, errs := 0, []error(nil)
	for _, entry := range entries {
		name := filepath.Join(dir, entry.Name())
		switch {
		case !strings.HasPrefix(entry.Name(), tempPrefix):
			continue
		case entry.IsDir():
			err = RemoveTreeOn(disk, name)
		case entry.Type().IsRegular():
			err = disk.Remove(name)
		default:
			continue
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		removed++
	}
	return removed, errors.Join(errs...)
}
