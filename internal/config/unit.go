package config

import "github.com/keepout-security/keepout/internal/unit"

// The units of a configuration, under the names that its types use.
type (
	// Duration is a length of time written as "150ms", "2s" or "1h30m".
	Duration = unit.Duration
	// Size is a number of bytes written as "512KiB", "256MiB" or "2GiB".
	Size = unit.Size
	// Percent is a share of one processor written as "50%".
	Percent = unit.Percent
)
