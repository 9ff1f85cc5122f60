package docket

import (
	"testing"
	"time"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/session"
)

// TestRecent: it follows what votes take now, from slow to quick and back.
func TestRecent(t *testing.T) {
	t.Parallel()
	l := NewLatency()
	if got := l.Recent(); got != 0 {
		t.Errorf("before the first vote: %v", got)
	}
	for _, took := range []time.Duration{time.Second, 10 * time.Microsecond, time.Millisecond} {
		for range 200 {
			l.Add(took)
		}
		if got := l.Recent(); got < took-took/10 || got > took+took/10 {
			t.Errorf("after 200 votes of %v: %v", took, got)
		}
	}
}

// TestPrompt: readers wait for votes if there are any to wait for, and if all of those come quickly.
func TestPrompt(t *testing.T) {
	t.Parallel()
	seat := func(mode event.Mode, took time.Duration) question {
		l := NewLatency()
		for range 50 {
			l.Add(took)
		}
		return question{member: &Member{Session: &session.Session{}, Mode: mode, Latency: l}}
	}
	const quick, slow = attendFor / 2, attendFor * 2
	known, gone := seat(event.Enforce, slow), seat(event.Enforce, slow)
	known.memory.known = true
	gone.member.Session = nil
	for name, c := range map[string]struct {
		asked      []question
		processors int
		want       bool
	}{
		"nobody":                       {nil, 8, false},
		"quick":                        {[]question{seat(event.Enforce, quick)}, 8, true},
		"slow":                         {[]question{seat(event.Enforce, slow)}, 8, false},
		"one of them slow":             {[]question{seat(event.Enforce, quick), seat(event.Enforce, slow)}, 8, false},
		"the slow one only looks on":   {[]question{seat(event.Enforce, quick), seat(event.Audit, slow)}, 8, true},
		"the slow one has voted":       {[]question{seat(event.Enforce, quick), known}, 8, true},
		"the slow one is down":         {[]question{seat(event.Enforce, quick), gone}, 8, true},
		"there is nobody to wait for":  {[]question{known, gone, seat(event.Audit, quick)}, 8, false},
		"nobody has ever voted so far": {[]question{seat(event.Enforce, 0)}, 8, true},
		"one processor":                {[]question{seat(event.Enforce, quick)}, 1, false},
		"one beside the reader's":      {[]question{seat(event.Enforce, quick)}, 2, true},
		"and two providers":            {[]question{seat(event.Enforce, quick), seat(event.Enforce, quick)}, 2, false},
		"two providers, three":         {[]question{seat(event.Enforce, quick), seat(event.Enforce, quick)}, 3, true},
	} {
		if got := prompt(c.asked, c.processors); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
