package content

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Range is an inclusive range of whole numbers, written as "7", "1..7", "1.." or "..7". The zero value was not
// written and holds everything.
type Range struct {
	Min, Max int64

	set bool
}

// UnmarshalText reads the written form.
func (r *Range) UnmarshalText(b []byte) error {
	low, high, isRange := strings.Cut(string(b), "..")
	if !isRange {
		high = low
	}
	v := Range{Min: math.MinInt64, Max: math.MaxInt64, set: true}
	var err error
	if low != "" {
		v.Min, err = strconv.ParseInt(low, 10, 64)
	}
	if high != "" && err == nil {
		v.Max, err = strconv.ParseInt(high, 10, 64)
	}
	if err != nil || low == "" && high == "" || v.Min > v.Max {
		return fmt.Errorf("%q is not a range: write a number, or for example 1..7, 1.. or ..7", b)
	}
	*r = v
	return nil
}

// MarshalText is the inverse of UnmarshalText; a range that was not written is empty.
func (r Range) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// String is the written form.
func (r Range) String() string {
	switch {
	case !r.set:
		return ""
	case r.Min == r.Max:
		return strconv.FormatInt(r.Min, 10)
	}
	var b strings.Builder
	if r.Min != math.MinInt64 {
		b.WriteString(strconv.FormatInt(r.Min, 10))
	}
	b.WriteString("..")
	if r.Max != math.MaxInt64 {
		b.WriteString(strconv.FormatInt(r.Max, 10))
	}
	return b.String()
}

// holds reports whether n is in the range, or in the range from low where none was written.
func (r Range) holds(n, low int64) bool {
	if !r.set {
		return n >= low
	}
	return n >= r.Min && n <= r.Max
}
