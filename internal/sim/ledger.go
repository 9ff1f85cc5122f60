package sim

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/keepout-security/keepout/internal/rollback"
	"github.com/keepout-security/keepout/internal/store"
)

// Ledger remembers what a store was told, to judge what it still knows after a power cut.
type Ledger struct {
	acked map[string]*rollback.State  // the last of each provider whose Commit returned nil
	tried map[string][]rollback.State // those since, whose Commit did not
}

// NewLedger returns an empty one.
func NewLedger() *Ledger {
	return &Ledger{acked: map[string]*rollback.State{}, tried: map[string][]rollback.State{}}
}

// Tried notes that a state is about to be committed.
func (l *Ledger) Tried(st rollback.State) { l.tried[st.Provider] = append(l.tried[st.Provider], st) }

// Acked notes that the state tried last was committed.
func (l *Ledger) Acked(provider string) {
	all := l.tried[provider]
	if len(all) > 0 {
		l.acked[provider], l.tried[provider] = &all[len(all)-1], nil
	}
}

// Found judges a store that was just opened: of each provider it knows the last committed state, or one that was
// being committed; never an older one, and never none. About a provider that it was told nothing of, any is right.
func (l *Ledger) Found(s *store.Store) error {
	for _, provider := range providers() {
		st, ok := s.State(provider)
		if !ok {
			if l.acked[provider] != nil {
				return fmt.Errorf("%s: a committed state is gone", provider)
			}
			continue
		}
		if err := l.foundOne(st); err != nil {
			return err
		}
	}
	return nil
}

func (l *Ledger) foundOne(st rollback.State) error {
	acked, tried := l.acked[st.Provider], l.tried[st.Provider]
	if acked == nil && len(tried) == 0 {
		return nil
	}
	found, err := json.Marshal(st)
	if err != nil {
		return fmt.Errorf("encode a state: %w", err)
	}
	all := tried
	if acked != nil {
		all = append([]rollback.State{*acked}, tried...)
	}
	for _, known := range all {
		text, err := json.Marshal(known)
		if err != nil {
			return fmt.Errorf("encode a state: %w", err)
		}
		if bytes.Equal(text, found) {
			return nil
		}
	}
	return fmt.Errorf("%s: found a state that is neither the last committed one nor newer:\n%s\nlast committed:\n%+v",
		st.Provider, found, acked)
}
