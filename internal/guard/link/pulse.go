package link

import (
	"fmt"
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// line keeps two counters apart, so that writing one does not slow down the processor that writes the other.
type line [56]byte

// Pulse is the page that the core writes and the guard reads. Whoever waits for an answer is either in the queue of
// the group or counted here: Taken minus Answered is what the core owes.
type Pulse struct {
	Taken    atomic.Uint64 // permission events that the core has read
	_        line
	Answered atomic.Uint64 // those that it has answered
	_        line
	Beat     atomic.Uint64 // times that it has looked at every deadline
	_        line
	Limit    atomic.Int64 // the stall limit in nanoseconds, which the core takes from its configuration
	Held     atomic.Bool  // the core holds leases, so somebody may wait for it without an event
	Asleep   atomic.Bool  // the guard sleeps, and wants to be woken by the next event or lease that the core takes
}

// firstLimit is the stall limit until the core has read its configuration.
const firstLimit = time.Second

// NewPulse makes a page that a child may inherit as a file.
func NewPulse() (*Pulse, *os.File, error) {
	fd, err := unix.MemfdCreate("keepout-pulse", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, nil, fmt.Errorf("memfd_create: %w", err)
	}
	file := os.NewFile(uintptr(fd), "pulse")
	if err := unix.Ftruncate(fd, int64(os.Getpagesize())); err != nil {
		_ = file.Close()
		return nil, nil, fmt.Errorf("size of the pulse: %w", err)
	}
	p, err := mapPulse(fd)
	if err != nil {
		_ = file.Close()
		return nil, nil, err
	}
	return p, file, nil
}

// mapPulse maps the page for the life of the process.
func mapPulse(fd int) (*Pulse, error) {
	b, err := unix.Mmap(fd, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map the pulse: %w", err)
	}
	return (*Pulse)(unsafe.Pointer(&b[0])), nil
}

// Sleep says that the guard sleeps from now on, and reports whether it may: the core has taken no event, and no lease,
// before it could see that.
func (p *Pulse) Sleep() bool {
	p.Asleep.Store(true)
	return p.Taken.Load() == p.Answered.Load() && !p.Held.Load()
}

// Reset makes the page fit for a new core. Preconditions: no core is running.
func (p *Pulse) Reset() {
	p.Taken.Store(0)
	p.Answered.Store(0)
	p.Beat.Store(0)
	p.Limit.Store(int64(firstLimit))
	p.Held.Store(false)
	p.Asleep.Store(false)
}
