package roster

import (
	"fmt"
	"slices"

	"github.com/keepout-security/keepout/internal/journal"
	"github.com/keepout-security/keepout/internal/rollback"
)

// Offer makes a version that is in the store a candidate of a provider, and lets go of the import. Whoever offers has
// verified it; what becomes of it is told by the store's state.
func (r *Roster) Offer(id string, part rollback.Part, v rollback.Version) error {
	of, err := r.find(id)
	if err != nil {
		r.c.Store.Release(v.Digest)
		return err
	}
	of.mail.put(func() {
		defer r.c.Store.Release(v.Digest) // it is in a slot by now, or not wanted
		if of.stopping || of.caution.any() {
			return // nothing new while the machine has trouble starting
		}
		in := rollback.Input{Kind: rollback.Offered, Part: part, Version: v}
		if of.state.Slots(part).Active.None() {
			in.Kind = rollback.Installed
		}
		of.step(in)
	})
	return nil
}

// settled reports whether what the configuration names is no candidate any more: this provider is kept up to date by
// packages, and the files in the configuration are only what it began with.
func (l *lineage) settled(part rollback.Part) bool {
	return l.r.updates().Trust != "" && !l.state.Slots(part).Active.None()
}

// Withdraw takes an offer back: a candidate that is on trial is ended, and one that waits is forgotten. What is active
// stays. A digest that is no candidate changes nothing.
func (r *Roster) Withdraw(id string, part rollback.Part, d rollback.Digest, cause string) error {
	of, err := r.find(id)
	if err != nil {
		return err
	}
	of.mail.put(func() {
		was := of.state.Slots(part).Candidate
		if was.Digest != d || d == "" {
			return
		}
		of.step(rollback.Input{Kind: rollback.Withdrawn, Part: part, Digest: d})
		of.mu.Lock()
		looking := of.trial
		of.mu.Unlock()
		if looking != nil && of.state.Trial.Digest == "" {
			looking.cancel() // its throw-away cage, too
		}
		r.c.Notes.Note(journal.Note{
			Provider: id, Code: "version.withdrawn", Title: "A candidate was withdrawn", Severity: journal.Medium,
			Detail: fmt.Sprintf("%s %s %s: %s", id, part, was, cause),
		})
	})
	return nil
}

// RollBack goes back to the version before: of a part, or of what changed last where that is "".
func (r *Roster) RollBack(id string, part rollback.Part, cause string) error {
	return r.back(id, rollback.Input{Kind: rollback.RollBackNow, Part: part, Cause: cause}, func() {})
}

// RollBackTo goes back to a certain version of a part, or to the one before where that is none. One that is in no
// slot was imported into the store, and verified, by the caller; the import is let go of.
func (r *Roster) RollBackTo(id string, part rollback.Part, to rollback.Version, cause string) error {
	in := rollback.Input{Kind: rollback.RollBackNow, Part: part, Version: to, Cause: cause}
	st, _ := r.c.Store.State(id)
	if slices.Contains(st.Digests(), to.Digest) {
		return r.back(id, in, func() {})
	}
	return r.back(id, in, func() { r.c.Store.Release(to.Digest) })
}

func (r *Roster) back(id string, in rollback.Input, done func()) error {
	of, err := r.find(id)
	if err == nil && !of.would(in, rollback.RollBack) {
		err = fmt.Errorf("%w: %s has nothing to go back to", ErrUnknown, id)
	}
	if err != nil {
		done()
		return err
	}
	of.mail.put(func() {
		defer done()
		of.step(in)
	})
	return nil
}
