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
		asked []question
		want  bool
	}{
		"nobody":                       {nil, false},
		"quick":                        {[]question{seat(event.Enforce, quick)}, true},
		"slow":                         {[]question{seat(event.Enforce, slow)}, false},
		"one of them slow":             {[]question{seat(event.Enforce, quick), seat(event.Enforce, slow)}, false},
		"the slow one only looks on":   {[]question{seat(event.Enforce, quick), seat(event.Audit, slow)}, true},
		"the slow one has voted":       {[]question{seat(event.Enforce, quick), known}, true},
		"the slow one is down":         {[]question{seat(event.Enforce, quick), gone}, true},
		"there is nobody to wait for":  {[]question{known, gone, seat(event.Audit, quick)}, false},
		"nobody has ever voted so far": {[]question{seat(event.Enforce, 0)}, true},
	} {
		if got := prompt(c.asked); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
