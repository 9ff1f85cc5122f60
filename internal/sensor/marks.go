package sensor

import (
	"errors"
	"fmt"
	"time"

	"github.com/keepout-security/keepout/event"
)

// Types is a set of event types.
type Types [event.Delete + 1]bool

// Add returns the types of both sets.
func (a Types) Add(b Types) Types {
	for t := range b {
		a[t] = a[t] || b[t]
	}
	return a
}

// allTypes is the set of all.
func allTypes() (all Types) {
	for _, t := range event.Types() {
		all[t] = true
	}
	return all
}

// SetWatches replaces the watches. New marks are set before old ones are taken away, so that nothing that stays
// watched is unwatched for a moment. On an error the old watches stay.
func (s *Sensor) SetWatches(watches []Watch) error {
	next, err := within(func() (*scope, error) { return newScope(watches) })
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range next.filesystems {
		f.scans = s.scans.Load()
	}
	old := s.scope.Load()
	// Readers look at the scope when an event arrives, and an unknown file system is allowed unasked; so the
	// new scope is in place before its marks.
	s.scope.Store(next)
	types := s.due(time.Now())
	// Everything at first: who names a file system that takes no marks shall hear of it now and not when somebody
	// subscribes, and what another core has left marked goes with the rest.
	if err := s.addMarks(next); err != nil {
		s.scope.Store(old)
		s.dropMarks(next, old)
		return err
	}
	for _, f := range next.filesystems {
		f.marked.Store(&types)
	}
	s.dropMarks(old, next)
	s.dropMarks(next, next)
	s.failed.Store(nil)
	return nil
}

// addMarks marks all that is watched.
func (s *Sensor) addMarks(sc *scope) error {
	all := allTypes()
	for _, f := range sc.filesystems {
		if f.remote {
			if err := s.watchRemote(f); err != nil {
				return err
			}
			continue
		}
		if err := s.mark(f, f.mask(permBits, &all), f.notifyMask(&all)); err != nil {
			return err
		}
	}
	return nil
}

func (s *Sensor) mark(f *filesystem, perm, notify uint64) error {
	if perm != 0 {
		if err := s.perm.MarkFilesystem(f.path, perm); err != nil {
			return err
		}
	}
	if notify != 0 {
		return s.notify.MarkFilesystem(f.path, notify)
	}
	return nil
}

// unmark takes marks away. Errors are expected: the file system may be gone, or a mark was never there.
func (s *Sensor) unmark(f *filesystem, perm, notify uint64) {
	if perm|notify == 0 || !f.leads() {
		return // what stays marked there is allowed unasked
	}
	if perm != 0 {
		_ = s.perm.UnmarkFilesystem(f.path, perm)
	}
	if notify != 0 {
		_ = s.notify.UnmarkFilesystem(f.path, notify)
	}
}

// dropMarks takes away what can be marked of from, unless it is marked in to.
func (s *Sensor) dropMarks(from, to *scope) {
	all := allTypes()
	for dev, f := range from.filesystems {
		n := to.filesystems[dev]
		if f.remote {
			if n == nil {
				s.leaveRemote(dev)
			}
			continue
		}
		var keepPerm, keepNotify uint64
		if n != nil {
			keepPerm, keepNotify = n.masks(n.asks())
		}
		s.unmark(f, f.mask(permBits, &all)&^keepPerm, f.notifyMask(&all)&^keepNotify)
	}
}

// Want says which types of events somebody may be asked about: only those are marked, so that the kernel asks about no
// others. When it returns, those that are new are marked. What cannot be marked is said by Unmarked.
func (s *Sensor) Want(types Types) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wanted = types
	s.adjust()
}

// Prove has all types marked for a while, whoever wants them: for somebody who is about to see whether his own acts are
// noticed.
func (s *Sensor) Prove(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.proving = time.Now().Add(d)
	s.adjust()
	time.AfterFunc(d, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.adjust()
	})
}

// Unmarked reports why something that is watched and wanted is not marked, or nil.
func (s *Sensor) Unmarked() error {
	if err := s.failed.Load(); err != nil {
		return *err
	}
	return nil
}

// due is what must be marked. Preconditions: mu is held.
func (s *Sensor) due(now time.Time) Types {
	if now.Before(s.proving) {
		return allTypes()
	}
	return s.wanted
}

// adjust marks what is due and not marked, and then takes away what is not due. What cannot be marked is tried again
// the next time. Preconditions: mu is held.
func (s *Sensor) adjust() {
	if s.stopped {
		return
	}
	after, failed := s.due(time.Now()), error(nil)
	for _, f := range s.scope.Load().filesystems {
		if before := f.asks(); !f.remote && before != after {
			failed = errors.Join(failed, s.adjustOne(f, before, after))
		}
	}
	s.failed.Store(&failed)
}

// adjustOne is adjust for one file system. After an error the new types are not marked. Preconditions: mu is held.
func (s *Sensor) adjustOne(f *filesystem, before, after Types) error {
	hadPerm, hadNotify := f.masks(before)
	perm, notify := f.masks(after)
	var err error
	if newPerm, newNotify := perm&^hadPerm, notify&^hadNotify; newPerm|newNotify != 0 {
		if err = s.markAgain(f, newPerm, newNotify); err != nil {
			s.unmark(f, newPerm, newNotify) // one of them may be there
			for t := range after {
				after[t] = after[t] && before[t]
			}
		}
	}
	s.unmark(f, hadPerm&^perm, hadNotify&^notify)
	f.marked.Store(&after)
	return err
}

// markAgain marks a file system that was marked before. Another one may have been mounted on its path since.
func (s *Sensor) markAgain(f *filesystem, perm, notify uint64) error {
	if !f.leads() {
		return fmt.Errorf("mark %s: another file system was mounted there", f.path)
	}
	return s.mark(f, perm, notify)
}
