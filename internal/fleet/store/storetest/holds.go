package storetest

import (
	"errors"
	"testing"

	"github.com/keepout-security/keepout/internal/fleet/store"
)

// holds: one of a name, the last that was put; one that is dropped is gone.
func holds(t *testing.T, s store.Store) {
	t.Helper()
	hold := func(name, spec string) store.Hold {
		return store.Hold{Name: name, Spec: []byte(spec), SetBy: "ann", SetAt: at(3)}
	}
	update(t, s, func(tx store.Tx) error {
		return errors.Join(tx.PutHold(hold("b", `{"x":1}`)), tx.PutHold(hold("a", `{}`)), tx.PutHold(hold("b", `{"x":2}`)))
	})
	view(t, s, func(r store.Reader) error {
		got, err := r.Holds()
		same(t, got, []store.Hold{hold("a", `{}`), hold("b", `{"x":2}`)})
		return err
	})
	update(t, s, func(tx store.Tx) error { return tx.DropHold("b") })
	err := s.Update(t.Context(), func(tx store.Tx) error { return tx.DropHold("b") })
	if !errors.Is(err, store.ErrNotFound) {
		t.Errorf("dropped twice: %v", err)
	}
	view(t, s, func(r store.Reader) error {
		got, err := r.Holds()
		same(t, got, []store.Hold{hold("a", `{}`)})
		return err
	})
}
