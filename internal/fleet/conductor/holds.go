package conductor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/keepout-security/keepout/internal/fleet/spec"
	"github.com/keepout-security/keepout/internal/fleet/store"
	"github.com/keepout-security/keepout/internal/rollout"
)

// maxHolds bounds the holds: each check-in is compared with all of them.
const maxHolds = 256

// Hold is what somebody wants for some hosts, as it is stored.
type Hold struct {
	Record store.Hold
	Spec   spec.Hold
}

// heldBy names the holds that are for a host, by name.
func heldBy(holds []Hold, h *Host) (out []string) {
	for i := range holds {
		s := &holds[i].Spec
		if len(s.Labels) > 0 && fits(h.Labels, s.Labels) || slices.Contains(s.Hosts, h.ID) {
			out = append(out, s.Name)
		}
	}
	return out
}

// The rollout knows hosts that want the same by one name: whose they are, and which holds are for them.
const (
	beforeHolds = "|"
	betweenThem = ","
)

func customerOf(label string, holds []string) string {
	if len(holds) == 0 {
		return label
	}
	return label + beforeHolds + strings.Join(holds, betweenThem)
}

// wishes are what the hosts of one such name want in a rollout: its own freezes, and what the holds say.
func (c *Conductor) wishes(l *live, customer string) rollout.Customer {
	out := l.want.Customer(customer)
	i := strings.LastIndex(customer, beforeHolds)
	for _, name := range strings.Split(customer[i+1:], betweenThem) {
		for k := range c.holds {
			if i >= 0 && c.holds[k].Spec.Name == name {
				c.holds[k].Spec.AddTo(&out)
			}
		}
	}
	return out
}

// introduce makes a rollout's freezes and the holds count for a host's customer. Once it is known, changes of holds
// reach it by rehold.
func (t *turn) introduce(l *live, in *rollout.Host) error {
	if _, known := l.state.Customers[in.Customer]; known || len(l.want.Freezes) == 0 && len(t.c.holds) == 0 {
		return nil
	}
	_, err := t.step(l, &rollout.Input{Kind: rollout.SetCustomer, Customer: t.c.wishes(l, in.Customer)})
	return err
}

// rehold tells every rollout what its customers want now.
func (t *turn) rehold() error {
	for _, l := range t.c.live {
		for _, id := range slices.Sorted(maps.Keys(l.state.Customers)) {
			in := &rollout.Input{Kind: rollout.SetCustomer, Customer: t.c.wishes(l, id)}
			if _, err := t.step(l, in); err != nil {
				return err
			}
		}
	}
	t.wake = true
	return nil
}

// SetHold keeps hosts from anything new, and returns how many there are. It is in force when SetHold returns nil.
func (c *Conductor) SetHold(ctx context.Context, want spec.Hold, by string) (h Hold, hosts int, err error) {
	if err := want.Check(); err != nil {
		return h, 0, refuse(CodeSpec, "correct it", "%v", err)
	}
	text, err := json.Marshal(want)
	if err != nil {
		return h, 0, fmt.Errorf("hold: %w", err)
	}
	h.Spec = want
	h, err = ask(ctx, c, func(t *turn) (Hold, error) {
		holds := slices.DeleteFunc(slices.Clone(c.holds), func(x Hold) bool { return x.Spec.Name == want.Name })
		if len(holds) >= maxHolds {
			return h, refuse(CodeSpec, "remove one: keepout fleet hold remove", "there are %d holds", len(holds))
		}
		h.Record = store.Hold{Name: want.Name, Spec: text, SetBy: by, SetAt: t.now}
		holds = append(holds, h)
		c.holds = holds
		slices.SortFunc(c.holds, func(a, b Hold) int { return strings.Compare(a.Spec.Name, b.Spec.Name) })
		return h, errors.Join(t.tx.PutHold(h.Record), t.rehold(),
			t.note(by, "hold.set", want.Name, map[string]any{"hold": want}))
	})
	if err != nil {
		return h, 0, err
	}
	for host := range c.opt.Hosts() {
		hosts += len(heldBy([]Hold{h}, &host))
	}
	return h, hosts, nil
}

// RemoveHold ends one.
func (c *Conductor) RemoveHold(ctx context.Context, name, by, reason string) error {
	return c.submit(ctx, func(t *turn) error {
		if !slices.ContainsFunc(c.holds, func(x Hold) bool { return x.Spec.Name == name }) {
			return refuse(CodeNotFound, "keepout fleet hold list shows them", "no hold %q", name)
		}
		c.holds = slices.DeleteFunc(slices.Clone(c.holds), func(x Hold) bool { return x.Spec.Name == name })
		return errors.Join(t.tx.DropHold(name), t.rehold(),
			t.note(by, "hold.remove", name, map[string]any{"reason": reason}))
	})
}

// Holds lists them by name.
func (c *Conductor) Holds(ctx context.Context) (list []Hold, err error) {
	err = c.opt.Store.View(ctx, func(r store.Reader) error {
		list, err = readHolds(r)
		return err
	})
	return list, err
}

func readHolds(r store.Reader) ([]Hold, error) {
	all, err := r.Holds()
	if err != nil {
		return nil, err
	}
	list := make([]Hold, len(all))
	for i := range all {
		list[i].Record = all[i]
		if err := json.Unmarshal(all[i].Spec, &list[i].Spec); err != nil {
			return nil, fmt.Errorf("hold %s as stored: %w", all[i].Name, err)
		}
	}
	return list, nil
}
