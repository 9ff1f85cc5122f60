package preview

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/keepout-security/keepout/internal/fleet/fleetpb"
)

// view is a fleet and one rollout at one moment.
type view struct {
	rollout *fleetpb.Rollout // nil: the control plane has not answered
	hosts   []hostView
}

// hostView is one host at one moment.
type hostView struct {
	name     string
	ring     int    // of the rollout; -1: not known yet
	release  int    // the number of the content that its engine has loaded; 0 while it does not run
	proven   string // the release that is last-known-good
	restarts int
	cause    string // why the engine stopped last
}

// look asks the control plane and every core. What does not answer keeps what was known before.
func (f *Fleet) look(ctx context.Context, name string, before *view) *view {
	v := &view{rollout: f.Rollout(ctx, name), hosts: make([]hostView, len(f.Hosts))}
	if v.rollout == nil && before != nil {
		v.rollout = before.rollout
	}
	for i, h := range f.Hosts {
		v.hosts[i] = hostView{name: h.Name, ring: -1}
		if before != nil {
			v.hosts[i] = before.hosts[i]
		}
		if e, ok := h.engine(ctx); ok {
			v.hosts[i].release, v.hosts[i].proven = release(e.Content), e.Proven
			v.hosts[i].restarts, v.hosts[i].cause = e.Restarts, e.Cause
		}
	}
	unknown := func(h hostView) bool { return h.ring < 0 }
	if v.rollout != nil && slices.ContainsFunc(v.hosts, unknown) {
		rings, err := f.rings(ctx, name)
		for i := range v.hosts {
			if ring, ok := rings[v.hosts[i].name]; ok && err == nil {
				v.hosts[i].ring = ring
			}
		}
	}
	return v
}

// all reports whether every host runs a release.
func (v *view) all(release int) bool {
	return !slices.ContainsFunc(v.hosts, func(h hostView) bool { return h.release != release })
}

// proven reports whether a release is every host's last-known-good.
func (v *view) proven(release int) bool {
	name := strconv.Itoa(release)
	return !slices.ContainsFunc(v.hosts, func(h hostView) bool { return h.proven != name })
}

// tone is how a line is meant.
type tone int

const (
	plain tone = iota
	good
	bad
)

// remark is a line about something that happened.
type remark struct {
	tone tone
	text string
}

// remarks tells what happened between two views of a rollout of a release, the oldest first. It is pure.
func remarks(was, now *view, release int) (out []remark) {
	add := func(t tone, format string, args ...any) { out = append(out, remark{t, fmt.Sprintf(format, args...)}) }
	for i, r := range now.rollout.GetRings() {
		before := ringOf(was, i)
		if before.GetWindow() == 0 && r.GetWindow() > 0 {
			add(plain, "%s opens: %d hosts", ringName(r), r.GetMembers())
		}
	}
	activated := func(a, b hostView) bool { return a.release != release && b.release == release }
	for ring, names := range byRing(was, now, activated) {
		add(plain, "%s: %s on release %d", numbered(now, ring), hostList(names), release)
	}
	for i, h := range now.hosts {
		if h.cause != "" && (h.restarts > was.hosts[i].restarts || h.cause != was.hosts[i].cause) {
			add(bad, "%s: the engine ended: %s", h.name, h.cause)
		}
	}
	for i, r := range now.rollout.GetRings() {
		if n := r.GetConfirmed(); n > ringOf(was, i).GetConfirmed() {
			add(good, "%s: %d of %d confirmed", ringName(r), n, r.GetMembers())
		}
		if n := r.GetSilent(); n > ringOf(was, i).GetSilent() {
			add(bad, "%s: %d silent", ringName(r), n)
		}
	}
	if s := now.rollout.GetStatus(); s != was.rollout.GetStatus() {
		switch s {
		case halted:
			add(bad, "HALTED: %s", now.rollout.GetReason())
		case complete:
			add(good, "complete")
		}
	}
	for _, names := range byRing(was, now, func(a, b hostView) bool {
		return b.release > 0 && b.release < release && a.release != b.release
	}) {
		add(good, "%s back on release %d", hostList(names), now.hosts[slices.IndexFunc(now.hosts,
			func(h hostView) bool { return h.name == names[0] })].release)
	}
	return out
}

// The statuses of a rollout that end it.
const (
	halted   = "halted"
	complete = "complete"
)

// byRing yields, ring after ring, the names of the hosts that changed.
func byRing(was, now *view, changed func(a, b hostView) bool) func(yield func(int, []string) bool) {
	return func(yield func(int, []string) bool) {
		for ring := -1; ring < len(now.rollout.GetRings()); ring++ {
			var names []string
			for i, h := range now.hosts {
				if h.ring == ring && changed(was.hosts[i], h) {
					names = append(names, h.name)
				}
			}
			if len(names) > 0 && !yield(ring, names) {
				return
			}
		}
	}
}

// ringOf is a ring of a view, or nil.
func ringOf(v *view, i int) *fleetpb.Ring {
	if rings := v.rollout.GetRings(); i < len(rings) {
		return rings[i]
	}
	return nil
}

func ringName(r *fleetpb.Ring) string {
	if r.GetRole() == "control" {
		return "control group"
	}
	return fmt.Sprintf("ring %d", r.GetRing())
}

func numbered(v *view, ring int) string {
	if r := ringOf(v, max(ring, 0)); ring >= 0 && r != nil {
		return ringName(r)
	}
	return "some ring"
}

// maxNames is how many hosts are named in a line.
const maxNames = 6

// hostList names a few hosts and what they do.
func hostList(names []string) string {
	more := len(names) - maxNames
	text := strings.Join(names[:min(len(names), maxNames)], ", ")
	switch {
	case more > 0:
		return fmt.Sprintf("%s and %d more are", text, more)
	case len(names) == 1:
		return text + " is"
	}
	return text + " are"
}
