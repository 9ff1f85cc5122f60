package boot

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Mode is a rung of the ladder: how a boot runs.
type Mode string

// The modes, from the lowest rung.
const (
	Normal        Mode = "normal"   // as configured
	LastKnownGood Mode = "lkg"      // every provider on its last-known-good engine and content
	Safe          Mode = "safe"     // no third-party provider, the sensor fails open
	Recovery      Mode = "recovery" // the recovery environment
	Menu          Mode = "menu"     // nothing more is tried by itself: a person decides
)

// Modes lists the modes from the lowest rung.
func Modes() []Mode { return []Mode{Normal, LastKnownGood, Safe, Recovery, Menu} }

func (m Mode) rank() int { return slices.Index(Modes(), m) }

// Valid reports whether m is one of the modes.
func (m Mode) Valid() bool { return m.rank() >= 0 }

// Numbers of the ladder.
const (
	// MaxTries is how many boots there are from the lowest rung to the recovery environment. It is what a boot
	// loader's counter is set to.
	MaxTries = 3
	// MaxRecoveries is how often the recovery environment may try before only the menu is left.
	MaxRecoveries = 2
	// MaxTrials is how often a rung below the one that was good is tried again, one boot each.
	MaxTrials = 2
	// MaxBoots bounds the boots from any state to the menu when each of them fails, those into the recovery
	// environment included.
	MaxBoots = 16

	maxSent = 2 // times the loader may ignore that the recovery environment is wanted
)

// Bounds of what is kept.
const (
	MaxText    = 96 // bytes of a name or a reason
	MaxNamed   = 16 // providers that an order names
	maxHistory = 8
)

// State is what is known of the boots of one machine. The zero value is not valid; New makes one.
type State struct {
	// Boot is the boot that has begun and is neither good nor ended in order; empty: none. It is the kernel's
	// /proc/sys/kernel/random/boot_id.
	Boot string `json:"boot,omitempty"`
	// Mode is how that boot runs, or the last one did.
	Mode Mode `json:"mode"`
	// Next is the rung of that boot, and of the next one if this one does not fail.
	Next Mode `json:"next"`
	// Once replaces Next for one boot; a person chose it.
	Once Mode `json:"once,omitempty"`
	// Failures counts boots since the last good one that failed.
	Failures int `json:"failures,omitempty"`
	// Recoveries counts visits to the recovery environment since the last good boot.
	Recoveries int `json:"recoveries,omitempty"`
	// Visit is the boot of the recovery environment that was counted last.
	Visit string `json:"visit,omitempty"`
	// Sent counts requests for the recovery environment that did not lead there.
	Sent int `json:"sent,omitempty"`
	// Floor is the rung on which the last good boot ran; while that is not Normal, the rung below is tried again.
	Floor Mode `json:"floor"`
	// Trial says that Next is such a try, and Trials how many of them failed.
	Trial  bool `json:"trial,omitempty"`
	Trials int  `json:"trials,omitempty"`
	// Suspect is what was being started when the last boot failed that starts anything, which safe mode does not; zero
	// when that is not known, or a boot was good since.
	Suspect Crumb `json:"suspect,omitzero"`
	// Orders hold until they are taken back.
	Orders Orders `json:"orders,omitzero"`
	// History is what happened, newest last.
	History []Event `json:"history,omitempty"`
}

// Orders are what a remediation, the local rule of the recovery environment or a person wants of every boot.
type Orders struct {
	Safe          bool     `json:"safe,omitempty"`     // safe mode
	Disabled      []string `json:"disabled,omitempty"` // providers that are not started
	LastKnownGood []string `json:"lkg,omitempty"`      // providers that run their last-known-good versions
	Source        string   `json:"source,omitempty"`   // who wanted it, such as a remediation's id
	Reason        string   `json:"reason,omitempty"`
}

// None reports whether nothing is ordered.
func (o Orders) None() bool { return !o.Safe && len(o.Disabled) == 0 && len(o.LastKnownGood) == 0 }

// with adds the orders of o2, whose source and reason replace those of o.
func (o Orders) with(o2 Orders) Orders {
	out := Orders{Safe: o.Safe || o2.Safe, Source: o.Source, Reason: o.Reason}
	out.Disabled = union(o.Disabled, o2.Disabled)
	out.LastKnownGood = union(o.LastKnownGood, o2.LastKnownGood)
	if !o2.None() {
		out.Source, out.Reason = cut(o2.Source), cut(o2.Reason)
	}
	return out
}

// union is bounded: what does not fit is left out, the older names stay.
func union(a, b []string) []string {
	out := slices.Clone(a)
	for _, name := range b {
		if name = cut(name); name != "" && !slices.Contains(out, name) && len(out) < MaxNamed {
			out = append(out, name)
		}
	}
	return out
}

// Remedy is what a fix wants, once it was verified.
type Remedy struct {
	Orders  Orders    // from now on
	Unset   bool      // safe mode is taken back, before Orders hold
	Restore []Restore // at once
	Later   bool      // nothing of it can be done now; it may be at a later start
	Lost    string    // what of the memory of earlier fixes was found damaged, for people; the fix holds all the same
}

// Restore names a file of Keepout's own trees and the content that it gets.
type Restore struct{ Path, SHA256 string }

// unsetSafe takes safe mode back, and lets the lower rungs be tried again as after a release. Other orders stay.
func (s *State) unsetSafe() {
	s.Orders.Safe, s.Trials = false, 0
	if s.Orders.None() {
		s.Orders = Orders{}
	}
}

// Crumb says what was being started. The core leaves one before each start of a provider, so that whoever comes after
// a crash of the machine can read what was last.
type Crumb struct {
	Boot     string `json:"boot,omitempty"`
	Provider string `json:"provider,omitempty"`
	Engine   string `json:"engine,omitempty"`  // version, or the beginning of its digest
	Content  string `json:"content,omitempty"` // the same
	Ready    bool   `json:"ready,omitempty"`   // it had come up and voted
}

func (c Crumb) bound() Crumb {
	c.Boot, c.Provider, c.Engine, c.Content = cut(c.Boot), cut(c.Provider), cut(c.Engine), cut(c.Content)
	// So that a crumb fits into one sector.
	c.Boot, c.Provider = c.Boot[:min(len(c.Boot), 40)], c.Provider[:min(len(c.Provider), 64)]
	return c
}

// String names the provider and its versions, or is empty.
func (c Crumb) String() string {
	text := c.Provider
	if text != "" && c.Engine != "" {
		text += " " + c.Engine
	}
	if text != "" && c.Content != "" {
		text += ", content " + c.Content
	}
	return text
}

// What an event says.
const (
	Failed   = "failed"    // a boot ended neither good nor in order
	Passed   = "good"      // a boot was good
	Ended    = "shut-down" // a boot ended in order before it was good
	Visited  = "recovery"  // the recovery environment began
	Fixed    = "remedied"  // it changed something
	Unfixed  = "not-fixed" // a fix that was left for this boot was refused, or waits for a later one
	Stopped  = "menu"      // nothing more is tried
	Chosen   = "chosen"    // a person chose how to go on
	Released = "released"  // a person or a remediation took orders and caution back
	Reset    = "reset"     // the state could not be read and was begun anew
)

// Event is one entry of the history.
type Event struct {
	At   time.Time `json:"at,omitzero"` // by the machine's clock, which may be wrong at boot
	What string    `json:"what"`
	Boot string    `json:"boot,omitempty"`
	Mode Mode      `json:"mode,omitempty"`
	Why  string    `json:"why,omitempty"`
}

// New returns the state of a machine of which nothing is known: it boots as configured.
func New() State { return State{Mode: Normal, Next: Normal, Floor: Normal} }

// Attempt is the number of the boot that runs, or of the last one: 1 when the boot before it was good.
func (s *State) Attempt() int { return s.Failures + 1 }

// Tries is how many boots a boot loader's counter may let fail, from the next one on, before it starts the recovery
// environment; 0 when that or the menu is next.
func (s *State) Tries() int {
	sim := *s
	n := 0
	for sim.rung().rank() < Recovery.rank() && n < MaxTries {
		n++
		sim.climb()
	}
	return n
}

// rung is the mode of the next boot.
func (s *State) rung() Mode {
	if s.Once != "" {
		return s.Once
	}
	if s.Orders.Safe && s.Next.rank() < Safe.rank() {
		return Safe
	}
	return s.Next
}

// climb goes one rung higher.
func (s *State) climb() {
	s.Failures = min(s.Failures+1, maxCount)
	switch {
	case s.Once != "":
		s.Once = ""
	case s.Trial:
		s.Trial, s.Next = false, s.Floor
		s.Trials = min(s.Trials+1, MaxTrials)
	default:
		s.Next = above(s.rung(), s.Recoveries > 0)
	}
}

// above is the rung after m. What last-known-good content can do was tried before the first visit to the recovery
// environment; after one, that rung is left out.
func above(m Mode, visited bool) Mode {
	switch {
	case m == Normal && !visited:
		return LastKnownGood
	case m == Normal || m == LastKnownGood:
		return Safe
	case m == Menu:
		return Menu
	default:
		return Recovery
	}
}

// below is the rung before m.
func below(m Mode) Mode {
	if m == Safe {
		return LastKnownGood
	}
	return Normal
}

// maxCount bounds counters, so that a state stays one that Check accepts.
const maxCount = 1_000_000

// Check reports what no step could have made: for a state that was read from a disk.
func (s *State) Check() error {
	for _, m := range []Mode{s.Mode, s.Next, s.Floor} {
		if !m.Valid() {
			return fmt.Errorf("%q is no mode", m)
		}
	}
	if s.Once != "" && s.Once.rank() > Safe.rank() || s.Once != "" && !s.Once.Valid() || s.Floor.rank() > Safe.rank() {
		return errors.New("a mode is out of place")
	}
	for _, n := range []int{s.Failures, s.Recoveries, s.Sent, s.Trials} {
		if n < 0 || n > maxCount {
			return errors.New("a number is out of range")
		}
	}
	if len(s.Orders.Disabled) > MaxNamed || len(s.Orders.LastKnownGood) > MaxNamed || len(s.History) > maxHistory {
		return errors.New("a list is too long")
	}
	texts := []string{s.Boot, s.Visit, s.Orders.Source, s.Orders.Reason}
	texts = append(texts, s.Suspect.Boot, s.Suspect.Provider, s.Suspect.Engine, s.Suspect.Content)
	texts = slices.Concat(texts, s.Orders.Disabled, s.Orders.LastKnownGood)
	for _, e := range s.History {
		texts = append(texts, e.What, e.Boot, string(e.Mode), e.Why)
	}
	for _, text := range texts {
		if text != cut(text) {
			return errors.New("a text is too long or not plain")
		}
	}
	return nil
}

// cut makes a text from outside fit to be kept: bounded, and without what an encoding would have to escape.
func cut(text string) string {
	text = plain(text)
	return text[:min(len(text), MaxText)]
}

// cutWithin is cut of a reason that names something in its middle: it keeps the code that it begins with, and the cause
// that it ends with.
func cutWithin(text string) string {
	const gap, end = "...", 61 // bytes; the system's longest cause and what was tried fit
	if text = plain(text); len(text) <= MaxText {
		return text
	}
	return text[:MaxText-len(gap)-end] + gap + text[len(text)-end:]
}

func plain(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' || strings.ContainsRune(`"\<>&`, r) {
			return -1
		}
		return r
	}, text)
}
