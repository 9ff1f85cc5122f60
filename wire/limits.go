package wire

import "slices"

// Versions of the protocol.
const (
	Major = 1 // a difference is a break
	Minor = 1 // a difference is a feature
)

// MinorDigest is the minor version that brought ACCESS_DIGEST and ACTION_READ.
const MinorDigest = 1

// Majors lists the major versions that this build speaks, newest first.
func Majors() []uint32 { return []uint32{Major} }

// Choose returns the newest major version that both sides speak.
func Choose(offered []uint32) (uint32, bool) {
	for _, major := range Majors() {
		if slices.Contains(offered, major) {
			return major, true
		}
	}
	return 0, false
}

// Limits of what a peer may send. A packet beyond them breaks the protocol.
const (
	MaxPacket   = 64 << 10 // bytes in one packet
	MaxText     = 256      // bytes in a rule, detail or version
	MaxPrefixes = 1024     // path prefixes in one subscription, select and mute each
	MaxPath     = 4096     // bytes in a path or prefix (PATH_MAX)
	MaxMagics   = 64       // magics in one subscription
	MaxMagic    = 16       // bytes in one magic
	MaxVersions = 16       // versions in a Hello
)

// Descriptors that a provider inherits.
const (
	AuthFD    = 3 // auth events and votes
	ControlFD = 4 // everything else
)
