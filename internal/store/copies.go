package store

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/keepout-security/keepout/internal/durable"
	"github.com/keepout-security/keepout/internal/rollback"
)

// Names of a provider's two copies, and the beginning of the name of a damaged one.
const (
	copyA   = "a"
	copyB   = "b"
	damaged = "damaged-"
)

// maxAside is how many damaged copies of one provider are kept; further ones are replaced by what heals them.
const maxAside = 32

const recordMode fs.FileMode = 0o600

// known is what is remembered of one provider.
type known struct {
	dir    string
	record                      // the newest; its generation is 0 when both copies are gone
	older  string               // the copy that is written next
	named  [2][]rollback.Digest // by each copy, as it is on the disk
	unsure bool                 // a copy could not be healed: what it names is not known
	gone   string               // why neither copy could be read
}

func (k *known) path(name string) string { return filepath.Join(k.dir, name) }

func index(name string) int {
	if name == copyA {
		return 0
	}
	return 1
}

// readCopy returns one copy, its bytes as far as they can be read, and what is wrong with it.
func readCopy(disk durable.Disk, path, provider string) (r record, text []byte, err error) {
	f, err := disk.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil, errors.New("is missing")
	}
	if err != nil {
		return r, nil, err
	}
	text, err = io.ReadAll(io.LimitReader(f, maxRecord+1))
	if err := errors.Join(err, f.Close()); err != nil {
		return r, text, err
	}
	if len(text) > maxRecord {
		return r, text, errors.New("is too long")
	}
	r, err = decodeRecord(text, provider)
	return r, text, err
}

// load reads a provider's copies. What is damaged is put aside, and healed from the other copy.
func (s *Store) load(provider string) *known {
	k := &known{dir: filepath.Join(s.states, provider), older: copyA}
	var records [2]record
	var wrong [2]error
	for i, name := range []string{copyA, copyB} {
		var text []byte
		records[i], text, wrong[i] = readCopy(s.c.Disk, k.path(name), provider)
		if wrong[i] != nil {
			wrong[i] = fmt.Errorf("copy %s %w%s", name, wrong[i], s.putAside(k, name, text))
			continue
		}
		k.named[i] = records[i].state.Digests()
	}
	switch {
	case wrong[0] != nil && wrong[1] != nil:
		k.gone = errors.Join(wrong[0], wrong[1]).Error()
		k.gone = strings.ReplaceAll(k.gone, "\n", "; ")
		return k
	case wrong[1] != nil || wrong[0] == nil && records[0].generation > records[1].generation:
		k.record, k.older = records[0], copyB
	default:
		k.record, k.older = records[1], copyA
	}
	if bad := errors.Join(wrong[0], wrong[1]); bad != nil {
		if err := s.save(k, k.state); err != nil {
			k.unsure = true
			bad = fmt.Errorf("%w, and cannot be written again: %w", bad, err)
		}
		s.say(torn(provider, bad))
	}
	return k
}

// putAside keeps a damaged copy under a name that says what it was, and returns what to say about that.
func (s *Store) putAside(k *known, name string, text []byte) string {
	if _, err := s.c.Disk.Lstat(k.path(name)); errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	entries, err := s.c.Disk.ReadDir(k.dir)
	if err != nil {
		return ""
	}
	kept := 0
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), damaged) {
			kept++
		}
	}
	if kept >= maxAside {
		return fmt.Sprintf(" (not kept: there are %d already)", kept)
	}
	aside := damaged + name + "-" + digestOf(text).Short()
	if err := durable.MoveOn(s.c.Disk, k.path(name), k.path(aside)); err != nil {
		return " (cannot be kept: " + err.Error() + ")"
	}
	return " (kept as " + k.path(aside) + ")"
}

// save writes the state over the older copy. A provider that was never written is born with both.
func (s *Store) save(k *known, st rollback.State) error {
	if k.generation == 0 {
		return s.birth(k, st)
	}
	r := record{generation: k.generation + 1, state: st}
	text, err := r.encode()
	if err == nil {
		err = durable.WriteFileOn(s.c.Disk, k.path(k.older), text, recordMode)
	}
	if err != nil {
		// The copy may be either now; both are remembered as what is not to be removed.
		k.mayName(index(k.older), st)
		return unwritable(s.c.Dir, err)
	}
	k.written(r, k.older)
	return nil
}

// mayName notes that a copy holds a state perhaps.
func (k *known) mayName(i int, st rollback.State) {
	for _, d := range st.Digests() {
		if !slices.Contains(k.named[i], d) {
			k.named[i] = append(k.named[i], d)
		}
	}
}

// written notes that a copy holds a record now.
func (k *known) written(r record, name string) {
	k.record = r
	k.named[index(name)] = r.state.Digests()
	k.older = copyA
	if name == copyA {
		k.older = copyB
	}
}

// birth writes both copies. Where there is no folder yet it appears with both in it, so that a folder without one
// always means damage.
func (s *Store) birth(k *known, st rollback.State) error {
	k.mayName(0, st)
	k.mayName(1, st)
	dir, write := k.dir, durable.WriteFileOn
	_, err := s.c.Disk.Lstat(k.dir)
	fresh := errors.Is(err, fs.ErrNotExist)
	if fresh {
		if dir, err = s.c.Disk.MkdirTemp(s.states); err != nil {
			return unwritable(s.c.Dir, err)
		}
		write = createFile
	}
	for i, name := range []string{copyA, copyB} {
		text, err := record{generation: uint64(i) + 1, state: st}.encode()
		if err == nil {
			err = write(s.c.Disk, filepath.Join(dir, name), text, recordMode)
		}
		if err != nil {
			if fresh {
				_ = durable.RemoveTreeOn(s.c.Disk, dir) // otherwise the next Open does
			}
			return unwritable(s.c.Dir, err)
		}
	}
	if fresh {
		err := s.c.Disk.SyncDir(dir)
		if err == nil {
			err = durable.MoveOn(s.c.Disk, dir, k.dir)
		}
		if err != nil {
			return unwritable(s.c.Dir, err)
		}
	}
	k.written(record{generation: 2, state: st}, copyB)
	k.named[0] = slices.Clone(k.named[1])
	return nil
}

func createFile(disk durable.Disk, path string, data []byte, mode fs.FileMode) error {
	return durable.CreateFileOn(disk, path, bytes.NewReader(data), mode)
}
