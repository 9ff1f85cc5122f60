package conductor

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/keepout-security/keepout/internal/fleet/store"
	"github.com/keepout-security/keepout/internal/rollout"
)

// CodeTorn is that of a rollout whose stored state no controller can have written.
const CodeTorn = "KO-2219"

// torn is a rollout that is not driven: what is stored of it is damaged. Nobody is granted, and nobody is told to go
// back; what is stored stays as it is, for whoever looks into it.
type torn struct {
	rec  store.Rollout
	why  string
	told bool // the record and the audit trail say so
}

// tornError is why a rollout cannot go on. It is found while a batch is under way, so that batch is not stored.
type tornError struct{ id, why string }

// Error implements error.
func (e *tornError) Error() string { return "rollout " + e.id + " as stored: " + e.why }

// decode reads the row of one host.
func (l *live) decode(row *store.Row, to *rollout.Row) error {
	err := json.Unmarshal(row.Data, to)
	if err == nil {
		err = l.state.CheckRow(to)
	}
	if err != nil {
		return &tornError{l.rec.ID, fmt.Sprintf("the row of %s: %v", row.Host, err)}
	}
	return nil
}

// revive makes a rollout of what is stored. Its error is a tornError.
func revive(rec store.Rollout) (*live, error) {
	l := &live{rec: rec}
	err := errors.Join(json.Unmarshal(rec.Spec, &l.want), json.Unmarshal(rec.State, &l.state))
	if err == nil {
		err = l.check()
	}
	if err != nil {
		return nil, &tornError{rec.ID, err.Error()}
	}
	return l, nil
}

// check reports a record, a spec and a state that were not written together, or that no step can have made.
func (l *live) check() error {
	s := &l.state
	if err := s.Check(); err != nil {
		return err
	}
	switch {
	case s.Spec.ID != l.rec.ID || s.Spec.Provider != l.want.Provider || string(s.Spec.Channel) != l.want.Channel ||
		string(s.Spec.Digest) != l.want.Digest:
		return errors.New("the state is of another package than the spec")
	case l.rec.Status == string(rollout.Stopped) && s.Status != rollout.Stopped:
		return errors.New(l.rec.Reason) // it was found to be torn before
	case l.rec.Status != string(s.Status):
		return fmt.Errorf("the record says %q and the state %q", l.rec.Status, s.Status)
	}
	return nil
}

// lay takes a rollout out of those that are driven.
func (c *Conductor) lay(rec *store.Rollout, why string) {
	text := fmt.Sprintf("%s: what is stored of it is damaged: %s", CodeTorn, why)
	told := rec.Status == string(rollout.Stopped) && rec.Reason != ""
	if told {
		text = rec.Reason
	}
	c.torn = append(c.torn, &torn{rec: *rec, why: text, told: told})
}

// spoil notes a rollout that turned out to be torn while it was driven; reload lays it aside.
func (c *Conductor) spoil(err error) {
	var t *tornError
	if errors.As(err, &t) {
		c.spoilt[t.id] = t.why
	}
}

// tellTorn halts what is torn where people look: in its record, and in the audit trail. The state is left as it is.
func (t *turn) tellTorn() error {
	for _, x := range t.c.torn {
		if x.told {
			continue
		}
		rec := x.rec
		rec.Status, rec.Reason = string(rollout.Stopped), x.why
		err := errors.Join(t.tx.PutRollout(&rec),
			t.note("controller", "rollout.torn", rec.ID, map[string]any{"name": rec.Name, "text": x.why}))
		if err != nil {
			return err
		}
		x.rec, x.told, t.wake = rec, true, true
	}
	return nil
}

// tornBy finds one by id or name.
func (c *Conductor) tornBy(id string) *torn {
	for _, x := range c.torn {
		if x.rec.ID == id || x.rec.Name == id {
			return x
		}
	}
	return nil
}

// seenTorn is what people see of one that cannot be read: its record, and why.
func seenTorn(rec *store.Rollout, why string) Rollout {
	r := Rollout{Record: *rec}
	_ = json.Unmarshal(rec.Spec, &r.Spec) // what can be read of it
	r.View.Status, r.View.Because = rollout.Stopped, why
	return r
}
