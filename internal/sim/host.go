package sim

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/keepout-security/keepout/internal/rollback"
	"github.com/keepout-security/keepout/internal/simdisk"
	"github.com/keepout-security/keepout/internal/store"
	"github.com/keepout-security/keepout/internal/supervisor"
)

// Host is one machine: providers under their supervisors, their versions under rollback, their packages in a store
// on a disk whose power is cut now and then, and an arbiter that counts their votes.
type Host struct {
	Count Counts

	rng       *rand.Rand
	first     time.Time // the standings' clock counts from here
	now       time.Time
	numbers   *numbers
	disk      *simdisk.Disk
	store     *store.Store
	ledger    *Ledger
	guests    []*guest
	worth     map[rollback.Digest]traits // what every package is like
	installed map[string]rollback.Versions
	serial    int
	strangers uint64    // files that were seen once
	busy      time.Time // until then everybody answers late
}

// Counts say what a run has seen.
type Counts struct {
	Events, Denied, Crashes, Offers, Promotions, Rollbacks, Refusals, Quarantines, PowerCuts int

	Storms, Breakers, Restored, Slow, FastAgain int
	Released, Relieved                          int // seats in open questions that a breaker, or audit, made free
	Blamed                                      int // storms for which the versions that did it went
}

// guest is one provider.
type guest struct {
	id         string
	st         rollback.State
	sup        supervisor.Provider
	run        *process // nil while none runs
	beside     *process
	standing   *standing
	promotions int
	rollbacks  int       // without those that an operator or a power cut asked for
	weather    time.Time // until then it crashes whatever its version: the fault is the host's
	stalled    time.Time // until then it does not answer in time, whatever its version
	dying      bool      // it crashes as soon as nobody waits any more
}

// NewHost returns a host that has booted for the first time.
func NewHost(seed uint64) (*Host, error) {
	start := time.Unix(1_700_000_000, 0).UTC()
	h := &Host{
		rng: random(seed, 4), first: start, now: start, disk: simdisk.New(), numbers: documented(),
		ledger: NewLedger(), worth: map[rollback.Digest]traits{}, installed: map[string]rollback.Versions{},
	}
	for _, id := range providers() {
		h.guests = append(h.guests, &guest{id: id})
	}
	if err := h.boot(); err != nil {
		return nil, err
	}
	return h, nil
}

// boot opens the store and resumes every provider, as the platform does after a power cut.
func (h *Host) boot() error {
	var err error
	c := store.Config{Dir: storeDir, Disk: h.disk, Now: func() time.Time { return h.now }}
	if h.store, err = store.Open(c); err != nil {
		return err
	}
	if err := h.ledger.Found(h.store); err != nil {
		return wrong(err)
	}
	for _, g := range h.guests {
		*g = guest{id: g.id, promotions: g.promotions, rollbacks: g.rollbacks}
		engine, err := h.take(rollback.Engine, g.id+" 1", traits{})
		if err != nil {
			return err
		}
		content, err := h.take(rollback.Content, g.id+" content 1", traits{})
		if err != nil {
			return err
		}
		st, todo, err := h.store.Resume(g.id, rollback.Versions{Engine: engine, Content: content})
		if err != nil {
			return err
		}
		g.st, g.standing = st, newStanding(h.numbers, &h.Count, st.Generation)
		if err := h.carryOut(g, todo); err != nil {
			return err
		}
		if g.st.Runnable() {
			if err := h.supervise(g, supervisor.Input{Kind: supervisor.Enable}); err != nil {
				return err
			}
		}
	}
	return nil
}

// clock is the standings' clock.
func (h *Host) clock() time.Duration { return h.now.Sub(h.first) }

// take imports a package that is like t.
func (h *Host) take(part rollback.Part, label string, t traits) (rollback.Version, error) {
	p, err := h.store.ImportArchive(part, label, bytes.NewReader(Archive(part, label)))
	if err == nil {
		h.worth[p.Digest] = t
	}
	return rollback.Version{Digest: p.Digest, Label: label, Origin: "simulation"}, err
}

// feed lets a provider's versions take a step.
func (h *Host) feed(g *guest, in rollback.Input) error {
	was := g.st
	st, todo := g.st.Next(rollback.Defaults(), h.now, in)
	g.st = st
	for _, e := range todo {
		switch e.Act {
		case rollback.Activate:
			g.promotions++
			h.Count.Promotions++
		case rollback.RollBack:
			h.Count.Rollbacks++
			if in.Kind != rollback.RollBackNow {
				g.rollbacks++
			}
		case rollback.Refuse:
			h.Count.Refusals++
		case rollback.Isolate:
			h.Count.Quarantines++
		default: // not counted
		}
	}
	if err := stepped(&was, &g.st, in, todo); err != nil {
		return wrong(fmt.Errorf("%s: %w", g.id, err))
	}
	return h.carryOut(g, todo)
}

// carryOut does what a step said.
func (h *Host) carryOut(g *guest, todo []rollback.Effect) error {
	var answers []rollback.Input
	for _, e := range todo {
		var err error
		switch e.Act {
		case rollback.Keep:
			h.ledger.Tried(g.st)
			if err = h.store.Commit(g.st); err == nil {
				h.ledger.Acked(g.st.Provider)
			}
		case rollback.Check:
			// The throw-away load: what dies of it is refused before anything is asked.
			answers = append(answers, rollback.Input{
				Kind: rollback.Checked, Part: e.Part, Digest: e.Version.Digest, Cause: "signal 11",
				OK: !h.worth[e.Version.Digest].unloaded,
			})
		case rollback.StartBeside:
			err = h.startBeside(g, e)
		case rollback.StopBeside:
			g.beside = nil
		case rollback.Activate, rollback.RollBack:
			err = h.replace(g)
			g.standing.renew(h.clock(), g.st.Generation)
		case rollback.Isolate:
			err = h.supervise(g, supervisor.Input{Kind: supervisor.Disable})
		case rollback.Release:
			err = h.supervise(g, supervisor.Input{Kind: supervisor.Enable})
		case rollback.MarkLKG, rollback.Refuse, rollback.Notify:
		}
		if err != nil {
			return err
		}
	}
	for _, in := range answers {
		if err := h.feed(g, in); err != nil {
			return err
		}
	}
	return nil
}

// replace lets the active versions run instead of those before.
func (h *Host) replace(g *guest) error {
	if !g.st.Runnable() || g.sup.State == "" {
		return nil
	}
	if err := h.supervise(g, supervisor.Input{Kind: supervisor.Disable}); err != nil {
		return err
	}
	return h.supervise(g, supervisor.Input{Kind: supervisor.Enable})
}

func (h *Host) startBeside(g *guest, e rollback.Effect) error {
	if _, err := h.store.Path(e.Version.Digest); err != nil {
		return wrong(fmt.Errorf("%s: on trial: %w", g.id, err))
	}
	engine, content := g.st.Engine.Active.Digest, g.st.Content.Active.Digest
	if e.Part == rollback.Engine {
		engine = e.Version.Digest
	} else {
		content = e.Version.Digest
	}
	g.beside = &process{
		traits: h.worth[engine].with(h.worth[content]), engine: engine, content: content, part: e.Part,
		ready: h.now.Add(time.Second),
	}
	return nil
}

// supervise lets a provider's supervisor take a step, and does what it says.
func (h *Host) supervise(g *guest, in supervisor.Input) error {
	next, todo := g.sup.Next(supervisor.Defaults(), h.now, in)
	g.sup = next
	for _, e := range todo {
		switch e {
		case supervisor.Start:
			if err := h.start(g); err != nil {
				return err
			}
		case supervisor.Kill, supervisor.Drain:
			g.run = nil
			if err := h.supervise(g, supervisor.Input{Kind: supervisor.Ended}); err != nil {
				return err
			}
		}
	}
	return nil
}

func (h *Host) start(g *guest) error {
	if !g.st.Runnable() || g.run != nil {
		return wrong(fmt.Errorf("%s is started, though quarantined or running: %+v", g.id, g.st.Quarantine))
	}
	engine, content := g.st.Engine.Active.Digest, g.st.Content.Active.Digest
	for _, d := range []rollback.Digest{engine, content} {
		if _, err := h.store.Path(d); err != nil {
			return wrong(fmt.Errorf("%s: %w", g.id, err))
		}
	}
	g.run = &process{
		traits: h.worth[engine].with(h.worth[content]), engine: engine, content: content, hash: hash(content),
		generation: g.st.Generation, ready: h.now.Add(time.Duration(h.rng.IntN(2000)) * time.Millisecond),
	}
	g.standing.hurry(h.clock())
	return nil
}

// crash ends a provider's process by itself.
func (h *Host) crash(g *guest, cause string) error {
	generation := g.run.generation
	g.run = nil
	h.Count.Crashes++
	if err := h.supervise(g, supervisor.Input{Kind: supervisor.Ended, Cause: cause}); err != nil {
		return err
	}
	return h.feed(g, rollback.Input{Kind: rollback.Crashed, Cause: cause, Generation: generation})
}
