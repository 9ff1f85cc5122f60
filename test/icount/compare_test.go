package icount

import (
	"strings"
	"testing"
)

func TestCompare(t *testing.T) {
	t.Parallel()
	at := func(kernel string, bare, open int64) measured {
		return measured{Kernel: kernel, Go: "go", Instructions: map[string]int64{
			"no monitor: open": bare, "x: open": open, race: 10 * bare,
		}}
	}
	before := at("6.1", 1000, 10_000)
	for _, c := range []struct {
		name          string
		now           measured
		worse, better string // what a line holds, or ""
	}{
		{name: "the same", now: before},
		{name: "within the margin", now: at("6.1", 1000, 10_190)},
		{name: "worse", now: at("6.1", 1000, 10_210), worse: "x: open: +2.1 %"},
		{name: "better", now: at("6.1", 1000, 9_700), better: "x: open: -3.0 %"},
		{name: "another kernel makes everything slower", now: at("6.12", 1500, 15_000)},
		{name: "another kernel, and we are worse", now: at("6.12", 1500, 17_000), worse: "x: open: +13.3 %"},
		{name: "seeds differ more where three race", now: measured{Kernel: "6.1", Go: "go", Instructions: map[string]int64{
			"no monitor: open": 1000, "x: open": 10_000, race: 10_390,
		}}},
		{
			name: "new", now: measured{Kernel: "6.1", Go: "go", Instructions: map[string]int64{
				"no monitor: open": 1000, "x: open": 10_000, race: 10_000, "y: open": 1,
			}},
			worse: "y: open: not in the baseline",
		},
		{
			name: "gone", now: measured{Kernel: "6.1", Go: "go", Instructions: map[string]int64{
				"no monitor: open": 1000, race: 10_000,
			}},
			worse: "x: open: in the baseline",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			worse, better := compare(before, c.now)
			for what, pair := range map[string][2]string{
				"worse": {strings.Join(worse, "\n"), c.worse}, "better": {strings.Join(better, "\n"), c.better},
			} {
				if got, want := pair[0], pair[1]; (got == "") != (want == "") || !strings.Contains(got, want) {
					t.Errorf("%s: %q, want %q", what, got, want)
				}
			}
		})
	}
}
