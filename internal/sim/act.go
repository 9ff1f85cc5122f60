package sim

import (
	"fmt"
	"time"

	"github.com/keepout-security/keepout/internal/rollback"
	"github.com/keepout-security/keepout/internal/supervisor"
)

// Step does one thing that happens to hosts, and judges what came of it.
func (h *Host) Step() error {
	err := h.act(h.rng.IntN(10_000))
	if h.disk.Dead() { // whatever it said in its last moments
		err = h.restart()
	}
	if err == nil {
		err = h.judge()
	}
	return err
}

func (h *Host) act(n int) error {
	g := h.guests[h.rng.IntN(len(h.guests))]
	switch {
	case n < 9000:
		h.now = h.now.Add(time.Duration(1+h.rng.IntN(50)) * time.Millisecond)
		return h.event()
	case n < 9400:
		return h.pass(time.Duration(1+h.rng.IntN(2000)) * time.Millisecond)
	case n < 9900:
		return h.pass(time.Duration(1+h.rng.IntN(60)) * time.Second)
	case n < 9950:
		return h.offer(g)
	case n < 9960:
		return h.operator(g)
	case n < 9980:
		_, err := h.store.Collect()
		return err
	case n < 9985:
		h.disk.CutAt(1 + h.rng.IntN(60)) // soon
		return nil
	case n < 9987:
		return h.stop()
	case n < 9988:
		g.weather = h.now.Add(time.Duration(h.rng.IntN(3600)) * time.Second)
		return nil
	case n < 9990:
		return h.pass(time.Duration(h.rng.IntN(48)) * time.Hour) // suspended, or its clock was set
	case n < 9998:
		return h.strain(g)
	case n < 9999:
		return h.rush(g)
	}
	return h.pass(time.Second)
}

// strain is what the host, and not a version, does to answers.
func (h *Host) strain(g *guest) error {
	if h.rng.IntN(4) > 0 {
		g.stalled = h.now.Add(time.Duration(h.rng.IntN(5000)) * time.Millisecond)
	} else {
		h.busy = h.now.Add(time.Duration(h.rng.IntN(1800)) * time.Second)
	}
	return nil
}

// rush is a minute full of callers, in which a provider misses one now and then: never often at a time.
func (h *Host) rush(g *guest) error {
	for i := range 500 {
		h.now = h.now.Add(100 * time.Millisecond)
		if i%60 == 0 {
			g.stalled = h.now.Add(1)
		}
		if err := h.event(); err != nil {
			return err
		}
	}
	return nil
}

// restart is a power cut and the boot after it, which may be cut as well.
func (h *Host) restart() error {
	for range 10 {
		h.Count.PowerCuts++
		h.disk = after(h.disk, h.rng)
		if h.rng.IntN(3) == 0 {
			h.disk.CutAt(1 + h.rng.IntN(100))
		}
		err := h.boot()
		if err == nil || !h.disk.Dead() {
			return err
		}
	}
	h.disk = h.disk.Crash(h.rng)
	return h.boot()
}

// stop ends the platform in order and starts it again.
func (h *Host) stop() error {
	for _, g := range h.guests {
		if err := h.feed(g, rollback.Input{Kind: rollback.Stopping}); err != nil {
			return err
		}
	}
	return h.boot()
}

// offer brings a new version, good or bad; now and then one that was there before.
func (h *Host) offer(g *guest) error {
	part := rollback.Parts()[h.rng.IntN(2)]
	if h.rng.IntN(10) > 0 {
		h.serial++
	}
	t := draw(h.rng)
	label := fmt.Sprintf("%s %d", part, h.serial)
	v, err := h.take(part, label, t)
	if err != nil {
		return err
	}
	h.Count.Offers++
	err = h.feed(g, rollback.Input{Kind: rollback.Offered, Part: part, Version: v})
	if g.st.Slots(part).Candidate.Digest != v.Digest {
		h.store.Release(v.Digest)
	}
	return err
}

// operator does what people do, also what they had better not.
func (h *Host) operator(g *guest) error {
	part := rollback.Parts()[h.rng.IntN(2)]
	switch h.rng.IntN(3) {
	case 0:
		return h.feed(g, rollback.Input{Kind: rollback.RollBackNow, Part: part})
	case 1:
		return h.feed(g, rollback.Input{Kind: rollback.Promote, Part: part})
	}
	refused := g.st.Slots(part).Refused
	if len(refused) == 0 {
		return nil
	}
	d := refused[h.rng.IntN(len(refused))].Version.Digest
	return h.feed(g, rollback.Input{Kind: rollback.Allow, Part: part, Digest: d})
}

// pass lets time go by for everybody.
func (h *Host) pass(d time.Duration) error {
	h.now = h.now.Add(d)
	for _, g := range h.guests {
		if err := h.proceed(g); err != nil {
			return err
		}
	}
	return nil
}

func (h *Host) proceed(g *guest) error {
	if err := h.load(g); err != nil {
		return err
	}
	if g.run != nil && g.sup.State == supervisor.Running {
		if err := h.supervise(g, supervisor.Input{Kind: supervisor.Beat}); err != nil {
			return err
		}
		g.standing.beat(g.run.hash)
	}
	if err := h.supervise(g, supervisor.Input{Kind: supervisor.Tick}); err != nil {
		return err
	}
	if err := h.tryOut(g); err != nil {
		return err
	}
	serving := g.run != nil && g.sup.State == supervisor.Running && g.standing.serves()
	return h.feed(g, rollback.Input{Kind: rollback.Tick, Serving: serving})
}

// load brings a process that was started to where it votes, or to its end.
func (h *Host) load(g *guest) error {
	if g.run == nil || g.sup.State != supervisor.Starting {
		return nil
	}
	if err := h.supervise(g, supervisor.Input{Kind: supervisor.Hello}); err != nil {
		return err
	}
	if g.run.traits.unloaded {
		return h.crash(g, "signal 11 while loading")
	}
	if err := h.supervise(g, supervisor.Input{Kind: supervisor.Subscribed}); err != nil {
		return err
	}
	return nil
}

// tryOut lets the candidate beside show what it is like, one thing after the other.
func (h *Host) tryOut(g *guest) error {
	b, t := g.beside, g.st.Trial
	if b == nil || h.now.Before(b.ready) {
		return nil
	}
	in := rollback.Input{Part: t.Part, Digest: t.Digest, OK: true}
	switch {
	case b.traits.unloaded || h.rng.Float64() < b.traits.crash*10:
		in.Kind, in.Cause, g.beside = rollback.BesideEnded, "signal 11", nil
	case !t.Loaded:
		in.Kind = rollback.Loaded
	case !t.SelfTest:
		in.Kind, in.OK = rollback.SelfTested, !b.traits.untested
	case !t.Budget:
		in.Kind, in.OK = rollback.Measured, !b.traits.slow || b.traits.sudden
	default:
		n := uint64(h.rng.IntN(200))
		b.samples += n
		b.differs += uint64(float64(n) * b.traits.differ)
		in.Kind, in.Samples, in.Differing = rollback.Compared, b.samples, b.differs
	}
	return h.feed(g, in)
}
