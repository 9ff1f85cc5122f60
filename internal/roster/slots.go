package roster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"

	"github.com/keepout-security/keepout/internal/durable"
	"github.com/keepout-security/keepout/internal/sandbox"
)

// slots remembers which provider has which user id, because its state folder belongs to that id.
type slots struct {
	path string
	mu   sync.Mutex
	ids  map[string]int
}

func loadSlots(path string) (*slots, error) {
	s := &slots{path: path, ids: map[string]int{}}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read user ids: %w", err)
	}
	if err := json.Unmarshal(b, &s.ids); err != nil {
		return nil, fmt.Errorf("read user ids from %s: %w", path, err)
	}
	for id, slot := range s.ids {
		if slot < 0 || slot >= sandbox.MaxProviders {
			return nil, fmt.Errorf("read user ids from %s: slot %d of %q is out of range", path, slot, id)
		}
	}
	return s, nil
}

// of returns the slot of a provider, and gives it the lowest free one the first time.
func (s *slots) of(id string) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if slot, ok := s.ids[id]; ok {
		return slot, nil
	}
	taken := map[int]bool{}
	for _, slot := range s.ids {
		taken[slot] = true
	}
	for slot := range sandbox.MaxProviders {
		if taken[slot] {
			continue
		}
		s.ids[id] = slot
		b, err := json.Marshal(s.ids)
		if err == nil {
			err = durable.WriteFile(s.path, b, 0o600)
		}
		if err != nil {
			delete(s.ids, id)
			return 0, fmt.Errorf("keep the user id of %q: %w", id, err)
		}
		return slot, nil
	}
	return 0, fmt.Errorf("no user id left for %q: %d providers have been used; delete %s and the folders beside it",
		id, sandbox.MaxProviders, s.path)
}
