package conductor

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"iter"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keepout-security/keepout/internal/fleet/bus"
	"github.com/keepout-security/keepout/internal/fleet/spec"
	"github.com/keepout-security/keepout/internal/fleet/store"
	"github.com/keepout-security/keepout/internal/rollout"
)

// errKilled stands for the end of the process.
var errKilled = errors.New("killed")

// mortal is a store whose process dies at one write: before it is on the disk, or after, before anybody hears of it.
type mortal struct {
	store.Store

	left  int  // writes until then
	after bool // it is on the disk
}

func (m *mortal) Update(ctx context.Context, change func(store.Tx) error) error {
	m.left--
	if m.left == 0 && !m.after {
		return m.Store.Update(ctx, func(tx store.Tx) error { return errors.Join(change(tx), errKilled) })
	}
	err := m.Store.Update(ctx, change)
	if m.left == 0 {
		return errors.Join(err, errKilled)
	}
	return err
}

const part = "acme"

func digestOf(c string) string { return "sha256:" + strings.Repeat(c, 64) }

// world is a fleet without a network: hosts that believe grants, and a conductor that is killed.
type world struct {
	t      *testing.T
	db     store.Store
	passed atomic.Int64 // since the beginning; conductors read it meanwhile
	key    ed25519.PrivateKey
	runs   map[string]string          // what each host runs
	holds  map[string][]rollout.Grant // every grant that reached a host
	epochs map[string]uint64          // the highest that it has seen
	hosts  []string
	within bool // a minute has begun and is not over
	heard  int  // hosts that have checked in in it
	asks   int
}

func newWorld(t *testing.T, n int) *world {
	t.Helper()
	db, err := store.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "fleet.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{
		t: t, db: db, key: key, runs: map[string]string{},
		holds: map[string][]rollout.Grant{}, epochs: map[string]uint64{},
	}
	for i := range n {
		id := fmt.Sprintf("h%02d", i)
		w.hosts, w.runs[id] = append(w.hosts, id), digestOf("a")
	}
	return w
}

func (w *world) host(id string) Host {
	return Host{ID: id, Active: map[Part]string{{part, rollout.Content}: w.runs[id]}}
}

// time is the clock of everybody.
func (w *world) time() time.Time {
	return time.Unix(1_900_000_000, 0).Add(time.Duration(w.passed.Load()))
}

func (w *world) conductor(s store.Store) *Conductor {
	return New(Options{
		Store: s, Bus: bus.NewLocal(), Clock: w.time, Director: w.key, Tick: time.Hour,
		Schedule: func(string) (rollout.Numbers, error) {
			n := rollout.Defaults()
			n.First, n.Growth, n.Soak, n.ControlMin = 3, 3, 2*time.Minute, 2
			return n, nil
		},
		Hosts: func() iter.Seq[Host] {
			return func(yield func(Host) bool) {
				for _, id := range w.hosts {
					if !yield(w.host(id)) {
						return
					}
				}
			}
		},
		Lookup: func(id string) (Host, bool) { return w.host(id), slices.Contains(w.hosts, id) },
	})
}

// lead runs a conductor until something it does fails, or body has done all.
func (w *world) lead(s store.Store, body func(*Conductor) error) error {
	c := w.conductor(s)
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	var err error
	if c.Leads(ctx) { // before that, a check-in is answered with nothing, and nobody is heard
		err = body(c)
	}
	cancel()
	return errors.Join(err, <-done)
}

// minute is one round of check-ins. Every host that got the new content runs it well, whatever became of the
// conductor meanwhile. Whoever was not heard, because the conductor was killed, tries again before time goes on: a
// conductor that only ever lives for a few writes would else find the last hosts silent, and rightly halt.
func (w *world) minute(c *Conductor) error {
	if !w.within {
		w.within = true
		w.passed.Add(int64(time.Minute))
	}
	for i, id := range w.hosts {
		if i < w.heard {
			continue
		}
		w.asks++
		said := Said{Part: Part{part, rollout.Content}, Nonce: fmt.Sprintf("%s-%d", id, w.asks)}
		said.Report = rollout.Report{Running: rollout.Digest(w.runs[id]), Healthy: true}
		if rec := w.only(); rec != nil && w.runs[id] == digestOf("a") {
			said.Rollout = rec.ID
		}
		a, err := c.CheckIn(w.t.Context(), w.host(id), []Said{said})
		if err != nil {
			return fmt.Errorf("host %d: %w", i, err)
		}
		for _, g := range a.Grants {
			if g.Epoch < w.epochs[id] {
				w.t.Errorf("%s got epoch %d after %d", id, g.Epoch, w.epochs[id])
			}
			w.epochs[id] = g.Epoch
			w.holds[id] = append(w.holds[id], g.Grant)
			w.runs[id] = string(g.Digest)
		}
		w.heard = i + 1
	}
	if err := c.Look(w.t.Context()); err != nil {
		return err
	}
	w.heard, w.within = 0, false
	return nil
}

// only returns the one rollout as it is stored, nil before it was made.
func (w *world) only() *store.Rollout {
	w.t.Helper()
	var all []store.Rollout
	err := w.db.View(w.t.Context(), func(r store.Reader) (err error) {
		all, err = r.Rollouts(10)
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	if len(all) == 0 {
		return nil
	}
	return &all[0]
}

// check holds what must be true whenever the conductor was killed: what hosts hold fits into W, by what is stored.
func (w *world) check() {
	w.t.Helper()
	rec := w.only()
	if rec == nil {
		return
	}
	l, err := revive(*rec)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := l.state.Check(); err != nil {
		w.t.Fatal(err)
	}
	serials := map[uint64]bool{}
	dice := rollout.NewDice(l.state.Spec.Seed)
	granted := make([]int, len(l.state.Rings))
	for id, grants := range w.holds {
		for _, g := range grants {
			if serials[g.Serial] {
				w.t.Fatalf("two hosts hold grant %d", g.Serial)
			}
			serials[g.Serial] = true
		}
		h := hostFor(w.host(id), l.want.Pins, nil)
		_, ring := l.state.Plan.Find(dice, &h)
		granted[ring]++
	}
	for i := range l.state.Rings {
		r := &l.state.Rings[i]
		if granted[i] > r.Granted {
			w.t.Fatalf("ring %d: hosts hold %d grants, %d are stored", i, granted[i], r.Granted)
		}
		if r.Outstanding() > l.state.Plan.Rings[i].W {
			w.t.Fatalf("ring %d: %d outstanding, W is %d", i, r.Outstanding(), l.state.Plan.Rings[i].W)
		}
	}
}

// TestKilledAtEachWrite kills the conductor at its first write, its second, and so on, before and after the disk has
// it: the next one goes on, no grant is lost track of, W holds, and in the end every host has the release.
func TestKilledAtEachWrite(t *testing.T) {
	t.Parallel()
	want := spec.Spec{Name: "s", Provider: part, Channel: "content", Digest: digestOf("b"), Counter: 2}
	for _, after := range []bool{false, true} {
		t.Run(map[bool]string{false: "before it is stored", true: "after it is stored"}[after], func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 14)
			lives := 0
			for done := false; !done; lives++ {
				s := &mortal{Store: w.db, left: 2 + lives%37, after: after} // it takes one write to lead
				err := w.lead(s, func(c *Conductor) error {
					if w.only() == nil {
						if _, err := c.Create(t.Context(), want, "ann"); err != nil {
							return err
						}
					}
					for {
						if err := w.minute(c); err != nil {
							return err
						}
						w.check()
						if w.only().Status == string(rollout.Complete) {
							done = true
							return nil
						}
					}
				})
				if err != nil && !errors.Is(err, errKilled) {
					t.Fatal(err)
				}
				w.check()
				if r := w.only(); r != nil && r.Status == string(rollout.Stopped) || lives > 2000 {
					t.Fatalf("it is %s after %d lives: %s", r.Status, lives, r.Reason)
				}
			}
			if lives < 10 {
				t.Errorf("only %d lives: nothing was shown", lives)
			}
			t.Logf("%d lives", lives)
		})
	}
}
