package verdictcache

import (
	"hash/maphash"

	"github.com/keepout-security/keepout/event"
)

// Key stands for one question: 128 bits under seeds that nobody outside knows, so that two questions cannot be made to
// share one.
type Key struct{ a, b uint64 }

// Question is what a vote may depend on. A provider whose votes depend on more must not have them remembered.
type Question struct {
	Type    event.Type // as which the provider is asked
	Version event.Version
	Path    string // the hint that the provider sees
	Unsure  bool   // whether the path is
}

// Seeds makes keys. The zero value is not valid.
type Seeds struct{ a, b maphash.Seed }

// NewSeeds draws seeds for the life of a process.
func NewSeeds() Seeds { return Seeds{maphash.MakeSeed(), maphash.MakeSeed()} }

// Key returns q's key. It does not allocate.
func (s *Seeds) Key(q *Question) Key {
	return Key{maphash.Comparable(s.a, *q), maphash.Comparable(s.b, *q)}
}
