// Package conductor runs rollouts: it feeds what happens to internal/rollout, one input after the other, and lets
// nothing out before it is stored.
//
// It guarantees that state, rows and audit entries of a batch are in one transaction, that a grant leaves only after
// that transaction is on the disk, and that a conductor which dies anywhere goes on with what is stored: so W is never
// exceeded, whenever it is killed. What is stored is checked when it is read; a rollout of which that is damaged is
// halted and said, and the others go on. All decisions are internal/rollout's.
package conductor

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/keepout-security/keepout/internal/fleet/audit"
	"github.com/keepout-security/keepout/internal/fleet/bus"
	"github.com/keepout-security/keepout/internal/fleet/spec"
	"github.com/keepout-security/keepout/internal/fleet/store"
	"github.com/keepout-security/keepout/internal/rollout"
)

// Bounds.
const (
	batch       = 256 // jobs in one transaction
	queued      = 4096
	lapses      = 1000             // silent hosts in one tick, for each rollout
	keptLive    = 3                // rollouts of one provider and channel that hosts still hear of
	tickEvery   = 10 * time.Second // rollout.Tick
	keptStopped = 200              // rollouts that a restart looks through
)

// Topic is where the conductor says that hosts should be told something; an empty key is all of them.
const Topic = "orders"

// epochKey is where the fencing epoch stands in the store.
const epochKey = "epoch"

// Host is one machine, as the control plane knows it.
type Host struct {
	ID     string
	Labels map[string]string
	Active map[Part]string // digests
}

// Part is one provider's engine or content.
type Part struct {
	Provider string
	Channel  rollout.Channel
}

// Options are what a conductor needs. All but Log are required.
type Options struct {
	Store    store.Store
	Bus      bus.Bus
	Clock    func() time.Time
	Director ed25519.PrivateKey // signs grants
	// Schedule gives the numbers of a schedule; rollout.Schedule unless time runs faster, in tests and demonstrations.
	Schedule func(name string) (rollout.Numbers, error)
	// Hosts lists those that may be in a rollout; Lookup finds one of them.
	Hosts  func() iter.Seq[Host]
	Lookup func(id string) (Host, bool)
	Tick   time.Duration // between looks at silent hosts; 0 is 10 s
	Log    *slog.Logger
}

// Conductor is safe for concurrent use once Run runs. Make it with New.
type Conductor struct {
	opt    Options
	jobs   chan *job
	live   []*live           // of Run's goroutine only, as all up to holds
	torn   []*torn           // rollouts that are not driven
	spoilt map[string]string // why, by id, where it was found while one was driven
	holds  []Hold            // by name
	glance atomic.Pointer[[]glance]
	leads  chan struct{} // closed when it does
	ended  chan struct{}
}

// glance is what a check-in needs to know to see that no rollout concerns its host.
type glance struct {
	part   Part
	target map[string]string
}

// live is one rollout that hosts hear of.
type live struct {
	rec   store.Rollout
	want  spec.Spec
	state rollout.State
	dirty bool
}

// job is something to be done within a transaction.
type job struct {
	do   func(*turn) error
	err  error
	done chan struct{}
}

// turn is one transaction.
type turn struct {
	c      *Conductor
	tx     store.Tx
	now    time.Time
	grants []rollout.Grant
	wake   bool
}

// New makes a conductor; it does nothing before Run.
func New(opt Options) *Conductor {
	if opt.Tick == 0 {
		opt.Tick = tickEvery
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	return &Conductor{
		opt: opt, jobs: make(chan *job, queued), leads: make(chan struct{}), ended: make(chan struct{}),
		spoilt: map[string]string{},
	}
}

// Run takes the lead with a new epoch and works until ctx ends. It returns nil then. It may be called once.
func (c *Conductor) Run(ctx context.Context) error {
	defer close(c.ended)
	if err := c.takeOver(ctx); err != nil {
		return err
	}
	close(c.leads)
	tick := time.NewTicker(c.opt.Tick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			_ = c.transact(ctx, []*job{{do: c.tick}}) // it was logged, and the next tick is soon
		case first := <-c.jobs:
			_ = c.transact(ctx, c.collect(first)) // whoever submitted the jobs is told
		}
	}
}

// collect takes what else is waiting, up to one batch.
func (c *Conductor) collect(first *job) []*job {
	jobs := []*job{first}
	for len(jobs) < batch {
		select {
		case j := <-c.jobs:
			jobs = append(jobs, j)
		default:
			return jobs
		}
	}
	return jobs
}

// takeOver reads the rollouts, and fences off whoever led before.
func (c *Conductor) takeOver(ctx context.Context) error {
	if err := c.reload(ctx); err != nil {
		return err
	}
	err := c.transact(ctx, []*job{{do: func(t *turn) error {
		text, err := t.tx.Meta(epochKey)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		epoch, err := strconv.ParseUint("0"+text, 10, 64)
		if err != nil {
			return fmt.Errorf("the epoch in the store: %w", err)
		}
		epoch++
		for _, l := range c.live {
			if _, err := t.step(l, &rollout.Input{Kind: rollout.TakeOver, Epoch: epoch}); err != nil {
				return err
			}
		}
		return errors.Join(t.tellTorn(), t.tx.SetMeta(epochKey, strconv.FormatUint(epoch, 10)),
			t.note("controller", "controller.lead", "", map[string]any{"epoch": epoch, "rollouts": len(c.live)}))
	}}})
	if err != nil {
		return fmt.Errorf("take the lead: %w", err)
	}
	return nil
}

// reload forgets what is in memory and reads what is stored.
func (c *Conductor) reload(ctx context.Context) error {
	var all []store.Rollout
	err := c.opt.Store.View(ctx, func(r store.Reader) (err error) {
		if all, err = r.Rollouts(keptStopped); err == nil {
			c.holds, err = readHolds(r)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("read the rollouts: %w", err)
	}
	c.live, c.torn = nil, nil
	kept := map[Part]int{}
	for i := range all {
		l, err := revive(all[i])
		var bad *tornError
		if why := c.spoilt[all[i].ID]; errors.As(err, &bad) {
			c.lay(&all[i], bad.why)
			continue
		} else if why != "" {
			c.lay(&all[i], why)
			continue
		}
		part := l.part()
		if kept[part]++; kept[part] <= keptLive {
			c.live = append(c.live, l)
		}
	}
	c.show()
	return nil
}

func (l *live) part() Part { return Part{l.state.Spec.Provider, l.state.Spec.Channel} }

// show publishes what check-ins glance at.
func (c *Conductor) show() {
	view := make([]glance, 0, len(c.live))
	for _, l := range c.live {
		view = append(view, glance{part: l.part(), target: l.want.Target})
	}
	c.glance.Store(&view)
}

// transact does jobs in one transaction and lets them go when it is on the disk. Where it cannot be stored, none of it
// happened: what is in memory is read anew.
func (c *Conductor) transact(ctx context.Context, jobs []*job) error {
	t := &turn{c: c, now: c.opt.Clock()}
	err := c.opt.Store.Update(context.WithoutCancel(ctx), func(tx store.Tx) error {
		t.tx = tx
		for _, j := range jobs {
			var refused *Refusal
			if j.err = j.do(t); j.err != nil && !errors.As(j.err, &refused) {
				return j.err
			}
		}
		return t.save()
	})
	if err != nil {
		c.opt.Log.Error("nothing of this batch was stored", slog.Any("error", err))
		c.spoil(err)
		if again := c.reload(context.WithoutCancel(ctx)); again != nil {
			err = errors.Join(err, again)
		}
		t.wake = false
	} else {
		c.show() // before anybody hears that it was done
	}
	for _, j := range jobs {
		if err != nil {
			j.err = err
		}
		if j.done != nil {
			close(j.done)
		}
	}
	if err != nil {
		return err
	}
	if t.wake {
		c.opt.Bus.Publish(bus.Hint{Topic: Topic})
	}
	return jobs[0].err
}

// save writes every rollout that changed, and one audit entry for the grants of each.
func (t *turn) save() error {
	for _, l := range t.c.live {
		if !l.dirty {
			continue
		}
		state, err := json.Marshal(&l.state)
		if err != nil {
			return fmt.Errorf("rollout %s: %w", l.rec.ID, err)
		}
		l.rec.State, l.rec.Status, l.rec.Reason = state, string(l.state.Status), l.state.Because
		if err := t.tx.PutRollout(&l.rec); err != nil {
			return err
		}
		l.dirty = false
	}
	return t.noteGrants()
}

// noteGrants is one entry for the grants of one rollout: each is a decision and a use of the director's key.
func (t *turn) noteGrants() error {
	byRollout := map[string][]any{}
	var order []string
	for i := range t.grants {
		g := &t.grants[i]
		if byRollout[g.Rollout] == nil {
			order = append(order, g.Rollout)
		}
		byRollout[g.Rollout] = append(byRollout[g.Rollout], map[string]any{"host": g.Host, "serial": g.Serial})
	}
	for _, id := range order {
		err := t.note("controller", "grant.batch", id, map[string]any{"key": "director", "grants": byRollout[id]})
		if err != nil {
			return err
		}
	}
	return nil
}

func (t *turn) note(actor, action, subject string, detail map[string]any) error {
	text, err := json.Marshal(detail)
	if err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	_, err = t.tx.Append(audit.Entry{At: t.now, Actor: actor, Action: action, Subject: subject, Detail: string(text)})
	return err
}

// step gives one input to one rollout and keeps what comes of it.
func (t *turn) step(l *live, in *rollout.Input) (rollout.Effects, error) {
	e := l.state.Apply(t.now, in)
	l.dirty = true
	if e.Store {
		data, err := json.Marshal(&e.Row)
		if err != nil {
			return e, fmt.Errorf("row of %s: %w", in.Host.ID, err)
		}
		row := store.Row{Rollout: l.rec.ID, Host: in.Host.ID, Data: data, Due: e.Row.Due}
		if err := t.tx.PutRows([]store.Row{row}); err != nil {
			return e, err
		}
	}
	if e.Reply.Do == rollout.Activate {
		t.grants = append(t.grants, e.Reply.Grant)
	}
	return e, t.acts(l, in, e.Acts)
}

// acts writes what became of a rollout into the audit trail, and notes who must hear of it.
func (t *turn) acts(l *live, in *rollout.Input, acts []rollout.Act) error {
	for _, a := range acts {
		if a.Kind == rollout.Refused {
			continue // it is the caller's answer; nothing changed
		}
		actor := in.By
		if actor == "" {
			actor = "controller"
		}
		err := t.note(actor, "rollout."+string(a.Kind), l.rec.ID, map[string]any{
			"name": l.rec.Name, "ring": a.Ring, "text": a.Text, "evidence": a.Evidence,
		})
		if err != nil {
			return err
		}
		t.wake = true
		if a.Kind == rollout.Started {
			if err := t.supersede(l); err != nil {
				return err
			}
		}
	}
	return nil
}

// supersede tells the older rollouts of the same part that a newer one has started.
func (t *turn) supersede(newer *live) error {
	for _, l := range t.c.live {
		if l == newer || l.part() != newer.part() || l.rec.Created.After(newer.rec.Created) || l.state.Behind {
			continue
		}
		if _, err := t.step(l, &rollout.Input{Kind: rollout.Supersede}); err != nil {
			return err
		}
	}
	return nil
}

// tick lets time pass, and tells rollouts which of their hosts are silent.
func (c *Conductor) tick(t *turn) error {
	if err := t.tellTorn(); err != nil {
		return err
	}
	for _, l := range c.live {
		if l.state.Status == rollout.Draft {
			continue
		}
		if _, err := t.step(l, &rollout.Input{Kind: rollout.Tick}); err != nil {
			return err
		}
		due, err := t.tx.RowsDue(l.rec.ID, l.state.Clock, lapses)
		if err != nil {
			return err
		}
		for i := range due {
			host, ok := c.opt.Lookup(due[i].Host)
			if !ok {
				host = Host{ID: due[i].Host}
			}
			in := &rollout.Input{Kind: rollout.Lapse, Host: hostFor(host, l.want.Pins, c.holds)}
			if err := l.decode(&due[i], &in.Host.Row); err != nil {
				return err
			}
			if _, err := t.step(l, in); err != nil {
				return err
			}
		}
	}
	return nil
}

// submit has a job done and waits for it.
func (c *Conductor) submit(ctx context.Context, do func(*turn) error) error {
	j := &job{do: do, done: make(chan struct{})}
	select {
	case c.jobs <- j:
	case <-ctx.Done():
		return ctx.Err()
	case <-c.ended:
		return errEnded
	}
	select {
	case <-j.done:
		return j.err
	case <-ctx.Done():
		return ctx.Err()
	case <-c.ended:
		return errEnded
	}
}

// ask is submit for a job with an answer. Who stops waiting gets none: the job may still be under way.
func ask[T any](ctx context.Context, c *Conductor, do func(*turn) (T, error)) (T, error) {
	var got, none T
	err := c.submit(ctx, func(t *turn) (err error) {
		got, err = do(t)
		return err
	})
	if err != nil {
		return none, err
	}
	return got, nil
}

var errEnded = errors.New("the control plane is stopping")

// Leads waits until Run has read what is stored and taken the lead; it reports false when that will not be.
func (c *Conductor) Leads(ctx context.Context) bool {
	select {
	case <-c.leads:
		return true
	case <-c.ended:
	case <-ctx.Done():
	}
	return false
}

// Look lets time pass at once: what Run does by itself every Options.Tick.
func (c *Conductor) Look(ctx context.Context) error { return c.submit(ctx, c.tick) }
