package conductor

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/keepout-security/keepout/internal/fleet/identity"
	"github.com/keepout-security/keepout/internal/fleet/spec"
	"github.com/keepout-security/keepout/internal/fleet/store"
	"github.com/keepout-security/keepout/internal/health"
	"github.com/keepout-security/keepout/internal/rollout"
)

// The codes of refusals.
const (
	CodeNotFound   = "KO-2209" // no such rollout
	CodeStatus     = "KO-2210" // not in this status
	CodeSamePerson = "KO-2211" // a second person must
	CodeName       = "KO-2212" // an open rollout has this name
	CodeSpec       = "KO-2208" // the spec makes no rollout
)

// maxKnown bounds the signatures that a rollout takes along.
const maxKnown = 10_000

// Refusal is the answer to a person: the request is understood and not done.
type Refusal struct{ Problem health.Problem }

// Error is the problem's.
func (r *Refusal) Error() string { return r.Problem.Error() }

func refuse(code, next, what string, args ...any) error {
	return &Refusal{health.Problem{Code: code, Title: fmt.Sprintf(what, args...), Severity: health.Failure, Fix: next}}
}

// Rollout is one rollout as people see it.
type Rollout struct {
	Record store.Rollout
	Spec   spec.Spec
	View   rollout.Explanation
	Epoch  uint64
}

func (l *live) seen() Rollout {
	return Rollout{Record: l.rec, Spec: l.want, View: l.state.Explain(), Epoch: l.state.Epoch}
}

// Plan is what a rollout would do.
type Plan struct {
	Rings    []rollout.RingPlan
	Hosts    int // that it is for
	People   int
	Schedule string
	Previous string
	Existing string // an open rollout with this name
}

// Plan says what Create would do, and does nothing.
func (c *Conductor) Plan(ctx context.Context, want spec.Spec) (Plan, error) {
	return ask(ctx, c, func(t *turn) (Plan, error) {
		s, hosts, err := t.draw(&want, "plan", "somebody")
		if err != nil {
			return Plan{}, err
		}
		return Plan{
			Rings: s.Plan.Rings, Hosts: hosts, People: s.Spec.Approvals(), Schedule: s.Spec.Schedule(),
			Previous: string(s.Spec.Previous), Existing: c.named(want.Name),
		}, nil
	})
}

// named returns the id of the open rollout with this name, or "".
func (c *Conductor) named(name string) string {
	for _, l := range c.live {
		if l.rec.Name == name && l.state.Status != rollout.Stopped && l.state.Status != rollout.Complete {
			return l.rec.ID
		}
	}
	return ""
}

// draw makes the state that a rollout begins with.
func (t *turn) draw(want *spec.Spec, id, by string) (s rollout.State, hosts int, err error) {
	if err := want.Check(); err != nil {
		return s, 0, refuse(CodeSpec, "correct it", "%v", err)
	}
	part := Part{want.Provider, rollout.Channel(want.Channel)}
	var list []rollout.Host
	runs := map[string]int{}
	for h := range t.c.opt.Hosts() {
		if eligible(&h, part, want.Target) {
			list = append(list, hostFor(h, want.Pins, t.c.holds))
			runs[h.Active[part]]++
		}
	}
	if len(list) == 0 {
		return s, 0, refuse(CodeSpec, "keepout fleet hosts lists what hosts run",
			"no host with these labels has the %s of %s",
			want.Channel, want.Provider)
	}
	previous := want.Previous
	if previous == "" {
		previous = most(runs, want.Digest)
	}
	if previous == "" {
		return s, 0, refuse(CodeSpec, "nothing is left to do", "every host runs this digest already")
	}
	known, err := t.tx.Signatures(want.Provider, want.Digest, maxKnown)
	if err != nil {
		return s, 0, err
	}
	seed := make([]byte, 32)
	_, _ = rand.Read(seed) // it never fails
	full := rolloutSpec(want, id, by, previous, seed, known)
	numbers, err := t.c.opt.Schedule(full.Schedule())
	if err != nil {
		return s, 0, err
	}
	plan, err := rollout.Draw(seed, numbers, slices.Values(list))
	if err != nil {
		return s, 0, refuse(CodeSpec, "correct target or pins", "%v", err)
	}
	s, err = rollout.New(full, numbers, plan)
	if err != nil {
		return s, 0, refuse(CodeSpec, "correct it", "%v", err)
	}
	return s, len(list), nil
}

// most returns the digest that most hosts run, apart from the new one.
func most(runs map[string]int, digest string) (best string) {
	for _, d := range slices.Sorted(maps.Keys(runs)) {
		if d != digest && (best == "" || runs[d] > runs[best]) {
			best = d
		}
	}
	return best
}

// Create makes a rollout. It starts at once where one person is enough.
func (c *Conductor) Create(ctx context.Context, want spec.Spec, by string) (Rollout, error) {
	return ask(ctx, c, func(t *turn) (r Rollout, err error) {
		if id := c.named(want.Name); id != "" {
			return r, refuse(CodeName, "choose another name, or end that one",
				"rollout %s has the name %q and is open", id, want.Name)
		}
		id := identity.NewID("r-")
		state, hosts, err := t.draw(&want, id, by)
		if err != nil {
			return r, err
		}
		text, err := json.Marshal(want)
		if err != nil {
			return r, fmt.Errorf("spec: %w", err)
		}
		l := &live{want: want, state: state, rec: store.Rollout{
			ID: id, Name: want.Name, Spec: text, CreatedBy: by, Created: t.now,
			Approvals: []store.Approval{{Person: by, At: t.now, Reason: want.Reason}},
		}}
		c.live = append([]*live{l}, c.live...)
		err = t.note(by, "rollout.create", id, map[string]any{"spec": want, "hosts": hosts, "people": state.Spec.Approvals()})
		if err != nil {
			return r, err
		}
		if err := t.takeLead(l); err != nil {
			return r, err
		}
		return l.seen(), nil
	})
}

// takeLead gives a new rollout the present epoch and its freezes, and lets it start if one person is enough.
func (t *turn) takeLead(l *live) error {
	text, err := t.tx.Meta(epochKey)
	if err != nil {
		return err
	}
	var epoch uint64
	if _, err := fmt.Sscan(text, &epoch); err != nil {
		return fmt.Errorf("the epoch in the store: %w", err)
	}
	inputs := []*rollout.Input{}
	if len(l.want.Freezes) > 0 {
		inputs = append(inputs, &rollout.Input{Kind: rollout.SetCustomer, Customer: l.want.Customer("")})
	}
	inputs = append(inputs, &rollout.Input{Kind: rollout.TakeOver, Epoch: epoch}, &rollout.Input{Kind: rollout.Tick})
	for _, in := range inputs {
		if _, err := t.step(l, in); err != nil {
			return err
		}
	}
	return nil
}

// Verb is what a person can do to a rollout.
type Verb string

// The verbs.
const (
	Approve Verb = "approve"
	Pause   Verb = "pause"
	Resume  Verb = "resume"
	Halt    Verb = "halt"
)

// Do applies a verb. The id may be a name: then it is the newest with that name.
func (c *Conductor) Do(ctx context.Context, verb Verb, id, by, reason string) (Rollout, error) {
	return ask(ctx, c, func(t *turn) (Rollout, error) {
		l := c.find(id)
		if x := c.tornBy(id); l == nil && x != nil {
			return Rollout{}, refuse(CodeTorn, "make a new rollout; docs/errors.md says what else",
				"rollout %s is halted: %s", x.rec.ID, x.why)
		}
		if l == nil {
			return Rollout{}, refuse(CodeNotFound, "keepout rollout status lists them",
				"no rollout %q that hosts still hear of", id)
		}
		if err := t.apply(l, verb, by, reason); err != nil {
			return Rollout{}, err
		}
		return l.seen(), t.note(by, "person."+string(verb), l.rec.ID, map[string]any{"reason": reason})
	})
}

// apply gives a rollout a person's word, or says why it cannot be given.
func (t *turn) apply(l *live, verb Verb, by, reason string) error {
	in := &rollout.Input{By: by, Reason: reason}
	switch verb {
	case Approve:
		in.Kind = rollout.Approve
		if slices.ContainsFunc(l.rec.Approvals, func(a store.Approval) bool { return a.Person == by }) {
			return refuse(CodeSamePerson, "ask somebody else to approve it", "%s has approved already: a second person must", by)
		}
	case Pause:
		in.Kind = rollout.Pause
	case Resume:
		in.Kind = rollout.Resume
	case Halt:
		in.Kind = rollout.Halt
		if l.state.Status == rollout.Stopped {
			return refuse(CodeStatus, "keepout rollout explain says why", "it is halted already")
		}
	}
	e, err := t.step(l, in)
	if err != nil {
		return err
	}
	if i := slices.IndexFunc(e.Acts, func(a rollout.Act) bool { return a.Kind == rollout.Refused }); i >= 0 {
		return refuse(CodeStatus, "keepout rollout status shows it", "%s", e.Acts[i].Text)
	}
	if verb == Approve {
		l.rec.Approvals = append(l.rec.Approvals, store.Approval{Person: by, At: t.now, Reason: reason})
	}
	return nil
}

func (c *Conductor) find(id string) *live {
	var best *live
	for _, l := range c.live {
		if l.rec.ID == id {
			return l
		}
		if l.rec.Name == id && (best == nil || l.rec.Created.After(best.rec.Created)) {
			best = l
		}
	}
	return best
}

// Get returns one rollout, by id or name.
func (c *Conductor) Get(ctx context.Context, id string) (r Rollout, err error) {
	all, err := c.List(ctx)
	if err != nil {
		return r, err
	}
	for i := range all {
		if all[i].Record.ID == id {
			return all[i], nil
		}
	}
	for i := range all { // the newest first
		if all[i].Record.Name == id {
			return all[i], nil
		}
	}
	return r, refuse(CodeNotFound, "keepout rollout status lists them", "no rollout %q", id)
}

// List returns the rollouts as they are stored, the newest first.
func (c *Conductor) List(ctx context.Context) (list []Rollout, err error) {
	var all []store.Rollout
	err = c.opt.Store.View(ctx, func(r store.Reader) error {
		all, err = r.Rollouts(keptStopped)
		return err
	})
	if err != nil {
		return nil, err
	}
	for i := range all {
		l, err := revive(all[i])
		var bad *tornError
		if errors.As(err, &bad) {
			list = append(list, seenTorn(&all[i], bad.why))
			continue
		}
		list = append(list, l.seen())
	}
	return list, nil
}

// Where says where one host stands in a rollout, in words.
func (c *Conductor) Where(ctx context.Context, id, host string) ([]string, error) {
	r, err := c.Get(ctx, id)
	if err != nil {
		return nil, err
	}
	h, ok := c.opt.Lookup(host)
	if !ok {
		return nil, refuse(CodeNotFound, "keepout fleet hosts lists them", "no active host %q", host)
	}
	part := Part{r.Spec.Provider, rollout.Channel(r.Spec.Channel)}
	if !eligible(&h, part, r.Spec.Target) {
		return []string{"the rollout is not for this host: it lacks the target's labels, or has no such provider"}, nil
	}
	var row rollout.Row
	err = c.opt.Store.View(ctx, func(read store.Reader) error {
		stored, err := read.Row(r.Record.ID, host)
		if err != nil {
			return err
		}
		return json.Unmarshal(stored.Data, &row)
	})
	if errors.Is(err, store.ErrNotFound) {
		return []string{"the host was not heard of since the rollout was created"}, nil
	}
	if err != nil {
		return nil, err
	}
	holds, err := c.Holds(ctx)
	if err != nil {
		return nil, err
	}
	return append(story(&r, &h, &row, holds), heldStory(holds, &h)...), nil
}

// heldStory tells which holds are for a host.
func heldStory(holds []Hold, h *Host) (lines []string) {
	for _, name := range heldBy(holds, h) {
		for i := range holds {
			if x := &holds[i]; x.Spec.Name == name {
				lines = append(lines, fmt.Sprintf("the hold %s of %s is for it: %s", name, x.Record.SetBy, x.Spec.Reason))
			}
		}
	}
	return lines
}

// story tells how far one host is.
func story(r *Rollout, h *Host, row *rollout.Row, holds []Hold) []string {
	phases := map[rollout.Phase]string{
		rollout.Pending: "was not granted", rollout.Activating: "was granted and has not said that it runs it",
		rollout.Soaking: "runs it and soaks", rollout.Confirmed: "ran it well for the soak: confirmed",
		rollout.WentBack: "ran it and went back: it waits for the next release",
		rollout.Foreign:  "runs it without a grant",
		rollout.Ahead:    "took a newer release",
	}
	lines := []string{fmt.Sprintf("host %s is in ring %d of %d and %s", h.ID, row.Ring, len(r.View.Rings)-1,
		phases[row.Phase])}
	if row.Silent {
		lines = append(lines, "it is silent: not heard of for several check-ins")
	}
	if row.Phase == rollout.Pending {
		open := -1
		for i := range r.View.Rings {
			if r.View.Rings[i].W > 0 {
				open = i
			}
		}
		if row.Ring > open {
			lines = append(lines, fmt.Sprintf("ring %d is not open: the highest open one is %d", row.Ring, open))
		}
	}
	if pin := hostFor(*h, r.Spec.Pins, holds).Pin; pin != rollout.Unpinned {
		lines = append(lines, "its labels pin it: "+string(pin))
	}
	return append(lines, fmt.Sprintf("last heard of %s into the rollout", row.Seen.Round(time.Second)))
}

// rolloutSpec is a spec in the words of internal/rollout.
func rolloutSpec(s *spec.Spec, id, by, previous string, seed []byte, known []string) rollout.Spec {
	return rollout.Spec{
		ID: id, Provider: s.Provider, Channel: rollout.Channel(s.Channel), Digest: rollout.Digest(s.Digest),
		Previous: rollout.Digest(previous), Release: s.Counter, NewPath: s.NewPath, Emergency: s.Emergency,
		Reason: s.Reason, By: by, Seed: seed, Known: known,
	}
}
