// Package initramfs writes and reads the archives that a Linux kernel unpacks into its first root file system.
//
// It guarantees: the same files give the same bytes, on every machine and at every time: entries are sorted, owned by
// user 0, without a time, and parents come before what lies in them. What it reads is bounded.
package initramfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/cavaliergopher/cpio"
)

// Limits of what is read and written.
const (
	MaxFiles = 4096      // entries of one archive
	MaxFile  = 256 << 20 // bytes of one file
	MaxName  = 255       // bytes of a path
)

// File is one entry below the root. A Name that ends in "/" is a folder.
type File struct {
	Name string // "init", "lib/modules/x.ko": relative, clean, with slashes
	Mode uint32 // permission bits; 0 stands for 0644, or 0755 for a folder
	Data []byte
}

// Write writes the archive. Parents that are not named are added with mode 0755. A name twice, a name that is not
// clean and relative, and anything beyond the limits is an error, and what was written so far is of no use.
func Write(w io.Writer, files []File) error {
	entries, err := entriesOf(files)
	if err != nil {
		return err
	}
	archive := cpio.NewWriter(w)
	for _, f := range entries {
		if err := archive.WriteHeader(f.header()); err != nil {
			return fmt.Errorf("write the entry %s: %w", f.Name, err)
		}
		if _, err := archive.Write(f.Data); err != nil {
			return fmt.Errorf("write %s: %w", f.Name, err)
		}
	}
	if err := archive.Close(); err != nil {
		return fmt.Errorf("end the archive: %w", err)
	}
	return nil
}

// Bytes is Write into memory.
func Bytes(files []File) ([]byte, error) {
	var b bytes.Buffer
	err := Write(&b, files)
	return b.Bytes(), err
}

func (f *File) header() *cpio.Header {
	h := &cpio.Header{Name: strings.TrimSuffix(f.Name, "/"), ModTime: time.Unix(0, 0), Links: 1}
	if strings.HasSuffix(f.Name, "/") {
		h.Mode, h.Links = cpio.TypeDir|cpio.FileMode(f.mode(0o755)), 2
		return h
	}
	h.Mode, h.Size = cpio.TypeReg|cpio.FileMode(f.mode(0o644)), int64(len(f.Data))
	return h
}

func (f *File) mode(otherwise uint32) uint32 {
	if f.Mode == 0 {
		return otherwise
	}
	return f.Mode & cpio.ModePerm
}

// entriesOf checks the files, adds their parents and sorts. A folder's slash sorts it before what lies in it.
func entriesOf(files []File) ([]File, error) {
	seen := map[string]bool{}
	var all []File
	for _, f := range files {
		name := strings.TrimSuffix(f.Name, "/")
		if err := checkName(name); err != nil {
			return nil, err
		}
		if seen[name] {
			return nil, fmt.Errorf("%s: named twice", name)
		}
		if len(f.Data) > MaxFile {
			return nil, fmt.Errorf("%s: %d bytes, limit %d", name, len(f.Data), MaxFile)
		}
		seen[name] = true
		all = append(all, f)
	}
	for _, f := range files {
		for dir := path.Dir(strings.TrimSuffix(f.Name, "/")); dir != "."; dir = path.Dir(dir) {
			if !seen[dir] {
				seen[dir] = true
				all = append(all, File{Name: dir + "/"})
			}
		}
	}
	if len(all) > MaxFiles {
		return nil, fmt.Errorf("%d entries, limit %d", len(all), MaxFiles)
	}
	slices.SortFunc(all, func(a, b File) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

func checkName(name string) error {
	if name == "" || len(name) > MaxName || name != path.Clean(name) || path.IsAbs(name) ||
		name == "." || name == ".." || strings.HasPrefix(name, "../") || name == "TRAILER!!!" {
		return fmt.Errorf("name %.80q: want a clean relative path of at most %d bytes", name, MaxName)
	}
	return nil
}

// errMode is what Read says of device nodes and the like: Write never makes one.
var errMode = errors.New("neither a file nor a folder")

// Read reads an archive that Write wrote, within the limits; total bounds the bytes of all files together.
func Read(r io.Reader, total int64) ([]File, error) {
	archive := cpio.NewReader(r)
	var files []File
	for {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return files, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read an entry: %w", err)
		}
		if err := checkName(h.Name); err != nil {
			return nil, err
		}
		if total -= h.Size; h.Size < 0 || h.Size > MaxFile || total < 0 || len(files) == MaxFiles {
			return nil, fmt.Errorf("%s: the archive is larger than allowed", h.Name)
		}
		f := File{Name: h.Name, Mode: uint32(h.Mode & cpio.ModePerm)}
		switch h.Mode & cpio.ModeType {
		case cpio.TypeDir:
			f.Name += "/"
		case cpio.TypeReg:
			f.Data = make([]byte, h.Size)
			if _, err := io.ReadFull(archive, f.Data); err != nil {
				return nil, fmt.Errorf("read %s: %w", f.Name, err)
			}
		default:
			return nil, fmt.Errorf("%s: %w", h.Name, errMode)
		}
		files = append(files, f)
	}
}
