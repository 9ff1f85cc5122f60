package simulate

import (
	"time"

	"github.com/keepout-security/keepout/internal/rollout"
)

// machine is one host, in 32 bytes, because an event in a large fleet costs about as much as the memory it touches.
// Half of it is its rollout.Row. Times are in seconds: every input comes at a whole one.
type machine struct {
	granted, soaking, sampled, due uint32

	toggle uint32 // when it is switched on or off; of a dead one, when its beacon comes
	ask    uint32 // when it checks in; of one that is off or dead, when it counts as silent

	voted, what          uint16
	phase, ring, stratum uint8
	flags                uint8
}

// What a host is.
const (
	awake   = 1 << iota // it has a place in the queue, or had one
	on                  // switched on
	runsNew             // runs the release
	broken
	dead // broken, and does not check in
	liar
	skewed
	unused // has a grant that it will not use
	asked  // has tried once with a clock that is wrong
	doomed // the release will break it
)

// Flags of a machine.
const (
	server     = 1 << iota
	silent     // Row.Silent
	writtenOff // Row.WrittenOff
	often      // is expected each Numbers.CheckIn, not each Idle
	touched    // its bit in arena.touched is set
)

// row returns what is stored of a host. When it was seen last is left out: it decides nothing.
func (m *machine) row() rollout.Row {
	return rollout.Row{
		Known: true, Ring: int(m.ring), Stratum: int(m.stratum), Phase: rollout.Phase(m.phase),
		Silent: m.flags&silent != 0, WrittenOff: m.flags&writtenOff != 0, Voted: m.voted,
		GrantedAt: time.Duration(m.granted) * time.Second, SoakingAt: time.Duration(m.soaking) * time.Second,
		SampledAt: time.Duration(m.sampled) * time.Second, Due: time.Duration(m.due) * time.Second,
	}
}

// keep stores it; watched is how long a host that checks in often may say nothing.
func (m *machine) keep(from *rollout.Row, watched time.Duration) {
	m.phase, m.voted = uint8(from.Phase), from.Voted
	m.flags &= server | often | touched
	if from.Silent {
		m.flags |= silent
	}
	if from.WrittenOff {
		m.flags |= writtenOff
	}
	m.granted, m.soaking = uint32(from.GrantedAt/time.Second), uint32(from.SoakingAt/time.Second)
	m.sampled, m.due = uint32(from.SampledAt/time.Second), uint32(from.Due/time.Second)
	if from.Due == 0 || from.Seen == 0 {
		return
	}
	m.flags &^= often
	if from.Due-from.Seen <= watched {
		m.flags |= often
	}
}
