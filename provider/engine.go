package provider

import (
	"context"

	"github.com/keepout-security/keepout/event"
)

// Engine is one security engine. Vote is required; everything else has a useful zero value.
type Engine struct {
	Name    string // for people
	Version string // of the engine, for people

	// Subscription says which events the engine wants to see.
	Subscription Subscription

	// Load prepares the engine and returns the version of its content, for people. It runs before the engine
	// subscribes, so nothing is asked of an engine that is not ready, and again when the platform says that
	// the content changed; Vote may run meanwhile. After an error at the start the process exits; after a
	// later error the engine keeps what it has and reports itself degraded.
	Load func(ctx context.Context, s Settings) (content string, err error)

	// Vote answers one auth event. It is called concurrently, and must not keep ev after it returns.
	Vote func(ev *Event) Vote

	// Notify sees one notify event. It is called from one goroutine, in order.
	Notify func(ev *Event)

	// Check, if set, is called before each heartbeat; an error makes the provider degraded, with that text.
	Check func() error

	// Workers is how many votes may be worked on at one time; 0 means 4.
	Workers int
}

// defaultWorkers lets a few slow scans proceed while quick votes pass them.
const defaultWorkers = 4

// workers returns how many votes are worked on at one time.
func (e *Engine) workers() int {
	if e.Workers <= 0 {
		return defaultWorkers
	}
	return e.Workers
}

// Subscription selects events. The zero value with Events filled in selects all of those types.
type Subscription struct {
	Events  []event.Type
	Under   []string // path prefixes by whole components; empty: everything
	Except  []string // path prefixes never wanted
	MinSize uint64   // bytes, inclusive
	MaxSize uint64   // bytes, inclusive; 0: no bound
	Magic   []string // wanted first bytes of the content; empty: everything
	Content bool     // deliver a read-only descriptor of the object
	// Digest wants the content's SHA-256, which the platform computes once for all, instead of the descriptor. Vote may
	// return Read to get the descriptor after all; where there is no digest it comes at once. Both need a manifest with
	// content: descriptor; with content: digest there is never one. With Content, a platform that has no digests sends
	// descriptors instead.
	Digest  bool
	ByActor bool // the vote depends on who acts, so that it is not shared between processes
	Fresh   bool // votes are not remembered: the engine is asked about an unchanged object again
	// AnyType says that votes do not depend on the type of the event, as with an engine that only looks at the content.
	// A vote on an exec then answers later opens of the same object, too, and the other way round.
	AnyType bool
}

// Settings are what the administrator configured for this provider.
type Settings struct {
	Provider string // the id under which it runs
	Content  string // path of its content; may be empty
	StateDir string // a directory that it may write to
	Values   map[string]string
}

// Vote is an answer; make one with Allow, Deny, Suspect, Abstain or Read.
type Vote = event.Vote

// Allow has no objection.
func Allow() Vote { return Vote{Action: event.Allow, Confidence: event.Certain} }

// Deny objects, and rule says why: a signature, a rule, a list entry.
func Deny(rule string) Vote {
	return Vote{Action: event.Deny, Confidence: event.Certain, Rule: rule}
}

// Suspect objects with less than certainty, in percent from 1 to 99: it counts towards a quorum, where the
// administrator set one, and otherwise as Deny.
func Suspect(rule string, percent uint8) Vote {
	return Vote{Action: event.Deny, Confidence: min(max(percent, 1), event.Certain-1), Rule: rule}
}

// Read asks for the same event again, with the descriptor: for engines that subscribe to the digest and cannot tell by
// it. It may be given once an event, and only where Event.FD is negative.
func Read() Vote { return Vote{Action: event.Read, Confidence: event.Certain} }

// Abstain has no opinion.
func Abstain() Vote { return Vote{Confidence: event.Certain} }
