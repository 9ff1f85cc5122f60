package fleet

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/keepout-security/keepout/internal/fleet/store"
	"github.com/keepout-security/keepout/internal/recovery/diagnostics"
)

// remembered is how many earlier instances of a host's fetcher are remembered to tell clones apart.
const remembered = 4

// member is one host in memory, so that a check-in needs no query. What it says is in the store, too, a flush later.
type member struct {
	id string

	mu        sync.Mutex
	host      store.Host
	earlier   []string // instances before the present one
	waiter    *poll
	lastBoot  string
	installed []store.Installed // as the last check-in said
}

// roll is every host that is enrolled.
type roll struct {
	mu      sync.RWMutex
	members map[string]*member
	names   map[string]string // pseudonyms to ids
}

func newMember(h store.Host) *member {
	return &member{id: h.ID, host: h, installed: h.Installed, lastBoot: h.BootID}
}

// loadRoll reads all hosts.
func loadRoll(ctx context.Context, s store.Store) (*roll, error) {
	r := &roll{members: map[string]*member{}, names: map[string]string{}}
	err := s.View(ctx, func(read store.Reader) error {
		for after := ""; ; {
			page, err := read.Hosts(after, "", store.Page)
			if err != nil || len(page) == 0 {
				return err
			}
			for i := range page {
				r.members[page[i].ID] = newMember(page[i])
				r.name(&page[i])
			}
			after = page[len(page)-1].ID
		}
	})
	if err != nil {
		return nil, fmt.Errorf("read the hosts: %w", err)
	}
	return r, nil
}

// name notes the pseudonym under which a host's recovery environment reports. The first host with it keeps it: a
// second one is quarantined at enrolment.
func (r *roll) name(h *store.Host) {
	if h.MachineID == "" || h.State == store.Retired {
		return
	}
	for _, n := range []string{diagnostics.Pseudonym(h.MachineID), h.MachineID} {
		if first := r.members[r.names[n]]; first == nil || first.snapshotState() == store.Retired {
			r.names[n] = h.ID
		}
	}
}

// alias finds the active host with a pseudonym, or nil.
func (r *roll) alias(name string) *member {
	r.mu.RLock()
	m := r.members[r.names[name]]
	r.mu.RUnlock()
	if m == nil || m.snapshotState() != store.Active {
		return nil
	}
	return m
}

func (r *roll) find(id string) *member {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.members[id]
}

// put adds a host, or replaces what is known of it.
func (r *roll) put(h store.Host) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if m := r.members[h.ID]; m != nil {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.host = h
		return
	}
	r.members[h.ID] = newMember(h)
	r.name(&h)
}

// all lists the members in the order of their ids.
func (r *roll) all() []*member {
	r.mu.RLock()
	defer r.mu.RUnlock()
	list := slices.Collect(maps.Values(r.members))
	slices.SortFunc(list, func(a, b *member) int {
		if a.id < b.id {
			return -1
		}
		return 1
	})
	return list
}

// snapshot is a copy that nobody changes.
func (m *member) snapshot() store.Host {
	m.mu.Lock()
	defer m.mu.Unlock()
	h := m.host
	h.Installed = m.installed
	return h
}

// standing says whether a certificate with this serial is the host's, and what to do about it otherwise.
type standing int

const (
	current  standing = iota
	promoted          // the renewed certificate is used for the first time: from now on only it counts
	clone             // it was replaced: somebody has a copy of an old identity
)

// recognise compares a certificate's serial with the host's.
func (m *member) recognise(serial string) standing {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch serial {
	case m.host.Serial:
		return current
	case m.host.Pending:
		m.host.Serial, m.host.Pending = serial, ""
		return promoted
	default:
		return clone
	}
}

// see notes who is checking in. It reports true when an instance comes back that another had replaced: two machines
// use one identity at the same time.
func (m *member) see(instance, bootID string, now time.Time) (twice bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.host.LastSeen, m.lastBoot = now, bootID
	switch {
	case instance == "" || instance == m.host.Instance:
	case slices.Contains(m.earlier, instance):
		twice = true
	case m.host.Instance == "":
		m.host.Instance = instance
	default:
		m.earlier = append(m.earlier, m.host.Instance)
		if len(m.earlier) > remembered {
			m.earlier = m.earlier[1:]
		}
		m.host.Instance = instance
	}
	return twice
}

// poll is one long-poll.
type poll struct {
	woken    chan struct{} // closed when there may be something new, or by a newer poll
	replaced bool          // by a newer poll; to be read after woken is closed
}

// wait registers the member's only long-poll; an older one ends at once.
func (m *member) wait() *poll {
	mine := &poll{woken: make(chan struct{})}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.waiter != nil {
		m.waiter.replaced = true
		close(m.waiter.woken)
	}
	m.waiter = mine
	return mine
}

// leave ends a poll.
func (m *member) leave(p *poll) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.waiter == p {
		m.waiter = nil
	}
}

// wake ends the member's long-poll, if there is one.
func (m *member) wake() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.waiter != nil {
		close(m.waiter.woken)
		m.waiter = nil
	}
}
