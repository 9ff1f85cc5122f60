package plan

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/keepout-security/keepout/internal/boot"
)

// input draws anything that can happen, whether or not it was asked for.
func input(t *rapid.T, keys bool) Input {
	text := rapid.SampledFrom([]string{"", "no space left", "HTTP 500"})
	switch rapid.IntRange(0, 6).Draw(t, "kind") {
	case 0:
		return Input{Saved: &Saved{Trouble: text.Draw(t, "trouble")}}
	case 1:
		return Input{Linked: &Linked{Address: "10.0.2.15"}}
	case 2, 3:
		return Input{Answered: &Answered{
			Kind:  rapid.SampledFrom([]Kind{Fix, None, Refused, Failed, "?"}).Draw(t, "answer"),
			Why:   text.Draw(t, "why"),
			Retry: time.Duration(rapid.Int64().Draw(t, "hint")),
		}}
	case 4:
		return Input{Applied: &Applied{Trouble: text.Draw(t, "trouble")}}
	case 5:
		return Input{Reported: true}
	}
	if keys {
		return Input{Key: rapid.SampledFrom([]Key{Details, Safe, Off, Again, "x"}).Draw(t, "key")}
	}
	return Input{}
}

func facts(t *rapid.T) Facts {
	return Facts{
		Menu: rapid.Bool().Draw(t, "menu"), Test: rapid.Bool().Draw(t, "test"), Alone: rapid.Bool().Draw(t, "alone"),
		Unusable: rapid.SampledFrom([]string{"", "", "read-only"}).Draw(t, "unusable"),
		Suspect:  boot.Crumb{Provider: rapid.SampledFrom([]string{"", "acme"}).Draw(t, "suspect")},
		Visits:   rapid.IntRange(0, 5).Draw(t, "visits"),
	}
}

// TestEveryVisitEnds plays visits in which anything happens at any time and nobody presses a key.
func TestEveryVisitEnds(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		config := Config{
			NetworkWait: time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "network")),
			TotalWait:   time.Duration(rapid.Int64Range(0, int64(10*time.Hour)).Draw(t, "total")),
			OneScan:     rapid.Bool().Draw(t, "one"),
		}
		f := facts(t)
		now := start
		s, effects := Begin(now, config, f)
		for range rapid.IntRange(0, 30).Draw(t, "inputs") {
			now = now.Add(time.Duration(rapid.Int64Range(0, int64(5*time.Minute)).Draw(t, "passes")))
			var more []Effect
			s, more = s.Step(now, input(t, false))
			effects = append(effects, more...)
		}
		for end := start.Add(config.Longest() + 3*time.Hour); now.Before(end); now = now.Add(time.Minute) {
			var more []Effect
			s, more = s.Step(now, Input{})
			effects = append(effects, more...)
		}
		ends := count(effects, Restart) + count(effects, PowerOff)
		switch {
		case s.Phase == Leaving && ends == 1, s.Phase == Menu && ends == 0:
		default:
			t.Fatalf("in phase %s after %d ends", s.Phase, ends)
		}
		if (f.Menu || f.Unusable != "") && s.Phase != Menu {
			t.Fatalf("left the menu by itself: %v", effects)
		}
		if f.Test && count(effects, Apply) > 0 {
			t.Fatalf("a test changed something: %v", effects)
		}
	})
}

// TestOnlyWhatWasWrittenDownRestarts: keys included, a restart comes after an Apply that succeeded, or in a test.
func TestOnlyWhatWasWrittenDownRestarts(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		f := facts(t)
		now := start
		s, _ := Begin(now, Config{}, f)
		written := f.Test
		for range rapid.IntRange(0, 60).Draw(t, "inputs") {
			now = now.Add(time.Duration(rapid.Int64Range(0, int64(5*time.Minute)).Draw(t, "passes")))
			in := input(t, true)
			applied := s.Phase == Applying && in.Applied != nil && in.Applied.Trouble == "" && in.Key == ""
			var more []Effect
			s, more = s.Step(now, in)
			written = written || applied
			if count(more, Restart) > 0 && !written {
				t.Fatalf("restarts without having written anything down, after %+v", in)
			}
		}
	})
}

func count(effects []Effect, a Act) (n int) {
	for _, e := range effects {
		if e.Act == a {
			n++
		}
	}
	return n
}
