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
	acked map[string][]byte   // the last state of each provider whose Commit returned nil
	tried map[string][][]byte // the states since, whose Commit did not
}

// NewLedger returns an empty one.
func NewLedger() *Ledger { return &Ledger{acked: map[string][]byte{}, tried: map[string][][]byte{}} }

// Tried notes that a state is about to be committed.
func (l *Ledger) Tried(st rollback.State) error {
	text, err := json.Marshal(st)
	if err != nil {
		return fmt.Errorf("encode a state: %w", err)
	}
	l.tried[st.Provider] = append(l.tried[st.Provider], text)
	return nil
}

// Acked notes that the state tried last was committed.
func (l *Ledger) Acked(provider string) {
	all := l.tried[provider]
	if len(all) > 0 {
		l.acked[provider], l.tried[provider] = all[len(all)-1], nil
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
		text, err := json.Marshal(st)
		if err != nil {
			return fmt.Errorf("encode a state: %w", err)
		}
		known := bytes.Equal(text, l.acked[provider]) || l.acked[provider] == nil && l.tried[provider] == nil
		for _, t := range l.tried[provider] {
			known = known || bytes.Equal(text, t)
		}
		if !known {
			return fmt.Errorf("%s: found a state that is neither the last committed one nor newer:\n%s\nlast committed:\n%s",
				provider, text, l.acked[provider])
		}
	}
	return nil
}
