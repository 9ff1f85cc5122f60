package store

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"path/filepath"

	"github.com/keepout-security/keepout/internal/durable"
	"github.com/keepout-security/keepout/internal/health"
	"github.com/keepout-security/keepout/internal/rollback"
)

// Package is what an import took.
type Package struct {
	Digest  rollback.Digest `json:"digest"`
	Part    rollback.Part   `json:"part"`
	Files   int             `json:"files"`
	Bytes   int64           `json:"bytes"`
	Already bool            `json:"already"` // it was in the store
}

// Import takes a package from a folder, or content from a single file. The package stays until a Commit names it, or
// Release. A refusal is a health.Problem.
func (s *Store) Import(part rollback.Part, name string) (Package, error) {
	s.importing.Lock()
	defer s.importing.Unlock()
	// First without writing: mostly it is what the store has already. The second time it must be the same.
	look, err := s.take(part, name, "", func(t *tree) error { return walk(t, name) })
	if err != nil {
		return Package{}, err
	}
	s.readOnce(look.Digest)
	s.mu.Lock()
	have := s.adopt(&look)
	s.mu.Unlock()
	if have {
		return look, nil
	}
	taken, err := s.write(part, name, func(t *tree) error { return walk(t, name) }, look.Digest)
	return taken, err
}

// ImportArchive takes a package from a tar archive, compressed by gzip or not; name is for messages.
func (s *Store) ImportArchive(part rollback.Part, name string, r io.Reader) (Package, error) {
	s.importing.Lock()
	defer s.importing.Unlock()
	return s.write(part, name, func(t *tree) error { return unpack(t, r) }, "")
}

// take feeds a tree and returns what came of it.
func (s *Store) take(part rollback.Part, name, dir string, feed func(*tree) error) (Package, error) {
	t, err := newTree(s.c.Disk, s.c.Limits, part, name, dir)
	if err == nil {
		err = feed(t)
	}
	if err != nil {
		return Package{}, s.refusal(err)
	}
	l, err := t.finish()
	if err != nil {
		return Package{}, err
	}
	text := l.text()
	p := Package{Digest: digestOf(text), Part: part, Bytes: t.bytes}
	for _, e := range l.entries {
		if e.class != folder {
			p.Files++
		}
	}
	if dir != "" {
		err = t.seal(text)
	}
	return p, s.refusal(err)
}

// refusal makes a Problem of an error that is none: it came from the store's own disk.
func (s *Store) refusal(err error) error {
	var p health.Problem
	if err == nil || errors.As(err, &p) {
		return err
	}
	return unwritable(s.c.Dir, err)
}

// write takes a package into a temporary folder and moves that into its place. want, unless it is "", is what the
// package must turn out to be.
func (s *Store) write(part rollback.Part, name string, feed func(*tree) error, want rollback.Digest) (Package, error) {
	temp, err := s.c.Disk.MkdirTemp(s.objects)
	if err != nil {
		return Package{}, unwritable(s.c.Dir, err)
	}
	p, err := s.take(part, name, temp, feed)
	if err == nil && want != "" && p.Digest != want {
		err = refuse(CodeChanged, name, "", "changed while it was read", "try again when nobody writes to it")
	}
	if err == nil {
		err = s.place(temp, &p)
	}
	if err != nil || p.Already {
		_ = durable.RemoveTreeOn(s.c.Disk, temp) // otherwise the next Open does
	}
	return p, err
}

// place moves a finished package to where its digest says.
func (s *Store) place(temp string, p *Package) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.adopt(p) {
		return nil
	}
	if _, err := s.c.Disk.Lstat(s.object(p.Digest)); err == nil { // damaged: this one is better
		if err := durable.DiscardOn(s.c.Disk, s.object(p.Digest)); err != nil {
			return unwritable(s.c.Dir, err)
		}
	}
	if err := durable.MoveOn(s.c.Disk, temp, s.object(p.Digest)); err != nil {
		s.unsynced = true
		return unwritable(s.c.Dir, err)
	}
	s.intact[p.Digest] = true
	s.imported[p.Digest]++
	return nil
}

// adopt reports whether the store has a package, undamaged, and if so keeps it from being collected.
// Preconditions: mu is held.
func (s *Store) adopt(p *Package) bool {
	if s.check(p.Digest) != nil {
		return false
	}
	if s.unsynced && s.c.Disk.SyncDir(s.objects) != nil {
		return false
	}
	s.unsynced = false
	p.Already = true
	s.imported[p.Digest]++
	return true
}

func (s *Store) object(d rollback.Digest) string { return filepath.Join(s.objects, string(d)) }

// check verifies a package, once in this process. Preconditions: mu is held.
func (s *Store) check(d rollback.Digest) error {
	if s.intact[d] {
		return nil
	}
	if err := s.verify(d); err != nil {
		return err
	}
	s.intact[d] = true
	return nil
}

// Verify reads a whole package and compares it with its digest; nil means that it is what it was. It takes as long as
// reading it takes.
func (s *Store) Verify(d rollback.Digest) error {
	err := s.verify(d)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		delete(s.intact, d)
		return objectError(d, err.Error())
	}
	s.intact[d] = true
	return nil
}

func objectError(d rollback.Digest, why string) error {
	return health.Problem{
		Code: CodeObject, Severity: health.Warning, Title: fmt.Sprintf("the stored package %.64s %s", d, why),
		Fix: "install the version again",
	}
}

// Path returns where a package is: the folder, or the file that it consists of. The package was verified in this
// process; the first call for one does that.
func (s *Store) Path(d rollback.Digest) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.check(d); err != nil {
		return "", objectError(d, err.Error())
	}
	l, err := s.listing(d)
	if err != nil {
		return "", objectError(d, err.Error())
	}
	name := filepath.Join(s.object(d), treeFolder)
	if l.single {
		name = filepath.Join(name, l.entries[0].path)
	}
	return name, nil
}

// listing reads and checks what a package should consist of.
func (s *Store) listing(d rollback.Digest) (*listing, error) {
	if !d.Valid() {
		return nil, errors.New("has no digest for a name")
	}
	f, err := s.c.Disk.Open(filepath.Join(s.object(d), listingFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errors.New("is missing")
	}
	if err != nil {
		return nil, fmt.Errorf("cannot be read: %w", err)
	}
	text, err := io.ReadAll(io.LimitReader(f, int64(s.c.Limits.Entries+1)*(maxPath+maxName)))
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("cannot be read: %w", err)
	}
	if digestOf(text) != d {
		return nil, errors.New("is damaged: its listing was changed")
	}
	l, err := parseListing(text)
	if err != nil {
		return nil, fmt.Errorf("is damaged: %w", err)
	}
	return l, nil
}

// verify compares a package with its digest. It needs no lock: a package never changes, and one that goes meanwhile
// is missing.
func (s *Store) verify(d rollback.Digest) error {
	l, err := s.listing(d)
	if err != nil {
		return err
	}
	count := map[string]int{} // entries in each folder
	for _, e := range l.entries {
		count[path.Dir(e.path)]++
	}
	root := filepath.Join(s.object(d), treeFolder)
	if err := s.verifyFolder(root, ".", count["."]); err != nil {
		return err
	}
	for _, e := range l.entries {
		if e.class == folder {
			err = s.verifyFolder(root, e.path, count[e.path])
		} else {
			err = s.verifyFile(root, e)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// verifyFolder sees that nothing was added; what was removed misses when it is looked for.
func (s *Store) verifyFolder(root, name string, want int) error {
	info, err := s.c.Disk.Lstat(filepath.Join(root, name))
	if err == nil && !info.IsDir() { // a link to a folder would lead to where nothing is verified
		err = fmt.Errorf("%q is no folder", name)
	}
	if err != nil {
		return fmt.Errorf("is damaged: %w", err)
	}
	entries, err := s.c.Disk.ReadDir(filepath.Join(root, name))
	if err != nil {
		return fmt.Errorf("is damaged: %w", err)
	}
	if len(entries) != want {
		return fmt.Errorf("is damaged: the folder %q has %d entries, not %d", name, len(entries), want)
	}
	return nil
}

func (s *Store) verifyFile(root string, e entry) error {
	name := filepath.Join(root, e.path)
	info, err := s.c.Disk.Lstat(name)
	if err != nil {
		return fmt.Errorf("is damaged: %w", err)
	}
	mode := plainMode
	if e.class == program {
		mode = programMode
	}
	if info.Mode() != mode || info.Size() != e.size {
		return fmt.Errorf("is damaged: %q is %v with %d bytes, not %v with %d", e.path, info.Mode(), info.Size(), mode,
			e.size)
	}
	f, err := s.c.Disk.Open(name)
	if err != nil {
		return fmt.Errorf("is damaged: %w", err)
	}
	h := sha256.New()
	_, err = io.Copy(h, f)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("is damaged: %w", err)
	}
	if [sha256.Size]byte(h.Sum(nil)) != e.sum {
		return fmt.Errorf("is damaged: the content of %q was changed", e.path)
	}
	return nil
}
