package rollback

import (
	"errors"
	"fmt"
	"time"

	"github.com/keepout-security/keepout/internal/health"
)

// Codes of the problems that this package reports; docs/errors.md explains them.
const (
	CodeLost        = "KO-1703" // a version is missing or damaged on the disk
	CodeRolledBack  = "KO-1704"
	CodeQuarantined = "KO-1705"
	CodeRefused     = "KO-1706"
	CodeNoTarget    = "KO-1707" // an operator asked for a rollback, and there is nothing to go back to
)

// Part is what changes separately: a provider's engine or its content.
type Part string

// The parts.
const (
	Engine  Part = "engine"
	Content Part = "content"
)

// Parts returns both, engine first.
func Parts() [2]Part { return [2]Part{Engine, Content} }

// Digest names a package: 64 lower-case hex digits. "" is none.
type Digest string

// Valid reports whether the digest is well-formed.
func (d Digest) Valid() bool {
	if len(d) != 64 {
		return false
	}
	for _, c := range []byte(d) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// Short is enough of it for people.
func (d Digest) Short() string { return string(d[:min(12, len(d))]) }

// Version is one package in a slot. The zero value is none.
type Version struct {
	Digest Digest    `json:"digest,omitempty"`
	Label  string    `json:"label,omitempty"`  // its version, as its maker says
	Origin string    `json:"origin,omitempty"` // where it came from, for people
	Since  time.Time `json:"since,omitzero"`   // when it came into its slot, by the wall clock
}

// None reports whether there is no version.
func (v Version) None() bool { return v.Digest == "" }

// String is the label, or the beginning of the digest.
func (v Version) String() string {
	switch {
	case v.Label != "":
		return v.Label
	case v.None():
		return "none"
	}
	return v.Digest.Short()
}

// Versions are what came with the installation, one for each part; Content may be none.
type Versions struct{ Engine, Content Version }

// Slots is one part of a provider.
type Slots struct {
	Candidate Version `json:"candidate,omitzero"` // on trial, or waiting for it
	Active    Version `json:"active,omitzero"`
	LKG       Version `json:"lkg,omitzero"`     // last-known-good
	Factory   Version `json:"factory,omitzero"` // came with the installation
	// Former was active before what was promoted last. It need not be proven: only an order goes back to it, and only
	// while nothing is refused about it. It is there for what turns out to be bad when it is last-known-good itself.
	Former Version `json:"former,omitzero"`

	Attempts int           `json:"attempts,omitempty"` // trials of Candidate begun and not concluded
	Changed  uint64        `json:"changed,omitempty"`  // the State's generation in which Active was promoted; else 0
	Soaked   time.Duration `json:"soaked,omitempty"`   // how long Active has served without trouble
	Missing  bool          `json:"missing,omitempty"`  // Active was lost, and there was nothing to take its place
	Refused  []Refusal     `json:"refused,omitempty"`
}

// Refusal is a digest that is not tried again.
type Refusal struct {
	Version Version   `json:"version"`
	Cause   string    `json:"cause"`
	At      time.Time `json:"at"`
}

// Refusal returns why a digest is refused.
func (s *Slots) Refusal(d Digest) (Refusal, bool) {
	for _, r := range s.Refused {
		if r.Version.Digest == d {
			return r, true
		}
	}
	return Refusal{}, false
}

// Target returns what a rollback would go to: the last-known-good, else what came with the installation; never
// what is active already or was refused.
func (s *Slots) Target() Version {
	for _, v := range []Version{s.LKG, s.Factory} {
		if _, refused := s.Refusal(v.Digest); !v.None() && !refused && v.Digest != s.Active.Digest {
			return v
		}
	}
	return Version{}
}

// Goal returns what an order to go back leads to: what it names, unless that is active or was refused. Where it names
// nothing, that is Target, but what was active before rather than what came with the installation.
func (s *Slots) Goal(named Version) Version {
	if named.None() {
		if named = s.Target(); !named.None() && named.Digest == s.LKG.Digest || s.Former.None() {
			return named
		}
		named = s.Former
	}
	if _, refused := s.Refusal(named.Digest); refused || named.Digest == s.Active.Digest {
		return Version{}
	}
	for _, v := range []Version{s.LKG, s.Former, s.Factory} {
		if v.Digest == named.Digest {
			return v
		}
	}
	return named
}

// Trial is what a candidate has shown so far. The zero value is no trial.
type Trial struct {
	Part      Part          `json:"part,omitempty"`
	Digest    Digest        `json:"digest,omitempty"`
	Beside    bool          `json:"beside,omitempty"`    // it was checked, and was started beside the active version
	Loaded    bool          `json:"loaded,omitempty"`    // it is ready to judge
	SelfTest  bool          `json:"self_test,omitempty"` // it has passed
	Budget    bool          `json:"budget,omitempty"`    // it answers in time
	Waived    bool          `json:"waived,omitempty"`    // an operator does not want to wait for agreement
	Samples   uint64        `json:"samples,omitempty"`
	Differing uint64        `json:"differing,omitempty"`
	Ran       time.Duration `json:"ran,omitempty"` // being checked, then beside the active version
}

// Quarantine is a provider that is not run. The zero value is none.
type Quarantine struct {
	Cause string        `json:"cause,omitempty"`
	Since time.Time     `json:"since,omitzero"`
	Until time.Duration `json:"until,omitempty"` // of State.Clock
}

// Entry is one line of a provider's history.
type Entry struct {
	At    time.Time `json:"at"`
	What  string    `json:"what"` // activated, proven, rolled-back, refused, allowed, lost, quarantined, released
	Part  Part      `json:"part,omitempty"`
	From  Version   `json:"from,omitzero"`
	To    Version   `json:"to,omitzero"`
	Cause string    `json:"cause,omitempty"`
}

// State is all that is known of one provider's versions. It is a value: Next never changes the one it is called
// on. Its JSON form is what the store keeps.
type State struct {
	Provider string  `json:"provider"`
	Engine   Slots   `json:"engine"`
	Content  Slots   `json:"content"`
	Trial    Trial   `json:"trial,omitzero"`
	History  []Entry `json:"history,omitempty"`      // newest last
	Last     Entry   `json:"last_rollback,omitzero"` // the last rollback, also when History has forgotten it

	Quarantine Quarantine    `json:"quarantine,omitzero"`
	Wait       time.Duration `json:"wait,omitempty"` // of the last quarantine

	Generation uint64          `json:"generation,omitempty"` // counts changes of what is active
	Clock      time.Duration   `json:"clock,omitempty"`      // how long the platform has run with this provider
	Seen       time.Time       `json:"seen,omitzero"`        // the time of the last input
	ChangedAt  time.Duration   `json:"changed_at,omitempty"` // of Clock, when Generation last rose
	KeptAt     time.Duration   `json:"kept_at,omitempty"`    // of Clock, when the last Keep was asked for
	Calm       time.Duration   `json:"calm,omitempty"`       // of serving without trouble
	Serving    bool            `json:"serving,omitempty"`    // as the last Tick said
	Crashes    []time.Duration `json:"crashes,omitempty"`    // of Clock, of what is active
	BreakerAt  time.Duration   `json:"breaker_at,omitempty"` // of Clock, when the breaker opened
	Breaker    bool            `json:"breaker,omitempty"`    // it is open
}

// New returns the state of a provider of which nothing is known.
func New(provider string) State { return State{Provider: provider} }

// Slots returns one part.
func (s *State) Slots(p Part) *Slots {
	if p == Engine {
		return &s.Engine
	}
	return &s.Content
}

// Runnable reports whether the active versions may be run now.
func (s *State) Runnable() bool { return s.whole() && s.Quarantine == Quarantine{} }

// whole reports whether there is something to run.
func (s *State) whole() bool { return !s.Engine.Active.None() && !s.Content.Missing }

// Digests returns every package that a slot names.
func (s *State) Digests() []Digest {
	var all []Digest
	for _, p := range Parts() {
		sl := s.Slots(p)
		for _, v := range []Version{sl.Candidate, sl.Active, sl.LKG, sl.Former, sl.Factory} {
			if !v.None() {
				all = append(all, v.Digest)
			}
		}
	}
	return all
}

// maxText bounds labels, origins and causes, in bytes.
const maxText = 1024

// Check reports what no step could have made: for a state that was read from a disk.
func (s *State) Check() error {
	if len(s.Provider) > maxText || len(s.History) > maxText || len(s.Crashes) > maxText {
		return errors.New("a list or a name is too long")
	}
	for _, p := range Parts() {
		sl := s.Slots(p)
		if len(sl.Refused) > maxText {
			return errors.New("the list of refusals is too long")
		}
		for _, v := range []Version{sl.Candidate, sl.Active, sl.LKG, sl.Former, sl.Factory} {
			if !v.None() && !v.Digest.Valid() {
				return fmt.Errorf("%s: %q is no digest", p, v.Digest)
			}
		}
		for _, v := range []Version{sl.Candidate, sl.Active, sl.LKG, sl.Former} {
			if r, refused := sl.Refusal(v.Digest); refused && !v.None() {
				return fmt.Errorf("%s: %s is in use and refused: %s", p, v, r.Cause)
			}
		}
	}
	if t := s.Trial; t != (Trial{}) && (t.Digest == "" || s.Slots(t.Part).Candidate.Digest != t.Digest) {
		return errors.New("the trial is of something else than the candidate")
	}
	return nil
}

// Problems returns what an operator should know of this provider's versions now.
func (s *State) Problems() []health.Problem {
	var out []health.Problem
	if s.Quarantine != (Quarantine{}) {
		out = append(out, s.quarantined())
	}
	if last := s.Last; last.What != "" && s.Slots(last.Part).Changed == 0 &&
		s.Slots(last.Part).Active.Digest == last.To.Digest {
		out = append(out, s.rolledBack(last))
	}
	return out
}

func (s *State) quarantined() health.Problem {
	return health.Problem{
		Code: CodeQuarantined, Severity: health.Failure, Provider: s.Provider,
		Title: fmt.Sprintf("%s is quarantined, and there is nothing to roll back: %s", s.Provider, s.Quarantine.Cause),
		Fix:   "keepout provider logs " + s.Provider + ", then install a version that works",
	}
}

func (s *State) rolledBack(e Entry) health.Problem {
	return health.Problem{
		Code: CodeRolledBack, Severity: health.Warning, Provider: s.Provider, Title: Describe(s.Provider, e),
		Fix: "keepout provider logs " + s.Provider + "; a new version replaces it, keepout provider allow tries it again",
	}
}

// Describe tells an entry in one line; a rollback as "acme-edr content 4.2→4.1: 3 crashes in 60s".
func Describe(provider string, e Entry) string {
	text := provider
	if e.Part != "" {
		text += " " + string(e.Part)
	}
	switch e.What {
	case rolledBack:
		text += fmt.Sprintf(" %s→%s", e.From, e.To)
	default:
		if !e.To.None() {
			text += " " + e.To.String()
		}
		text += " " + e.What
	}
	if e.Cause != "" {
		text += ": " + e.Cause
	}
	return text
}
