package roster

import (
	"github.com/keepout-security/keepout/internal/docket"
	"github.com/keepout-security/keepout/internal/session"
)

// memory is what is remembered of the votes of the active version's present process. Another process begins with an
// empty one of its own: what is still asked of the one before it then cannot be taken for its votes.
type memory struct {
	now    *docket.Memory // nil before the first process
	of     *session.Session
	before uint64 // votes recalled from earlier ones
}

// about returns the memory of the votes that come over s.
func (m *memory) about(s *session.Session) *docket.Memory {
	if m.now == nil || m.of != s {
		m.before = m.recalled()
		m.now, m.of = docket.NewMemory(), s
	}
	return m.now
}

func (m *memory) recalled() uint64 {
	if m.now == nil {
		return m.before
	}
	return m.before + m.now.Recalled()
}

// remembered returns what is remembered of the votes that come over s, or nil.
func (l *lineage) remembered(s *session.Session) *docket.Memory {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.memory.of != s {
		return nil
	}
	return l.memory.now
}
