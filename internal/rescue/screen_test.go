package rescue

import (
	"testing"
	"time"

	"github.com/keepout-security/keepout/internal/crash"
	"github.com/keepout-security/keepout/internal/crashscreen"
)

// TestTheSamePictureIsNotDrawnAgain: but for one that something else may have drawn over, and for another page.
func TestTheSamePictureIsNotDrawnAgain(t *testing.T) {
	t.Parallel()
	now := time.Now()
	record := func(step string) *crash.Record {
		return &crash.Record{Code: "AAAA-AAAA", Steps: []crash.Step{{Text: step}}}
	}
	p := picture{record: record("x"), page: crashscreen.Main, at: now}
	for name, c := range map[string]struct {
		record *crash.Record
		page   crashscreen.Page
		at     time.Time
		want   bool
	}{
		"the same":          {record("x"), crashscreen.Main, now.Add(time.Second), true},
		"another step":      {record("y"), crashscreen.Main, now.Add(time.Second), false},
		"the details":       {record("x"), crashscreen.Details, now.Add(time.Second), false},
		"after a while":     {record("x"), crashscreen.Main, now.Add(redraw), false},
		"the clock jumped":  {record("x"), crashscreen.Main, now.Add(-time.Hour), false},
		"nothing drawn yet": {nil, crashscreen.Main, now, false},
	} {
		if got := p.shows(c.record, c.page, c.at); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	if (&picture{}).shows(nil, crashscreen.Main, now) {
		t.Error("an empty screen shows something")
	}
}
