package unit

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestDurationRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		want := Duration(rapid.Int64Min(0).Draw(t, "nanoseconds"))
		text, err := want.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		var got Duration
		if err := got.UnmarshalText(text); err != nil || got != want {
			t.Fatalf("%d became %q and then %d, %v", want, text, got, err)
		}
	})
}

func TestSizeRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		unit := rapid.SampledFrom([]uint64{1, 1 << 10, 1 << 20, 1 << 30}).Draw(t, "unit")
		want := Size(rapid.Uint64Max(math.MaxInt64/unit).Draw(t, "number") * unit)
		text, err := want.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		var got Size
		if err := got.UnmarshalText(text); err != nil || got != want {
			t.Fatalf("%d became %q and then %d, %v", want, text, got, err)
		}
	})
}

func TestPercentRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		want := Percent(rapid.UintRange(1, 100_000).Draw(t, "percent"))
		text, err := want.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		var got Percent
		if err := got.UnmarshalText(text); err != nil || got != want {
			t.Fatalf("%d became %q and then %d, %v", want, text, got, err)
		}
	})
}

// TestUnitsRefuse: nothing but the documented form is read, and what is refused leaves the value alone.
func TestUnitsRefuse(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.OneOf(
			rapid.String(), rapid.StringMatching(`[-+]?[0-9.]{0,20}( ?[kKMGTm]?i?[Bbs%h]?)`),
		).Draw(t, "text")
		d, s, p := Duration(7), Size(7), Percent(7)
		if d.UnmarshalText([]byte(text)) != nil && d != 7 {
			t.Errorf("%q was refused as a duration and became %d", text, d)
		}
		if s.UnmarshalText([]byte(text)) != nil && s != 7 || s > math.MaxInt64 {
			t.Errorf("%q as a size became %d", text, s)
		}
		if p.UnmarshalText([]byte(text)) != nil && p != 7 || p == 0 || p > 100_000 {
			t.Errorf("%q as a share became %d", text, p)
		}
		if d < 0 {
			t.Errorf("%q became the negative duration %v", text, time.Duration(d))
		}
	})
}

func TestUnits(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Size{
		"0B": 0, "7B": 7, "512KiB": 512 << 10, "256MiB": 256 << 20, "2GiB": 2 << 30,
		"8589934591GiB": math.MaxInt64 >> 30 << 30,
	} {
		var got Size
		if err := got.UnmarshalText([]byte(text)); err != nil || got != want {
			t.Errorf("size %q: %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", "1", "1KB", "1kib", "-1B", "+1B", " 1B", "1 B", "1.5GiB", "KiB", "8589934592GiB", "1e3B",
	} {
		if err := new(Size).UnmarshalText([]byte(text)); err == nil {
			t.Errorf("size %q is accepted", text)
		}
	}
	for _, text := range []string{"", "50", "%", "0%", "-1%", "1.5%", "100001%", "50 %", "50%%", "4294967297%"} {
		if err := new(Percent).UnmarshalText([]byte(text)); err == nil {
			t.Errorf("share %q is accepted", text)
		}
	}
	for _, text := range []string{"", "5", "-1s", "1d", "1 s", "9223372036854775808ns"} {
		if err := new(Duration).UnmarshalText([]byte(text)); err == nil {
			t.Errorf("duration %q is accepted", text)
		}
	}
}
