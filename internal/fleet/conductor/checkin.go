package conductor

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/keepout-security/keepout/internal/fleet/spec"
	"github.com/keepout-security/keepout/internal/fleet/statement"
	"github.com/keepout-security/keepout/internal/fleet/store"
	"github.com/keepout-security/keepout/internal/rollout"
)

// Said is what a host reports about one part.
type Said struct {
	Part   Part
	Report rollout.Report // without Nonce and Trying

	Candidate string // digest of what is on trial, or waits for it
	Rollout   string // the one that it asks for a grant in
	Nonce     string
}

// Order is what a host should do.
type Order struct {
	RollBack bool   // otherwise: stage
	Rollout  string // why, or in which
	Part     Part
	Digest   string
	Counter  uint64
	Version  string
	Reason   string
}

// Grant is leave to activate, with the sealed form that a host believes.
type Grant struct {
	rollout.Grant

	Sealed []byte
}

// Answer is what a host is told.
type Answer struct {
	Orders []Order
	Grants []Grant
	Wait   time.Duration // until the next check-in at the latest; 0 is no wish
}

// Idle reports whether there is no rollout that any host could hear of.
func (c *Conductor) Idle() bool {
	view := c.glance.Load()
	return view == nil || len(*view) == 0
}

// concerns reports whether any rollout may be about the host.
func (c *Conductor) concerns(h *Host) bool {
	view := c.glance.Load()
	return view != nil && slices.ContainsFunc(*view, func(g glance) bool { return eligible(h, g.part, g.target) })
}

// eligible reports whether a host is one that a rollout is for: it has the part, and the labels.
func eligible(h *Host, part Part, target map[string]string) bool {
	if _, has := h.Active[part]; !has {
		return false
	}
	return fits(h.Labels, target)
}

func fits(labels, want map[string]string) bool {
	for k, v := range want {
		if labels[k] != v {
			return false
		}
	}
	return true
}

// CheckIn takes what a host says and returns what it is told, once that is stored.
func (c *Conductor) CheckIn(ctx context.Context, h Host, said []Said) (Answer, error) {
	if !c.concerns(&h) {
		return Answer{}, nil
	}
	a, err := ask(ctx, c, func(t *turn) (a Answer, err error) {
		for _, l := range c.live {
			if !eligible(&h, l.part(), l.want.Target) {
				continue
			}
			if err := t.checkIn(l, h, said, &a); err != nil {
				return a, err
			}
		}
		return a, nil
	})
	if err != nil {
		return Answer{}, err
	}
	for i := range a.Grants {
		g := &a.Grants[i]
		if g.Sealed, err = statement.SealGrant(c.opt.Director, &g.Grant); err != nil {
			return Answer{}, err
		}
	}
	return a, nil
}

// Beacon takes what a host's recovery environment says.
func (c *Conductor) Beacon(ctx context.Context, h Host, digest, signature string) (Answer, error) {
	if !c.concerns(&h) {
		return Answer{}, nil
	}
	return ask(ctx, c, func(t *turn) (a Answer, err error) {
		for _, l := range c.live {
			if !eligible(&h, l.part(), l.want.Target) || digest != string(l.state.Spec.Digest) {
				continue
			}
			in := &rollout.Input{Kind: rollout.Beacon, Report: rollout.Report{
				Running:   rollout.Digest(digest),
				Incidents: []rollout.Incident{{Gate: rollout.Recovery, Signature: signature}},
			}}
			if err := t.hear(l, h, in, &a); err != nil {
				return a, err
			}
		}
		return a, nil
	})
}

// InRecovery takes the word of a recovery environment that cannot say which packages ran: the beacon goes to each
// rollout that the host is in. The rows know whether the host was granted the new package or is one of those that it
// is compared with.
func (c *Conductor) InRecovery(ctx context.Context, h Host, signature string) error {
	if !c.concerns(&h) {
		return nil
	}
	_, err := ask(ctx, c, func(t *turn) (a Answer, err error) {
		for _, l := range c.live {
			if !eligible(&h, l.part(), l.want.Target) {
				continue
			}
			in := &rollout.Input{Kind: rollout.Beacon, Report: rollout.Report{
				Running:   rollout.Digest(h.Active[l.part()]),
				Incidents: []rollout.Incident{{Gate: rollout.Recovery, Signature: signature}},
			}}
			if err := t.hear(l, h, in, &a); err != nil {
				return a, err
			}
		}
		return a, nil
	})
	return err
}

// checkIn gives one rollout what a host says about its part.
func (t *turn) checkIn(l *live, h Host, said []Said, a *Answer) error {
	in := &rollout.Input{Kind: rollout.CheckIn}
	in.Report.Running = rollout.Digest(h.Active[l.part()])
	for i := range said {
		s := &said[i]
		if s.Part != l.part() {
			continue
		}
		in.Report = s.Report
		in.Report.Trying = s.Candidate != "" && s.Candidate == string(l.state.Spec.Digest)
		if s.Rollout == l.rec.ID {
			in.Report.Nonce = s.Nonce
		}
	}
	return t.hear(l, h, in, a)
}

// hear is one step about one host, and what comes of it for the host.
func (t *turn) hear(l *live, h Host, in *rollout.Input, a *Answer) error {
	in.Host = hostFor(h, l.want.Pins, t.c.holds)
	if err := t.introduce(l, &in.Host); err != nil {
		return err
	}
	row, err := t.tx.Row(l.rec.ID, h.ID)
	switch {
	case errors.Is(err, store.ErrNotFound):
	case err != nil:
		return err
	default:
		if err := l.decode(&row, &in.Host.Row); err != nil {
			return err
		}
	}
	e, err := t.step(l, in)
	if err != nil {
		return err
	}
	l.tell(&e, a)
	return nil
}

// tell turns a reply into what the host is told.
func (l *live) tell(e *rollout.Effects, a *Answer) {
	order := Order{Rollout: l.rec.ID, Part: l.part()}
	switch e.Reply.Do {
	case rollout.Activate:
		a.Grants = append(a.Grants, Grant{Grant: e.Reply.Grant})
	case rollout.RollBack:
		order.RollBack, order.Digest, order.Reason = true, string(e.Reply.To), e.Reply.Cause
		a.Orders = append(a.Orders, order)
	default:
		near := e.Reply.Why == rollout.RingClosed && e.Row.Ring <= l.state.Open+1
		if near || e.Reply.Why == rollout.NotReady || e.Reply.Why == rollout.RingFull {
			order.Digest, order.Reason = string(l.state.Spec.Digest), string(e.Reply.Why)
			order.Counter, order.Version = l.state.Spec.Release, l.want.Version
			a.Orders = append(a.Orders, order)
		}
	}
	if w := e.Reply.Wait; w > 0 && (a.Wait == 0 || w < a.Wait) {
		a.Wait = w
	}
}

// customerLabel is the label that says whose host it is.
const customerLabel = "customer"

// strataLabels make up a stratum: hosts that are alike.
func strataLabels() []string { return []string{"kernel", "distro", "hardware", "providers"} }

// hostFor is one machine in the words of internal/rollout. A hold wins over a rollout's pins, but for never.
func hostFor(h Host, pins []spec.Pin, holds []Hold) rollout.Host {
	held := heldBy(holds, &h)
	out := rollout.Host{ID: h.ID, Stratum: stratum(h), Customer: customerOf(h.Labels[customerLabel], held)}
	for _, p := range pins {
		if fits(h.Labels, p.Labels) {
			out.Pin = rollout.Pin(p.Place)
			break
		}
	}
	behind := slices.ContainsFunc(holds, func(x Hold) bool {
		return x.Spec.Previous && slices.Contains(held, x.Spec.Name)
	})
	if behind && out.Pin != rollout.Never {
		out.Pin = rollout.Previous
	}
	return out
}

// stratum is kernel, distribution, hardware and the set of providers.
func stratum(h Host) string {
	parts := make([]string, 0, 4)
	for _, k := range strataLabels() {
		v := h.Labels[k]
		if k == "providers" && v == "" {
			v = providers(h)
		}
		parts = append(parts, v)
	}
	return strings.Join(parts, "/")
}

func providers(h Host) string {
	set := map[string]bool{}
	for p := range h.Active {
		set[p.Provider] = true
	}
	return strings.Join(slices.Sorted(maps.Keys(set)), "+")
}
