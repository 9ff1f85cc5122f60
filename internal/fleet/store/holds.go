package store

import (
	"fmt"
	"time"
)

// Hold is what somebody wants for some hosts. Its spec is the caller's.
type Hold struct {
	Name  string
	Spec  []byte // JSON
	SetBy string
	SetAt time.Time
}

func scanHold(s scanner) (h Hold, err error) {
	err = s.Scan(&h.Name, &h.Spec, &h.SetBy, column{&h.SetAt})
	return h, err
}

// Holds implements Reader.
func (t *tx) Holds() ([]Hold, error) {
	return all(t, scanHold, "SELECT name, spec, set_by, set_at FROM holds ORDER BY name")
}

// PutHold implements Tx.
func (t *tx) PutHold(h Hold) error {
	_, err := t.exec("INSERT OR REPLACE INTO holds (name, spec, set_by, set_at) VALUES (?,?,?,?)",
		h.Name, string(h.Spec), h.SetBy, millis(h.SetAt))
	return err
}

// DropHold implements Tx.
func (t *tx) DropHold(name string) error {
	n, err := t.exec("DELETE FROM holds WHERE name = ?", name)
	if err == nil && n == 0 {
		return fmt.Errorf("hold %s: %w", name, ErrNotFound)
	}
	return err
}
