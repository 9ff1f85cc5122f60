// Package unit is numbers with units, as people write them in configuration files: each is read in exactly one form,
// and written in the same.
package unit

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Duration is a length of time written as "150ms", "2s" or "1h30m".
type Duration time.Duration

// UnmarshalText reads what time.ParseDuration reads, and nothing negative.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil || v < 0 {
		return fmt.Errorf("%q is not a duration: write a number and a unit, for example 150ms or 2s", b)
	}
	*d = Duration(v)
	return nil
}

// MarshalText is the inverse of UnmarshalText.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// Size is a number of bytes written as "512KiB", "256MiB" or "2GiB".
type Size uint64

// sizeUnits are tried in order, the longer suffix first.
var sizeUnits = []struct {
	suffix string
	bytes  uint64
}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"B", 1}}

// UnmarshalText reads a whole number and a unit.
func (s *Size) UnmarshalText(b []byte) error {
	for _, u := range sizeUnits {
		digits, ok := strings.CutSuffix(string(b), u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(digits, 10, 64)
		if err != nil || n > math.MaxInt64/u.bytes {
			break
		}
		*s = Size(n * u.bytes)
		return nil
	}
	return fmt.Errorf("%q is not a size: write a number and a unit, for example 256MiB", b)
}

// MarshalText is the inverse of UnmarshalText.
func (s Size) MarshalText() ([]byte, error) {
	best := sizeUnits[len(sizeUnits)-1]
	for _, u := range sizeUnits {
		if uint64(s) >= u.bytes && uint64(s)%u.bytes == 0 && u.bytes > best.bytes {
			best = u
		}
	}
	return fmt.Appendf(nil, "%d%s", uint64(s)/best.bytes, best.suffix), nil
}

// Percent is a share of one processor written as "50%".
type Percent uint

// UnmarshalText reads a whole number from 1 to 100000 and a percent sign.
func (p *Percent) UnmarshalText(b []byte) error {
	digits, ok := strings.CutSuffix(string(b), "%")
	n, err := strconv.ParseUint(digits, 10, 32)
	if !ok || err != nil || n == 0 || n > 100_000 {
		return fmt.Errorf("%q is not a share of one processor: write for example 50%%", b)
	}
	*p = Percent(n)
	return nil
}

// MarshalText is the inverse of UnmarshalText.
func (p Percent) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%d%%", uint(p)), nil }
