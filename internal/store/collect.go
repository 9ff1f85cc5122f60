package store

import (
	"errors"
	"slices"

	"github.com/keepout-security/keepout/internal/durable"
	"github.com/keepout-security/keepout/internal/rollback"
)

// Pin keeps a package from being collected while a process uses it. The function that it returns lets go, once.
func (s *Store) Pin(d rollback.Digest) (release func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pins[d]++
	gone := false
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if gone {
			return
		}
		gone = true
		if s.pins[d]--; s.pins[d] == 0 {
			delete(s.pins, d)
		}
	}
}

// Release lets go of a package that was imported and is not wanted in any slot. Whoever else has imported it keeps it.
func (s *Store) Release(d rollback.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.imported[d]--; s.imported[d] <= 0 {
		delete(s.imported, d)
	}
}

// Collect removes the packages that nothing needs and returns how many there were. Needed is what a slot names in
// either copy of a provider's state (should the newer one be damaged, the older one must still find its packages),
// what is pinned, and what was imported and not yet committed. While it is not known what a copy names, nothing is
// removed.
func (s *Store) Collect() (removed int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	needed := map[rollback.Digest]bool{}
	for id, k := range s.providers {
		if k.unsure || k.gone != "" {
			return 0, errors.New("collect packages: the slots of " + id + " are not whole")
		}
		for _, d := range slices.Concat(k.named[0], k.named[1]) {
			needed[d] = true
		}
	}
	entries, err := s.c.Disk.ReadDir(s.objects)
	if err != nil {
		return 0, unwritable(s.c.Dir, err)
	}
	var errs []error
	for _, e := range entries {
		d := rollback.Digest(e.Name())
		if !d.Valid() || needed[d] || s.imported[d] > 0 || s.pins[d] > 0 {
			continue
		}
		delete(s.intact, d)
		if err := durable.DiscardOn(s.c.Disk, s.object(d)); err != nil {
			errs = append(errs, unwritable(s.c.Dir, err))
			continue
		}
		removed++
	}
	return removed, errors.Join(errs...)
}
