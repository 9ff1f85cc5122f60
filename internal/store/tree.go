package store

import (
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/keepout-security/keepout/internal/durable"
	"github.com/keepout-security/keepout/internal/rollback"
)

// Names inside an object's folder.
const (
	listingFile = "listing"
	treeFolder  = "tree"
)

// Modes of what is stored: everybody may read, nobody may write.
const (
	plainMode   fs.FileMode = 0o444
	programMode fs.FileMode = 0o555
	folderMode  fs.FileMode = 0o555
)

// manifestFile must be in every engine's folder.
const manifestFile = "provider.yaml"

// tree takes the entries of a package, from wherever they come, and holds them against the rules. With a folder to
// write to, it writes them there; without, it only computes the digest.
type tree struct {
	disk   durable.Disk
	limits Limits
	source string // for messages
	dir    string // the object's temporary folder, or ""

	list  listing
	known map[string]byte // class of each path
	bytes int64
	buf   []byte
}

// copyBuffer is how much of a file is read at once, in bytes.
const copyBuffer = 32 << 10

// newTree begins a package. With a folder to write to, it makes room for the files below it.
func newTree(disk durable.Disk, limits Limits, part rollback.Part, source, dir string) (*tree, error) {
	t := &tree{
		disk: disk, limits: limits, source: source, dir: dir, list: listing{part: part},
		known: map[string]byte{".": folder},
	}
	if dir == "" {
		return t, nil
	}
	if err := disk.Mkdir(filepath.Join(dir, treeFolder), 0o700); err != nil {
		return nil, fmt.Errorf("create package folder: %w", err)
	}
	return t, nil
}

// refuse makes the error about one path.
func (t *tree) refuse(code, name, why, next string) error {
	return refuse(code, t.source, name, why, next)
}

// admit checks a path and remembers it, with the folders that it is in.
func (t *tree) admit(name string, class byte) error {
	if why := wrongName(name); why != "" {
		return t.refuse(CodeName, name, why, "rename it: packages take relative paths of printable UTF-8")
	}
	if depth := strings.Count(name, "/"); depth > t.limits.Depth || class == folder && depth == t.limits.Depth {
		return t.refuse(CodeTooLarge, name, fmt.Sprintf("lies more than %d folders deep", t.limits.Depth),
			"put it higher")
	}
	if parent := path.Dir(name); t.known[parent] == 0 {
		if err := t.folder(parent); err != nil {
			return err
		}
	} else if t.known[parent] != folder {
		return t.refuse(CodeArchive, name, "is in a file", "make the package anew")
	}
	if t.known[name] != 0 {
		return t.refuse(CodeArchive, name, "is there twice", "make the package anew")
	}
	if len(t.known) > t.limits.Entries { // "." is known as well
		return t.refuse(CodeTooLarge, "", fmt.Sprintf("has more than %d files and folders", t.limits.Entries),
			"pack many small files into few")
	}
	t.known[name] = class
	return nil
}

// folder takes a folder; again is as good as once.
func (t *tree) folder(name string) error {
	if t.known[name] == folder {
		return nil
	}
	if err := t.admit(name, folder); err != nil {
		return err
	}
	t.list.entries = append(t.list.entries, entry{path: name, class: folder})
	if t.dir == "" {
		return nil
	}
	if err := t.disk.Mkdir(t.at(name), 0o700); err != nil {
		return fmt.Errorf("create folder: %w", err)
	}
	return nil
}

// file takes a file of exactly size bytes.
func (t *tree) file(name string, executable bool, size int64, r io.Reader) error {
	e := entry{path: name, class: plain, size: size}
	if executable && t.list.part == rollback.Engine { // content is never executed
		e.class = program
	}
	if err := t.admit(name, e.class); err != nil {
		return err
	}
	if size < 0 || size > t.limits.Bytes-t.bytes {
		return t.refuse(CodeTooLarge, "", fmt.Sprintf("has more than %d bytes", t.limits.Bytes),
			"leave out what is not needed")
	}
	t.bytes += size
	if need := min(size, copyBuffer); int64(len(t.buf)) < need {
		t.buf = make([]byte, need)
	}
	body := &hashed{r: io.LimitReader(r, size), h: sha256.New(), buf: t.buf}
	var err error
	if t.dir == "" {
		_, err = io.Copy(io.Discard, body)
	} else {
		mode := plainMode
		if e.class == program {
			mode = programMode
		}
		err = durable.CreateFileOn(t.disk, t.at(name), body, mode)
	}
	if err != nil {
		return err
	}
	if body.n != size {
		return t.changed(name)
	}
	body.h.Sum(e.sum[:0])
	t.list.entries = append(t.list.entries, e)
	return nil
}

func (t *tree) changed(name string) error {
	return t.refuse(CodeChanged, name, "changed while it was read", "try again when nobody writes to it")
}

func (t *tree) at(name string) string { return filepath.Join(t.dir, treeFolder, name) }

// hashed counts and hashes what it copies, with a buffer that serves all files of a package.
type hashed struct {
	r   io.Reader
	h   hash.Hash
	n   int64
	buf []byte
}

// Read implements io.Reader.
func (b *hashed) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	b.n += int64(n)
	b.h.Write(p[:n])
	return n, err
}

// WriteTo implements io.WriterTo.
func (b *hashed) WriteTo(w io.Writer) (int64, error) {
	if len(b.buf) == 0 { // an empty file
		return 0, nil
	}
	return io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{b}, b.buf)
}

// finish checks that the package has what its kind must have.
func (t *tree) finish() (*listing, error) {
	files := slices.ContainsFunc(t.list.entries, func(e entry) bool { return e.class != folder })
	if !files {
		return nil, t.refuse(CodeShape, "", "has no file", "name the folder or archive that holds the package")
	}
	if t.list.part == rollback.Content {
		return &t.list, nil
	}
	programs := slices.ContainsFunc(t.list.entries, func(e entry) bool {
		return e.class == program && !strings.Contains(e.path, "/")
	})
	switch {
	case t.list.single || t.known[manifestFile] != plain && t.known[manifestFile] != program:
		return nil, t.refuse(CodeShape, "", "has no "+manifestFile, "name the folder, or pack from inside it, so that "+
			manifestFile+" is at its top")
	case !programs:
		return nil, t.refuse(CodeShape, "", "has no executable file beside its "+manifestFile, "chmod +x the engine")
	}
	return &t.list, nil
}

// seal makes the object's temporary folder durable, with its listing: the files are synced already, now the names.
func (t *tree) seal(text []byte) error {
	f := strings.NewReader(string(text))
	if err := durable.CreateFileOn(t.disk, filepath.Join(t.dir, listingFile), f, plainMode); err != nil {
		return err
	}
	folders := []string{filepath.Join(t.dir, treeFolder), t.dir}
	for _, e := range t.list.entries { // sorted, so a folder comes before what is in it
		if e.class == folder {
			folders = append(folders, t.at(e.path))
		}
	}
	for _, dir := range folders {
		if err := t.disk.Chmod(dir, folderMode); err != nil {
			return fmt.Errorf("close folder: %w", err)
		}
		if err := t.disk.SyncDir(dir); err != nil {
			return err
		}
	}
	return nil
}
