package layout

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"unicode"
	"unicode/utf8"
)

// File is one file of a package.
type File struct {
	Name       string // slash-separated, below the package's top
	Size       int64  // bytes
	Executable bool
}

// Files hands out each file of the package, in the order of the archive. Folders are implied by names. What each has
// seen counts only after Files returned nil: the digest of the whole is compared at the end. It returns the number of
// bytes of all files, which sign.Release.Size must equal.
func (p *Package) Files(each func(f File, r io.Reader) error) (size int64, err error) {
	blob, err := p.Tar()
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, blob.Close()) }()
	w := walk{pkg: short(p.digest), known: map[string]kind{}}
	archive := tar.NewReader(blob)
	for {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return 0, w.archive(err)
		}
		f, err := w.entry(h)
		if err != nil {
			return 0, err
		}
		if f == nil {
			continue
		}
		if err := each(*f, archive); errors.Is(err, io.ErrUnexpectedEOF) {
			return 0, w.archive(err)
		} else if err != nil {
			return 0, err
		}
	}
	// To the end of the blob, where the digest is compared.
	if n, err := io.Copy(io.Discard, blob); err != nil || n > tarPadding {
		if err == nil {
			err = fmt.Errorf("%d bytes follow its end", n)
		}
		return 0, w.archive(err)
	}
	return w.size, nil
}

// tarPadding is what may follow the end of an archive: tar fills its last record, of 10 KiB by custom.
const tarPadding = 64 << 10

type kind int

const (
	aFolder kind = iota + 1
	aFile
)

// walk is what was seen of an archive.
type walk struct {
	pkg     string
	known   map[string]kind
	entries int
	size    int64
}

// archive is the error about an archive as a whole; a refusal stays what it is.
func (w *walk) archive(err error) error {
	if isRefusal(err) {
		return err
	}
	return refuse(CodePackage, remake, "the files of %s are no tar archive: %v", w.pkg, err)
}

// entry judges one header. It returns nil for a folder.
func (w *walk) entry(h *tar.Header) (*File, error) {
	w.entries++
	if w.entries > MaxEntries {
		return nil, refuse(CodeLimit, "leave out what is not needed", "%s has more than %d files and folders", w.pkg,
			MaxEntries)
	}
	name := h.Name
	if h.Typeflag == tar.TypeDir {
		name = strings.TrimSuffix(name, "/")
	}
	if why := badName(name); why != "" {
		return nil, w.forbidden(h.Name, why)
	}
	switch h.Typeflag {
	case tar.TypeDir:
		return nil, w.place(name, aFolder)
	case tar.TypeReg:
	case tar.TypeSymlink, tar.TypeLink:
		return nil, w.forbidden(name, "is a link")
	default:
		return nil, w.forbidden(name, "is neither file nor folder")
	}
	if h.Mode&0o7000 != 0 {
		return nil, w.forbidden(name, "is set-user-id, set-group-id or sticky")
	}
	if h.Size < 0 || w.size > MaxFiles-h.Size {
		return nil, refuse(CodeLimit, "leave out what is not needed", "%s has more than %d bytes", w.pkg, int64(MaxFiles))
	}
	w.size += h.Size
	if err := w.place(name, aFile); err != nil {
		return nil, err
	}
	return &File{Name: name, Size: h.Size, Executable: h.Mode&0o111 != 0}, nil
}

// place takes a name. A file's name comes once, and is no folder's.
func (w *walk) place(name string, what kind) error {
	for i, c := range name {
		if c != '/' {
			continue
		}
		if w.known[name[:i]] == aFile {
			return w.forbidden(name, "lies below a file")
		}
		w.known[name[:i]] = aFolder
	}
	if had := w.known[name]; had != 0 && (had == aFile || what == aFile) {
		return w.forbidden(name, "comes twice")
	}
	w.known[name] = what
	if len(w.known) > MaxEntries {
		return refuse(CodeLimit, "leave out what is not needed", "%s has more than %d files and folders", w.pkg, MaxEntries)
	}
	return nil
}

func (w *walk) forbidden(name, why string) error {
	return refuse(CodeForbidden, "do not use this package, and find out who made it", "%s: %.200q %s", w.pkg, name, why)
}

// badName says what is wrong with a name, or "".
func badName(name string) string {
	switch {
	case !fs.ValidPath(name) || name == ".":
		return "is no plain name: it is empty, absolute, or leads upwards"
	case !utf8.ValidString(name):
		return "is no UTF-8"
	case strings.ContainsFunc(name, func(r rune) bool { return r == '\\' || !unicode.IsPrint(r) }):
		return "has a backslash or a character that cannot be seen"
	case strings.Count(name, "/") >= MaxDepth:
		return fmt.Sprintf("lies more than %d folders deep", MaxDepth)
	case len(name) > 1024:
		return "is too long"
	}
	return ""
}
