package remediation

import (
	"errors"
	"fmt"
)

// Target is what carries a plan out: in the recovery environment it writes the sealed fix down as an intent, in
// bootguard it changes the machine. Each call must be able to be repeated: a power cut may come after any of them.
type Target interface {
	DisableProvider(id string) error
	RollbackContent(id string) error
	// RestoreFile gives a file of Keepout's own trees (Trees) the content with this SHA-256, which the target looks for in
	// its own copies. It must not follow a link out of the tree.
	RestoreFile(path, sha256 string) error
	SafeMode(on bool) error
	Hold() error
	Collect() error
	// Keep makes the state durable. It comes last, so that what a power cut interrupted is begun again.
	Keep(State) error
}

// Apply carries a plan out in order, and then keeps its state. It goes on after an error, because half a fix with a
// provider disabled helps more than none, and returns all of them. The state is kept then, too: what cannot be done
// now is not done again for ever.
func Apply(p *Plan, t Target) error {
	var errs []error
	for _, a := range p.Effects {
		if err := one(a, t); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", a, err))
		}
	}
	if err := t.Keep(p.State); err != nil {
		errs = append(errs, fmt.Errorf("keep the state after fix %s: %w", p.Fix.ID, err))
	}
	return errors.Join(errs...)
}

func one(a Action, t Target) error {
	switch a.Verb {
	case DisableProvider:
		return t.DisableProvider(a.Provider)
	case RollbackContent:
		return t.RollbackContent(a.Provider)
	case RestoreFile:
		return t.RestoreFile(a.Path, a.SHA256)
	case SafeMode:
		return t.SafeMode(true)
	case UnsetSafeMode:
		return t.SafeMode(false)
	case Hold:
		return t.Hold()
	case Collect:
		return t.Collect()
	}
	return fmt.Errorf("verb %q is not known", a.Verb)
}

// String is an action as it is shown to who is about to sign it.
func (a Action) String() string {
	switch a.Verb {
	case DisableProvider, RollbackContent:
		return string(a.Verb) + " " + a.Provider
	case RestoreFile:
		return fmt.Sprintf("%s %s to SHA-256 %s", a.Verb, a.Path, a.SHA256)
	case SafeMode, UnsetSafeMode, Hold, Collect:
	}
	return string(a.Verb)
}
