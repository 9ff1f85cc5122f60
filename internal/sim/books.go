package sim

import (
	"fmt"
	"time"

	"github.com/keepout-security/keepout/internal/arbiter"
)

// books is an account of what one breaker may do. It is told what happens and what the breaker made of it, remembers
// all of that, and says where the two do not fit.
type books struct {
	outcomes []outcome // since it was closed, of the longest window
	down     bool      // it is not closed
	since    time.Duration
	shut     time.Duration // when it was opened, or opened again
	probing  bool          // a copy was sent since
	hurried  bool          // the process is a new one since
	probe    time.Duration // when the last copy was sent
	good     int           // answers since the first copy
	stuck    bool          // said so

	asked, probed, skipped                     uint64 // events, by what was to be done with them
	answers, missed, lost, cancelled, bypassed uint64 // events that were delivered, by what became of them
	openings                                   uint64
}

// outcome is one vote, or that it is missing.
type outcome struct {
	at     time.Duration
	missed bool
}

// ask judges what was to be done with an event.
func (b *books) ask(c arbiter.BreakerConfig, now time.Duration, route arbiter.Route, turn arbiter.Turn) error {
	if err := b.complained(c, now, turn); err != nil {
		return err
	}
	switch route {
	case arbiter.Ask:
		b.asked++
	case arbiter.Skip:
		b.skipped++
	case arbiter.Probe:
		b.probed++
	}
	if b.down == (route == arbiter.Ask) {
		return fmt.Errorf("route %d, and that it is bypassed is %v", route, b.down)
	}
	if !b.down {
		return nil
	}
	early := !b.hurried && now < b.shut+c.FirstWait
	if b.probing {
		early = now < b.probe+c.ProbeEvery
	}
	late := b.probing && !early || now >= b.shut+c.MaxWait && now >= b.probe+c.ProbeEvery
	switch {
	case route == arbiter.Probe && early:
		return fmt.Errorf("a copy is sent at %v, opened at %v, the last one sent at %v", now, b.shut, b.probe)
	case route == arbiter.Skip && late:
		return fmt.Errorf("no copy is sent at %v, opened at %v, the last one sent at %v", now, b.shut, b.probe)
	case route == arbiter.Probe && !b.probing:
		b.probing, b.good = true, 0
	}
	if route == arbiter.Probe {
		b.probe = now
	}
	return nil
}

// complained judges whether it says that it stays open, once and in time.
func (b *books) complained(c arbiter.BreakerConfig, now time.Duration, turn arbiter.Turn) error {
	due := b.down && !b.stuck && now-b.since >= c.Stuck
	if due != (turn == arbiter.Stuck) {
		return fmt.Errorf("turn %d after %v of being open, said before: %v", turn, now-b.since, b.stuck)
	}
	b.stuck = b.stuck || due
	return nil
}

// answer judges what a vote in time has changed.
func (b *books) answer(c arbiter.BreakerConfig, now time.Duration, turn arbiter.Turn) error {
	b.answers++
	enough := false
	switch {
	case !b.down:
		b.note(c, outcome{now, false})
	case b.probing:
		b.good++
		enough = b.good >= c.Probes
	}
	if enough != (turn == arbiter.Restored) {
		return fmt.Errorf("turn %d after %d good answers to copies", turn, b.good)
	}
	if enough {
		b.close()
	}
	return nil
}

// miss judges what a missing vote has changed.
func (b *books) miss(c arbiter.BreakerConfig, now time.Duration, turn arbiter.Turn) error {
	b.missed++
	if b.down {
		if b.probing {
			b.open(now)
		}
		return b.complained(c, now, turn)
	}
	b.note(c, outcome{now, true})
	enough := b.enough(c, now)
	if enough != (turn == arbiter.Opened) {
		return fmt.Errorf("turn %d, and that there are enough misses is %v: %d outcomes", turn, enough, len(b.outcomes))
	}
	if enough {
		b.down, b.since, b.stuck = true, now, false
		b.open(now)
	}
	return nil
}

func (b *books) open(now time.Duration) {
	b.shut, b.probing, b.hurried = now, false, false
	b.openings++
}

func (b *books) close() {
	b.down, b.probing, b.stuck = false, false, false
	b.outcomes = b.outcomes[:0]
}

// renew is a new start.
func (b *books) renew() { b.close() }

func (b *books) note(c arbiter.BreakerConfig, o outcome) {
	if len(b.outcomes) > 0 && o.at-b.outcomes[0].at > 2*c.Long {
		old := 0
		for old < len(b.outcomes) && o.at-b.outcomes[old].at > c.Long {
			old++
		}
		b.outcomes = append(b.outcomes[:0], b.outcomes[old:]...)
	}
	b.outcomes = append(b.outcomes, o)
}

// enough says from the whole memory whether a closed breaker opens at a miss.
func (b *books) enough(c arbiter.BreakerConfig, now time.Duration) bool {
	recent, all, missed := 0, 0, 0
	for _, o := range b.outcomes {
		within := slides(c.Long, o.at, now)
		if within {
			all++
		}
		if o.missed {
			if within {
				missed++
			}
			if now-o.at <= c.Window {
				recent++
			}
		}
	}
	return recent >= c.Misses || all >= c.Samples && missed*100 > all*c.Percent
}

// slides reports whether a moment lies in a window that ends now and slides by twelfths.
func slides(window, at, now time.Duration) bool {
	part := window / 12
	return at/part > now/part-12
}

// reconcile compares the counters when nothing is pending.
func (b *books) reconcile(v arbiter.BreakerView) error {
	if b.asked+b.probed != b.answers+b.missed+b.lost+b.cancelled+b.bypassed {
		return fmt.Errorf("of %d+%d delivered %d were answered, %d missed, %d lost, %d cancelled, %d bypassed",
			b.asked, b.probed, b.answers, b.missed, b.lost, b.cancelled, b.bypassed)
	}
	if v.Misses != b.missed || v.Bypassed != b.probed+b.skipped || v.Openings != b.openings ||
		b.down != (v.State != arbiter.Closed) {
		return fmt.Errorf("%+v, and there were %d misses, %d copies, %d passed by, %d openings, open: %v",
			v, b.missed, b.probed, b.skipped, b.openings, b.down)
	}
	return nil
}

// tempo is an account of what Pace may do.
type tempo struct {
	demoted     bool
	votes, slow int // since that changed
}

// vote judges what the time of a vote has changed. What it says, it says of the votes before this one.
func (t *tempo) vote(c arbiter.PaceConfig, took time.Duration, turn arbiter.PaceTurn) error {
	switch {
	case (turn == arbiter.TooSlow || turn == arbiter.MuchTooSlow) && (t.demoted || t.slow < c.Slow):
		return fmt.Errorf("too slow after %d slow votes of %d, demoted before: %v", t.slow, t.votes, t.demoted)
	case turn == arbiter.FastAgain && (!t.demoted || t.votes < c.Good*c.Calm):
		return fmt.Errorf("fast again after %d votes, demoted before: %v", t.votes, t.demoted)
	case turn != 0:
		*t = tempo{demoted: !t.demoted}
	}
	t.votes++
	if took > budget*time.Duration(c.Percent)/100 {
		t.slow++
	}
	return nil
}
