package fleet

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// scope is what an enrolment token lets its host say about itself, each KEY=VALUE; a key may stand there several times,
// and the value * is any. An empty scope lets it say everything.
type scope []string

// anyValue is the value that stands for all.
const anyValue = "*"

// plainLabels say what a machine is like, and not whose it is: every host may have them.
func plainLabels() []string { return []string{"kernel", "distro", "hardware", "providers"} }

// check reports a scope that is none, or that the labels of its own token are not in.
func (s scope) check(fixed map[string]string) error {
	if len(s) > maxLabels {
		return invalid("%d entries in a scope: at most %d", len(s), maxLabels)
	}
	for _, entry := range s {
		key, value, ok := strings.Cut(entry, "=")
		if !ok || key == "" || value == "" || len(key) > maxLabel || len(value) > maxLabel {
			return invalid("scope %.40q: want KEY=VALUE or KEY=*, each of 1 to %d bytes", entry, maxLabel)
		}
		if slices.Contains(plainLabels(), key) {
			return invalid("scope %.40q: %s says what a machine is like; hosts may always say it", entry, key)
		}
	}
	for key, value := range fixed {
		if len(s) > 0 && !s.allows(key, value) {
			return invalid("the label %s=%s of the token is not in its scope", key, value)
		}
	}
	return nil
}

// allows reports whether a host may have this label.
func (s scope) allows(key, value string) bool {
	return len(s) == 0 || slices.Contains(plainLabels(), key) || slices.Contains(s, key+"="+value) ||
		slices.Contains(s, key+"="+anyValue)
}

// admits says why a host with these labels may not enrol, nil if it may: each must be in the scope, and each key
// of the scope must be among them, or a host could leave the part of the fleet that its token is for by saying nothing.
func (s scope) admits(labels map[string]string) error {
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		if !s.allows(key, labels[key]) {
			return fmt.Errorf("the token is not for hosts with the label %.60q", key+"="+labels[key])
		}
	}
	for _, entry := range s {
		key, value, _ := strings.Cut(entry, "=")
		if _, ok := labels[key]; !ok && value != anyValue {
			return fmt.Errorf("the token is only for hosts with a label %.60q: say it with keepout-fetch --labels", key)
		}
	}
	return nil
}

// narrow returns what of a check-in's labels counts. The rest is not heard: the host itself must be, whatever it says.
func (s scope) narrow(labels map[string]string) map[string]string {
	if len(s) == 0 {
		return labels
	}
	out := make(map[string]string, len(labels))
	for key, value := range labels {
		if s.allows(key, value) {
			out[key] = value
		}
	}
	return out
}

// relabelled are the labels of a host that says these now. A key that it says no more stays; what it was given wins.
// Where that would grow without end, only what it says now counts.
func relabelled(had, says, fixed map[string]string, s scope) map[string]string {
	says = s.narrow(says)
	out := merged(merged(had, says), fixed)
	if len(out) > 2*maxLabels {
		out = merged(says, fixed)
	}
	return out
}
