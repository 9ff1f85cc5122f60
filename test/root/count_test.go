package root

import (
	"fmt"
	"testing"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/control"
	"github.com/keepout-security/keepout/internal/roster"
	"github.com/keepout-security/keepout/internal/session"
	"github.com/keepout-security/keepout/test/testhost"
)

// reconciled checks that every event that was delivered is accounted for.
func reconciled(t testing.TB, h *testhost.Host) {
	t.Helper()
	for _, p := range h.Status().Providers {
		c := p.Counters
		if c.Delivered != c.Answered+c.Late+c.Bypassed+c.Pending {
			t.Errorf("%s: delivered %d, answered %d + late %d + bypassed %d + pending %d",
				p.ID, c.Delivered, c.Answered, c.Late, c.Bypassed, c.Pending)
		}
	}
}

func provider(t testing.TB, s *control.Status, id string) roster.Status {
	t.Helper()
	for _, p := range s.Providers {
		if p.ID == id {
			return p
		}
	}
	t.Fatalf("no provider %q", id)
	return roster.Status{}
}

func counters(t testing.TB, h *testhost.Host, id string) session.Counters {
	t.Helper()
	return provider(t, h.Status(), id).Counters
}

// record waits for a verdict of this outcome on a path.
func record(t testing.TB, h *testhost.Host, path string, outcome event.Outcome) event.Verdict {
	t.Helper()
	var found *event.Verdict
	h.Until(fmt.Sprintf("%s on %s is recorded", outcome, path), func() bool {
		for _, rec := range h.Records(path) {
			if rec.Verdict.Outcome == outcome {
				found = &rec.Verdict
			}
		}
		return found != nil
	})
	return *found
}

// problem reports whether the status names a problem.
func problem(s *control.Status, code string) bool {
	for _, p := range s.Problems {
		if p.Code == code {
			return true
		}
	}
	return false
}

// given is how many verdicts the docket has given.
func given(s *control.Status) uint64 {
	v := s.Verdicts
	return v.Allowed + v.Denied + v.Timeout + v.Unavailable
}
