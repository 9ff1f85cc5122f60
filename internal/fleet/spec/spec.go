// Package spec is what somebody wants rolled out: as JSON in the store, as YAML in files, and in the API's words.
//
// It guarantees that a spec which passes Check has every field within its bounds.
package spec

import (
	"fmt"
	"regexp"

	"github.com/keepout-security/keepout/internal/fleet/fleetpb"
	"github.com/keepout-security/keepout/internal/rollout"
)

// Spec is what somebody wants rolled out. It is stored as JSON, and read from files as YAML.
type Spec struct {
	Name      string            `json:"name" yaml:"name"`
	Provider  string            `json:"provider" yaml:"provider"`
	Channel   string            `json:"channel" yaml:"channel"` // content or engine
	Digest    string            `json:"digest" yaml:"digest"`   // sha256: and 64 hexadecimal digits
	Counter   uint64            `json:"counter" yaml:"counter"` // the signed release counter
	Version   string            `json:"version,omitempty" yaml:"version"`
	Previous  string            `json:"previous,omitempty" yaml:"previous"` // empty: what most hosts run
	Target    map[string]string `json:"target,omitempty" yaml:"target"`     // only hosts with all these labels
	Pins      []Pin             `json:"pins,omitempty" yaml:"pins"`
	Freezes   []Freeze          `json:"freezes,omitempty" yaml:"freezes"`
	NewPath   bool              `json:"new_path,omitempty" yaml:"new_path"`
	Emergency bool              `json:"emergency,omitempty" yaml:"emergency"`
	Reason    string            `json:"reason,omitempty" yaml:"reason"`
}

// Pin says where hosts with these labels stand: first, last, never or previous.
type Pin struct {
	Labels map[string]string `json:"labels" yaml:"labels"`
	Place  string            `json:"place" yaml:"place"`
}

// Freeze is a time, RFC 3339, in which nothing is activated.
type Freeze struct {
	From   string `json:"from" yaml:"from"`
	To     string `json:"to" yaml:"to"`
	Reason string `json:"reason,omitempty" yaml:"reason"`
}

// Bounds of a spec.
const (
	maxPins    = 64
	maxFreezes = 64
	maxReason  = 1000
)

// Problem is one thing wrong with a spec, and its place in it as a path: "pins[2].place".
type Problem struct {
	Path, What string
}

// Error says both.
func (p *Problem) Error() string { return p.Path + ": " + p.What }

func patterns() (name, digest *regexp.Regexp) {
	return regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`), regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
}

// Check reports the first thing that is wrong, as a *Problem.
func (s *Spec) Check() error {
	name, digest := patterns()
	switch {
	case !name.MatchString(s.Name):
		return &Problem{"name", "1 to 64 of a-z, 0-9, dot, dash and underscore, the first a letter or a digit"}
	case !name.MatchString(s.Provider):
		return &Problem{"provider", "a provider's id"}
	case s.Channel != string(rollout.Content) && s.Channel != string(rollout.Engine):
		return &Problem{"channel", "content or engine"}
	case !digest.MatchString(s.Digest):
		return &Problem{"digest", "sha256: and 64 hexadecimal digits in lower case"}
	case s.Counter == 0:
		return &Problem{"counter", "the release counter that vendor and operator signed, at least 1"}
	case s.Previous != "" && !digest.MatchString(s.Previous):
		return &Problem{"previous", "sha256: and 64 hexadecimal digits in lower case, or nothing"}
	case s.Previous == s.Digest:
		return &Problem{"previous", "another digest than the one rolled out"}
	case s.NewPath && s.Channel != string(rollout.Content):
		return &Problem{"new_path", "it is about content; an engine is treated with that care anyway"}
	case s.Emergency && s.Reason == "":
		return &Problem{"reason", "an emergency needs a reason"}
	case len(s.Reason) > maxReason || len(s.Version) > 64:
		return &Problem{"reason", fmt.Sprintf("at most %d bytes, and 64 of a version", maxReason)}
	case len(s.Pins) > maxPins:
		return &Problem{"pins", fmt.Sprintf("at most %d", maxPins)}
	case len(s.Freezes) > maxFreezes:
		return &Problem{"freezes", fmt.Sprintf("at most %d", maxFreezes)}
	}
	return s.checkLists()
}

func (s *Spec) checkLists() error {
	for i, p := range s.Pins {
		switch rollout.Pin(p.Place) {
		case rollout.First, rollout.Last, rollout.Never, rollout.Previous:
		default:
			return &Problem{fmt.Sprintf("pins[%d].place", i), "first, last, never or previous"}
		}
		if len(p.Labels) == 0 {
			return &Problem{fmt.Sprintf("pins[%d].labels", i), "a pin without labels would hold every host"}
		}
	}
	_, err := windows(s.Freezes)
	return err
}

// Customer is what the freezes mean for one customer. Check has passed.
func (s *Spec) Customer(id string) rollout.Customer {
	freeze, _ := windows(s.Freezes)
	return rollout.Customer{ID: id, Freeze: freeze}
}

// FromPB reads a request's spec.
func FromPB(m *fleetpb.RolloutSpec) Spec {
	r := m.GetRelease()
	s := Spec{
		Name: m.GetName(), Provider: r.GetProvider(), Channel: Channel(r.GetChannel()), Digest: r.GetDigest(),
		Counter: r.GetCounter(), Version: r.GetVersion(), Previous: m.GetPrevious(), Target: m.GetTarget(),
		NewPath: m.GetNewPath(), Emergency: m.GetEmergency(), Reason: m.GetReason(),
	}
	for _, p := range m.GetPins() {
		s.Pins = append(s.Pins, Pin{Labels: p.GetLabels(), Place: p.GetPlace()})
	}
	for _, f := range m.GetFreezes() {
		s.Freezes = append(s.Freezes, Freeze{From: f.GetFrom(), To: f.GetTo(), Reason: f.GetReason()})
	}
	return s
}

// PB is the spec as a request has it.
func (s *Spec) PB() *fleetpb.RolloutSpec {
	out := &fleetpb.RolloutSpec{
		Name: s.Name, Previous: s.Previous, Target: s.Target, NewPath: s.NewPath, Emergency: s.Emergency, Reason: s.Reason,
		Release: &fleetpb.Release{
			Provider: s.Provider, Channel: ChannelPB(s.Channel), Digest: s.Digest, Counter: s.Counter, Version: s.Version,
		},
	}
	for _, p := range s.Pins {
		out.Pins = append(out.Pins, &fleetpb.Pin{Labels: p.Labels, Place: p.Place})
	}
	for _, f := range s.Freezes {
		out.Freezes = append(out.Freezes, &fleetpb.Freeze{From: f.From, To: f.To, Reason: f.Reason})
	}
	return out
}

// Channel is the name of the API's channel, "" for none.
func Channel(c fleetpb.Channel) string {
	switch c {
	case fleetpb.Channel_CHANNEL_CONTENT:
		return string(rollout.Content)
	case fleetpb.Channel_CHANNEL_ENGINE:
		return string(rollout.Engine)
	default:
		return ""
	}
}

// ChannelPB is the opposite of Channel.
func ChannelPB(c string) fleetpb.Channel {
	switch c {
	case string(rollout.Content):
		return fleetpb.Channel_CHANNEL_CONTENT
	case string(rollout.Engine):
		return fleetpb.Channel_CHANNEL_ENGINE
	default:
		return fleetpb.Channel_CHANNEL_UNSPECIFIED
	}
}
