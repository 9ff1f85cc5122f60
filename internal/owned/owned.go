// Package owned knows which paths the distribution's packages own: what a provider that denies them by mistake would
// break a host with.
//
// It reads dpkg's lists of files (dpkg(1), /var/lib/dpkg/info/*.list: one absolute path a line) and keeps a hash of
// each path, so that a look-up neither blocks nor allocates, and the memory is bounded: eight bytes a path. A path
// that no package owns is taken for owned once in about 10^13 look-ups. Nothing is guaranteed where there is no dpkg:
// then nothing is owned.
package owned

import (
	"bytes"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
)

// Bounds.
const (
	MaxPaths = 1 << 20 // further ones are not owned
	maxList  = 32 << 20
)

// lists is where dpkg keeps what each package owns.
const lists = "var/lib/dpkg/info/*.list"

// ErrTooMany reports that packages own more than MaxPaths paths.
var ErrTooMany = errors.New("packages own more paths than are kept")

// Set is a set of paths. It is safe for concurrent use.
type Set struct {
	seed   maphash.Seed
	sorted atomic.Pointer[[]uint64]
}

// New makes an empty set.
func New() *Set { return &Set{seed: maphash.MakeSeed()} }

// Owned reports whether a package owns the path, which must be absolute and have its links followed. It does not
// look at the file.
func (s *Set) Owned(path string) bool {
	sorted := s.sorted.Load()
	if sorted == nil {
		return false
	}
	_, found := slices.BinarySearch(*sorted, maphash.String(s.seed, merged(path)))
	return found
}

// Len is how many paths are owned.
func (s *Set) Len() int {
	if sorted := s.sorted.Load(); sorted != nil {
		return len(*sorted)
	}
	return 0
}

// Load reads the lists below root, normally "/", and replaces the set. It may take a second, so it must not be called
// where a caller waits. What can be read is in force also after an error.
func (s *Set) Load(root string) error {
	names, err := filepath.Glob(filepath.Join(root, lists))
	if err != nil {
		return fmt.Errorf("list packages: %w", err)
	}
	var all []uint64
	var errs []error
	var text bytes.Buffer // one for all lists: there are hundreds
	for _, name := range names {
		if err := read(&text, name); err != nil {
			errs = append(errs, err)
			continue
		}
		parse(text.Bytes(), func(path []byte) bool {
			if len(all) < MaxPaths {
				all = append(all, maphash.Bytes(s.seed, merged(path)))
				return true
			}
			return false
		})
		if len(all) == MaxPaths {
			errs = append(errs, ErrTooMany)
			break
		}
	}
	slices.Sort(all)
	all = slices.Clip(slices.Compact(all))
	s.sorted.Store(&all)
	return errors.Join(errs...)
}

// read reads one list in the place of what is in text.
func read(text *bytes.Buffer, name string) error {
	f, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("open package list: %w", err)
	}
	defer func() { _ = f.Close() }() // only read
	text.Reset()
	if _, err := text.ReadFrom(io.LimitReader(f, maxList+1)); err != nil {
		return fmt.Errorf("read package list: %w", err)
	}
	if text.Len() > maxList {
		return fmt.Errorf("package list %s is over %d bytes", name, maxList)
	}
	return nil
}

// parse calls each for every path in a list until it returns false. Folders are left out where the list shows that
// they are: it names them right before what they hold.
func parse(text []byte, each func(path []byte) bool) {
	for len(text) > 0 {
		var line []byte
		line, text, _ = bytes.Cut(text, []byte{'\n'})
		if len(line) < 2 || line[0] != '/' || line[1] == '.' && len(line) == 2 {
			continue
		}
		folder := len(text) > len(line) && bytes.HasPrefix(text, line) && text[len(line)] == '/'
		if !folder && !each(line) {
			return
		}
	}
}

// merged gives /bin/x and /usr/bin/x one name: packages name either, and where /bin is a link both are one file.
func merged[T string | []byte](path T) T {
	if len(path) >= 5 && string(path[:5]) == "/usr/" {
		return path[4:]
	}
	return path
}
