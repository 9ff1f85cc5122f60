package conductor

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/keepout-security/keepout/internal/fleet/spec"
	"github.com/keepout-security/keepout/internal/fleet/store"
	"github.com/keepout-security/keepout/internal/rollout"
)

func content(name, digest string) spec.Spec {
	return spec.Spec{Name: name, Provider: part, Channel: "content", Digest: digestOf(digest), Counter: 2}
}

// rewrite changes what is stored of a state.
func rewrite(change func(*rollout.State)) func(*testing.T, *store.Rollout) {
	return func(t *testing.T, r *store.Rollout) {
		t.Helper()
		var s rollout.State
		if err := json.Unmarshal(r.State, &s); err != nil {
			t.Fatal(err)
		}
		change(&s)
		text, err := json.Marshal(&s)
		if err != nil {
			t.Fatal(err)
		}
		r.State = text
	}
}

// TestTornRollout: a state that is torn, or that no step can have made, halts its rollout with a code and is left as it
// is; nobody is granted in it, and the control plane goes on with the others.
func TestTornRollout(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(t *testing.T, r *store.Rollout){
		"half a state":              func(_ *testing.T, r *store.Rollout) { r.State = r.State[:len(r.State)/2] },
		"no state":                  func(_ *testing.T, r *store.Rollout) { r.State = nil },
		"another state":             func(_ *testing.T, r *store.Rollout) { r.State = []byte("{}") },
		"more than W":               rewrite(func(s *rollout.State) { s.Rings[0].Granted += 5; s.Rings[0].Soaking += 5 }),
		"counts that do not add up": rewrite(func(s *rollout.State) { s.Rings[0].Granted++ }),
		"rings that are not there":  rewrite(func(s *rollout.State) { s.Open = len(s.Rings) }),
		"an unknown status":         rewrite(func(s *rollout.State) { s.Status = "fine" }),
		"another package":           rewrite(func(s *rollout.State) { s.Spec.Digest = rollout.Digest(digestOf("f")) }),
		"numbers that stop nothing": rewrite(func(s *rollout.State) { s.Numbers.Alpha = 2 }),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 14)
			if err := w.lead(w.db, func(c *Conductor) error {
				_, err := c.Create(t.Context(), content("torn", "b"), "ann")
				return errors.Join(err, w.minute(c))
			}); err != nil {
				t.Fatal(err)
			}
			rec := *w.only()
			damage(t, &rec)
			put(t, w.db, &rec)
			granted := len(w.holds)
			if granted == 0 {
				t.Fatal("nobody was granted before the damage")
			}
			for range 2 {
				w.stays(&rec, granted)
			}
			if n := w.audited("rollout.torn"); n != 1 {
				t.Errorf("%d entries in the audit trail, want one", n)
			}
			w.goesOn()
		})
	}
}

func put(t *testing.T, db store.Store, rec *store.Rollout) {
	t.Helper()
	if err := db.Update(t.Context(), func(tx store.Tx) error { return tx.PutRollout(rec) }); err != nil {
		t.Fatal(err)
	}
}

// stays leads once, and holds that a torn rollout is halted and not touched.
func (w *world) stays(rec *store.Rollout, granted int) {
	w.t.Helper()
	err := w.lead(w.db, func(c *Conductor) error {
		if err := w.minute(c); err != nil {
			return err
		}
		got, err := c.Get(w.t.Context(), rec.ID)
		if err != nil {
			return err
		}
		if got.View.Status != rollout.Stopped || !strings.Contains(got.Record.Reason, CodeTorn) {
			w.t.Errorf("it is %s: %q", got.View.Status, got.Record.Reason)
		}
		for _, v := range []Verb{Approve, Resume, Pause, Halt} {
			_, err := c.Do(w.t.Context(), v, rec.ID, "bob", "so")
			var refused *Refusal
			if !errors.As(err, &refused) || refused.Problem.Code != CodeTorn {
				w.t.Errorf("%s: %v", v, err)
			}
		}
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	if len(w.holds) != granted {
		w.t.Errorf("%d hosts were granted, %d before", len(w.holds), granted)
	}
	if now := w.only(); !bytes.Equal(now.State, rec.State) || !bytes.Equal(now.Spec, rec.Spec) {
		w.t.Error("what was damaged was written over")
	}
}

// goesOn holds that another rollout of the same part gets to its end.
func (w *world) goesOn() {
	w.t.Helper()
	err := w.lead(w.db, func(c *Conductor) error {
		if _, err := c.Create(w.t.Context(), content("next", "c"), "ann"); err != nil {
			return err
		}
		for range 200 {
			for id, d := range w.runs { // so that minute asks for the grant of the new one
				if d == digestOf("b") {
					w.runs[id] = digestOf("a")
				}
			}
			if err := w.minute(c); err != nil {
				return err
			}
			if w.only().Status == string(rollout.Complete) {
				return nil
			}
		}
		return errors.New("the next rollout does not end")
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) audited(action string) (n int) {
	w.t.Helper()
	err := w.db.View(w.t.Context(), func(r store.Reader) error {
		list, err := r.Audit(0, 1000)
		for _, e := range list {
			if e.Action == action {
				n++
			}
		}
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return n
}

// TestTornRow: a host's row that cannot be read halts its rollout while it is driven, also for the next controller.
func TestTornRow(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]string{
		"half a row": `{"known":tr`, "of another plan": `{"known":true,"ring":99}`, "of nobody": `{}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 14)
			granted := 0
			err := w.lead(w.db, func(c *Conductor) error {
				_, err := c.Create(t.Context(), content("torn", "b"), "ann")
				if err := errors.Join(err, w.minute(c)); err != nil {
					return err
				}
				bad := store.Row{Rollout: w.only().ID, Host: w.hosts[0], Data: []byte(row)}
				err = w.db.Update(t.Context(), func(tx store.Tx) error { return tx.PutRows([]store.Row{bad}) })
				if err != nil {
					return err
				}
				granted = len(w.holds)
				if err := w.minute(c); err == nil {
					t.Error("the row was believed")
				}
				return c.Look(t.Context())
			})
			if err != nil {
				t.Fatal(err)
			}
			rec := w.only()
			if rec.Status != string(rollout.Stopped) || !strings.Contains(rec.Reason, w.hosts[0]) {
				t.Fatalf("it is %s: %q", rec.Status, rec.Reason)
			}
			w.stays(rec, granted)
			w.goesOn()
		})
	}
}
