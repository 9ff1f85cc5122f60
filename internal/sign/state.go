package sign

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"
)

// MaxState bounds an encoded State, in bytes.
const MaxState = 4 << 20

const stateVersion = 1

// State is what a host remembers of all that it ever verified, so that nothing older is believed again. It only moves
// forward. The caller keeps it on the disk (internal/durable) and stores what Verify returns before acting on it. The
// zero State is that of a new host. A State is a value: no function of this package changes the one it is given.
type State struct {
	Version int `json:"version"`
	// TimeFloor is the latest time that both repositories, or the fleet's signed answers (Witness), have shown to be
	// past. A clock that is behind it is wrong.
	TimeFloor time.Time `json:"time_floor"`
	// Operator and Vendors are what was seen of the repositories, the latter by the operator's name for the vendor.
	Operator Seen            `json:"operator"`
	Vendors  map[string]Seen `json:"vendors,omitempty"`
	// Roles are the operator's roles as last seen: who may grant, halt and recover. They do not expire.
	Roles map[string]Role `json:"roles,omitempty"`
	// Lines are the releases of one provider and kind: "acme-edr/content".
	Lines map[string]Line `json:"lines,omitempty"`
}

// Seen is how far a host has seen one repository.
type Seen struct {
	Pin       string           `json:"pin,omitempty"`  // digest of the root file that trust began with
	Root      json.RawMessage  `json:"root,omitempty"` // the newest root file, whole
	Timestamp int64            `json:"timestamp,omitempty"`
	Snapshot  int64            `json:"snapshot,omitempty"`
	Files     map[string]int64 `json:"files,omitempty"` // version of each file in the snapshot
}

// Line is what a host remembers of one provider's engine or content.
type Line struct {
	// Floor is the lowest counter that may be activated or returned to.
	Floor uint64 `json:"floor,omitempty"`
	// Size is that of the release activated last, in bytes. 0 when there was none.
	Size int64 `json:"size,omitempty"`
}

// The operator's roles whose statements are sealed envelopes; State.Roles has them by these names.
const (
	RoleDirector = "director" // activation grants, answers with the time
	RoleHalt     = "halt"     // stop, or return to last-known-good; nothing else
	RoleRecovery = "recovery" // remediation for the recovery environment
)

// Opens verifies a statement by the role of the operator that was last seen under this name. Expiry plays no part: a
// halt is heard even when all metadata is old. Errors as Open.
func (s State) Opens(role, payloadType string, sealed []byte) ([]byte, []KeyID, error) {
	r := s.Roles[role]
	return Open(r.Keys, r.Threshold, payloadType, sealed)
}

// Witness raises the time floor to a time that a signed answer named, never lowers it, and never raises it beyond the
// end of the operator's root: a stolen online key must not put all metadata into the past for good. The caller has
// verified the answer (Opens with RoleDirector) and that it carries the nonce it asked with.
func (s State) Witness(at time.Time) State {
	s = s.clone()
	if end := s.rootEnd(); !end.IsZero() && at.After(end) {
		at = end
	}
	if at.After(s.TimeFloor) {
		s.TimeFloor = at.UTC().Truncate(time.Second)
	}
	return s
}

// rootEnd is when the operator's root expires; zero for a host that has none.
func (s State) rootEnd() time.Time {
	f, err := openFile(s.Operator.Root)
	var root rootFile
	if err != nil || f.read("root", &root) != nil {
		return time.Time{}
	}
	return root.Expires
}

// Activated remembers a release that the host now uses: the next content is compared with its size.
func (s State) Activated(t Target) State {
	s = s.clone()
	line := s.Lines[t.line()]
	line.Size = t.Size
	line.Floor = max(line.Floor, t.Floor)
	s.Lines[t.line()] = line
	return s
}

// Allows says whether a release that was verified earlier may be returned to: nil, or CodeFloor when it lies below
// the security floor. It takes no time and reads no metadata, so nothing that expires can keep a host from its
// last-known-good. It is no reason to stop what runs.
func (s State) Allows(r Release) error {
	if floor := s.Lines[r.line()].Floor; r.Counter < floor {
		return refuse(CodeFloor, fmt.Sprintf("install release %d or later; if nothing of that runs here, use the "+
			"recovery environment", floor), "%s %s (release %d) is below the security floor %d: it has a known hole",
			r.line(), r.Version, r.Counter, floor)
	}
	return nil
}

// Encode returns the state for the disk. The same state gives the same bytes.
func (s State) Encode() ([]byte, error) {
	s.Version = stateVersion
	out, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encode trust state: %w", err)
	}
	return append(out, '\n'), nil
}

// DecodeState reads what Encode wrote. No bytes at all are an error, not a new host: whoever loses the state must not
// silently believe old metadata again.
func DecodeState(data []byte) (State, error) {
	const next = "restore it from its second copy; a host without any enrols again"
	if len(data) > MaxState {
		return State{}, refuse(CodeState, next, "the trust state has %d bytes, more than %d", len(data), MaxState)
	}
	var s State
	if err := decodeStrict(data, &s); err != nil {
		return State{}, refuse(CodeState, next, "the trust state is damaged: %v", err)
	}
	if s.Version != stateVersion {
		return State{}, refuse(CodeState, "use the version of keepout that wrote it",
			"the trust state has version %d, this program knows %d", s.Version, stateVersion)
	}
	return s, nil
}

func (s State) clone() State {
	s.Version = stateVersion
	s.Operator = s.Operator.clone()
	vendors := make(map[string]Seen, len(s.Vendors))
	for name, seen := range s.Vendors {
		vendors[name] = seen.clone()
	}
	s.Vendors = vendors
	roles := make(map[string]Role, len(s.Roles))
	for name, r := range s.Roles {
		r.Keys = slices.Clone(r.Keys)
		roles[name] = r
	}
	s.Roles = roles
	s.Lines = maps.Clone(s.Lines)
	if s.Lines == nil {
		s.Lines = map[string]Line{}
	}
	return s
}

func (s Seen) clone() Seen {
	s.Root = slices.Clone(s.Root)
	s.Files = maps.Clone(s.Files)
	if s.Files == nil {
		s.Files = map[string]int64{}
	}
	return s
}
