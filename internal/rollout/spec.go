package rollout

import (
	"errors"
	"fmt"
	"time"
)

// Digest names a package by its content, as "sha256:…".
type Digest string

// Channel is a line of releases of one provider. The two are rolled out separately.
type Channel string

// The channels.
const (
	Engine  Channel = "engine"
	Content Channel = "content"
)

// Names of the schedules, which differ in how long a host soaks.
const (
	Fast   = "fast"   // emergencies
	Normal = "normal" // content
	Slow   = "engine" // engines, and content of engine class
)

// Spec says what is rolled out. It does not change during a rollout.
type Spec struct {
	ID       string  `json:"id"`       // of the rollout, unique in the fleet
	Provider string  `json:"provider"` // whose release it is
	Channel  Channel `json:"channel"`
	Digest   Digest  `json:"digest"`   // the release
	Previous Digest  `json:"previous"` // what hosts run before, and go back to
	Release  uint64  `json:"release"`  // the signed release counter

	// NewPath: this content is the first to use a field or a template path of its engine. Such content runs code
	// that no content has run before, and is therefore of engine class.
	NewPath bool `json:"new_path,omitempty"`

	Emergency bool   `json:"emergency,omitempty"` // schedule Fast; two people and a reason; nothing else is skipped
	Reason    string `json:"reason,omitempty"`
	By        string `json:"by"` // who created it: the first of the people who approve

	// Seed is the key that decides who is in which ring: fresh for each rollout, at least 16 random bytes, and
	// known to nobody outside before the rollout is over.
	Seed []byte `json:"seed"`

	// Known are the signatures of crashes and boot failures that other releases had in this fleet, too. What is
	// not listed is new in this release, and two hosts are enough to stop it.
	Known []string `json:"known,omitempty"`
}

// minSeed is how many bytes of seed are hard to guess.
const minSeed = 16

// maxKnown bounds Spec.Known.
const maxKnown = 10_000

// Class returns the channel whose care the release needs: Engine for engines and for content with a NewPath.
func (s *Spec) Class() Channel {
	if s.Channel == Engine || s.NewPath {
		return Engine
	}
	return Content
}

// Schedule returns the name of the schedule.
func (s *Spec) Schedule() string {
	switch {
	case s.Emergency:
		return Fast
	case s.Class() == Engine:
		return Slow
	default:
		return Normal
	}
}

// Approvals returns how many different people must want it before ring 0 opens; who created it is one of them.
func (s *Spec) Approvals() int {
	if s.Emergency || s.Class() == Engine {
		return 2
	}
	return 1
}

// Check reports what is missing or contradicts itself.
func (s *Spec) Check() error {
	switch {
	case s.ID == "" || s.By == "":
		return errors.New("a rollout needs an id and who created it")
	case s.Channel != Engine && s.Channel != Content:
		return fmt.Errorf("channel %q is neither engine nor content", s.Channel)
	case s.Digest == "" || s.Previous == "" || s.Digest == s.Previous:
		return errors.New("a rollout needs a digest, and a different previous one to go back to")
	case s.Channel == Engine && s.NewPath:
		return errors.New("new_path is about content")
	case len(s.Seed) < minSeed:
		return fmt.Errorf("the seed has %d bytes: want %d at least", len(s.Seed), minSeed)
	case s.Emergency && s.Reason == "":
		return errors.New("an emergency needs a reason")
	case len(s.Known) > maxKnown:
		return fmt.Errorf("%d known signatures: at most %d", len(s.Known), maxKnown)
	}
	return nil
}

// Pin is a customer's word on one host, from its labels.
type Pin string

// The pins.
const (
	Unpinned Pin = ""
	First    Pin = "first"    // in ring 0
	Last     Pin = "last"     // in the last ring
	Never    Pin = "never"    // not at all
	Previous Pin = "previous" // N-1: only once a newer release is being rolled out
)

// Window is a time in which nothing is activated.
type Window struct {
	From time.Time `json:"from"`
	To   time.Time `json:"to"` // exclusive
	Note string    `json:"note,omitempty"`
}

// Customer is what one customer wants for all of its hosts. It always wins.
type Customer struct {
	ID     string   `json:"id"`
	Paused bool     `json:"paused,omitempty"` // nothing is activated; what is active still rolls back when halted
	Freeze []Window `json:"freeze,omitempty"`
	// MaxAge, unless 0, is how long after the rollout's start a pause may last before the act Aged is returned,
	// once. It never resumes anything.
	MaxAge time.Duration `json:"max_age,omitempty"`
	Aged   bool          `json:"aged,omitempty"` // the act was returned; set by Step
}

// frozen reports whether now lies in one of the windows.
func frozen(windows []Window, now time.Time) bool {
	for _, w := range windows {
		if !now.Before(w.From) && now.Before(w.To) {
			return true
		}
	}
	return false
}
