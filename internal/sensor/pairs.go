package sensor

import (
	"strings"
	"sync"
	"time"

	"github.com/keepout-security/keepout/event"
)

// maxPairs bounds the execs whose open half is still expected. When the table is full the oldest entry makes
// room, and that exec's open half is simply asked again.
const maxPairs = 1024

// pairTime is how long after the answer to an exec its open half is expected. The kernel raises it at once; where it
// did not come, because the caller was killed or the kernel remembers the object by then, nothing later may pass for
// it. On a host so busy that it comes later still, it is asked about.
const pairTime = time.Second

// pairs remembers execs that were just allowed: the kernel raises OPEN_EXEC_PERM and then OPEN_PERM for one
// execve(2), by the same process on the same file, and the second needs no second question.
type pairs struct {
	mu    sync.Mutex
	ring  [maxPairs]pairKey
	until [maxPairs]time.Time
	next  int
	index map[pairKey]int
	of    map[int32]int // how many of them a process has
}

type pairKey struct {
	pid     int32
	token   uint64
	version event.Version
}

// expect notes that ev, an exec, is allowed now. It must be called before the kernel has its answer.
func (p *pairs) expect(ev *event.Event, now time.Time) {
	key := pairKey{ev.Actor.PID, ev.Actor.Token, ev.File.Version}
	key.version.Handle = strings.Clone(key.version.Handle) // it outlives the question
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.index == nil {
		p.index, p.of = make(map[pairKey]int, maxPairs), make(map[int32]int, maxPairs)
	}
	old := p.ring[p.next]
	if i, ok := p.index[old]; ok && i == p.next {
		p.drop(old)
	}
	if _, known := p.index[key]; !known {
		p.of[key.pid]++
	}
	p.ring[p.next], p.until[p.next], p.index[key] = key, now.Add(pairTime), p.next
	p.next = (p.next + 1) % maxPairs
}

// take reports whether ev, an open, is the second half of an allowed exec, and forgets that exec.
func (p *pairs) take(ev *event.Event) bool {
	key := pairKey{ev.Actor.PID, ev.Actor.Token, ev.File.Version}
	p.mu.Lock()
	defer p.mu.Unlock()
	i, ok := p.index[key]
	if !ok {
		return false
	}
	p.drop(key)
	return ev.Time.Before(p.until[i])
}

// expects reports whether there is any open that take would take for the process with this number.
func (p *pairs) expects(pid int32) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.of[pid] > 0
}

// drop forgets one that is there. Preconditions: mu is held.
func (p *pairs) drop(key pairKey) {
	delete(p.index, key)
	if p.of[key.pid]--; p.of[key.pid] == 0 {
		delete(p.of, key.pid)
	}
}
