package folder

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// Folder is a file system of the regular files below one folder. It is safe for concurrent use.
type Folder struct {
	root *os.Root
}

var _ fs.StatFS = (*Folder)(nil)

// Open opens a folder. Close it when done.
func Open(dir string) (*Folder, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open folder: %w", err)
	}
	return &Folder{root: root}, nil
}

// Close ends it. Files that are open stay so.
func (f *Folder) Close() error { return f.root.Close() }

var errNotRegular = errors.New("not a regular file")

// Open implements fs.FS for regular files; anything else is an error.
func (f *Folder) Open(name string) (fs.File, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
	}
	file, err := f.root.OpenFile(name, os.O_RDONLY|dontWait, 0)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: name, Err: errNotRegular}
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// Stat implements fs.StatFS. It follows links as far as they stay inside.
func (f *Folder) Stat(name string) (fs.FileInfo, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: "stat", Path: name, Err: fs.ErrInvalid}
	}
	return f.root.Stat(name)
}
