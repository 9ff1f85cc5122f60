package session

import (
	"bytes"
	"slices"
	"strings"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/wire"
	pb "github.com/keepout-security/keepout/wire/keepoutpb"
)

// Filter is a compiled subscription. It is immutable.
type Filter struct {
	Descriptor bool // the object's descriptor is wanted
	Digest     bool // the digest is wanted, and the descriptor only where there is none or when asked for
	Fresh      bool // votes are not remembered
	AnyType    bool // votes do not depend on the event's type
	ByActor    bool // votes depend on the actor, so they are not shared between processes

	types          [event.Delete + 1]bool
	selects, mutes prefixSet
	minSize        int64
	maxSize        int64 // 0: no bound
	magic          [][]byte
}

// newFilter compiles a checked subscription. Types that this version does not know are left out.
func newFilter(m *pb.Subscribe) *Filter {
	f := &Filter{
		selects: newPrefixSet(m.GetSelectPrefix()), mutes: newPrefixSet(m.GetMutePrefix()),
		minSize: clampSize(m.GetMinSize()), maxSize: clampSize(m.GetMaxSize()), magic: m.GetMagic(),
		Descriptor: m.GetAccess() == pb.Access_ACCESS_DESCRIPTOR, ByActor: m.GetByActor(),
		Fresh: m.GetFresh(), AnyType: m.GetAnyType(), Digest: m.GetAccess() == pb.Access_ACCESS_DIGEST,
	}
	for _, t := range m.GetEvents() {
		if t > 0 && int(t) < len(f.types) {
			f.types[t] = true
		}
	}
	return f
}

func clampSize(n uint64) int64 { return int64(min(n, 1<<62)) }

// Types lists the event types that the filter selects.
func (f *Filter) Types() []event.Type {
	return slices.DeleteFunc(event.Types(), func(t event.Type) bool { return !f.types[t] })
}

// Wants reports whether events of type t are selected.
func (f *Filter) Wants(t event.Type) bool { return f.types[t] }

// HasMagic reports whether Matches needs the object's first bytes.
func (f *Filter) HasMagic() bool { return len(f.magic) > 0 }

// Matches reports whether ev, taken as an event of type t, is wanted. Where the path is not sure, prefixes are passed
// over: a provider rather sees too much. head holds the object's first MagicLen
// bytes; nil means that they could not be had at once, and then the event is delivered rather than lost.
func (f *Filter) Matches(t event.Type, ev *event.Event, head []byte) bool {
	if !f.types[t] {
		return false
	}
	if t.Auth() && (ev.File.Size < f.minSize || f.maxSize != 0 && ev.File.Size > f.maxSize) {
		return false
	}
	if !ev.File.PathUnsure &&
		(len(f.selects) > 0 && !f.selects.covers(ev.File.Path) || f.mutes.covers(ev.File.Path)) {
		return false
	}
	if !t.Auth() || head == nil || len(f.magic) == 0 {
		return true
	}
	return slices.ContainsFunc(f.magic, func(m []byte) bool { return bytes.HasPrefix(head, m) })
}

// MagicLen is how many first bytes Matches may need.
const MagicLen = wire.MaxMagic

// prefixSet is a set of directories. A look-up walks up the path, so its cost does not grow with the set.
type prefixSet map[string]struct{}

func newPrefixSet(prefixes []string) prefixSet {
	set := make(prefixSet, len(prefixes))
	for _, p := range prefixes {
		set[strings.TrimRight(p, "/")] = struct{}{}
	}
	return set
}

// covers reports whether path is one of the directories or below one.
func (s prefixSet) covers(path string) bool {
	if len(s) == 0 {
		return false
	}
	for {
		if _, ok := s[path]; ok {
			return true
		}
		i := strings.LastIndexByte(path, '/')
		if i < 0 {
			return false
		}
		path = path[:i]
	}
}
