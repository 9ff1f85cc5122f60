package boot_test

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/keepout-security/keepout/internal/boot"
)

var now = time.Unix(1_700_000_000, 0)

var (
	modes  = rapid.SampledFrom(boot.Modes())
	text   = rapid.OneOf(rapid.Just(""), rapid.String(), rapid.StringOfN(rapid.Rune(), 300, 300, -1))
	names  = rapid.SliceOfN(text, 0, 40)
	orders = rapid.Custom(func(t *rapid.T) boot.Orders {
		return boot.Orders{
			Safe: rapid.Bool().Draw(t, "safe"), Disabled: names.Draw(t, "disabled"),
			LastKnownGood: names.Draw(t, "lkg"), Source: text.Draw(t, "source"), Reason: text.Draw(t, "reason"),
		}
	})
	inputs = rapid.Custom(func(t *rapid.T) boot.Input {
		return boot.Input{
			Kind: boot.Kind(rapid.IntRange(int(boot.Started), int(boot.Unreadable)).Draw(t, "kind")),
			Boot: rapid.SampledFrom([]string{"", "a", "b", "c"}).Draw(t, "boot"),
			Left: rapid.IntRange(-1, 9).Draw(t, "left"), CanRecover: rapid.Bool().Draw(t, "recover"),
			Crumb:  boot.Crumb{Boot: text.Draw(t, "of"), Provider: text.Draw(t, "provider"), Engine: text.Draw(t, "engine")},
			Orders: orders.Draw(t, "orders"), Mode: modes.Draw(t, "mode"), Why: text.Draw(t, "why"),
			Unset: rapid.Bool().Draw(t, "unset"),
		}
	})
	// states are what any history leads to: there are no others.
	states = rapid.Custom(func(t *rapid.T) boot.State {
		s := boot.New()
		for _, in := range rapid.SliceOfN(inputs, 0, 25).Draw(t, "history") {
			s, _ = s.Step(now, in)
		}
		return s
	})
)

// machine is a computer all of whose boots end badly.
type machine struct {
	t       *rapid.T
	s       boot.State
	n       int // boots
	recover bool
	deaf    bool // the loader never does what it is asked for
	menu    bool
}

func (m *machine) step(in boot.Input) []boot.Effect {
	m.n++
	in.Boot = fmt.Sprintf("boot-%d", m.n)
	in.Left = rapid.IntRange(-1, boot.MaxTries).Draw(m.t, "left")
	s, out := m.s.Step(now, in)
	m.s = s
	return out
}

func did(out []boot.Effect, act boot.Act) bool {
	return slices.ContainsFunc(out, func(e boot.Effect) bool { return e.Act == act })
}

// boot is one power cycle. What the recovery environment does helps nothing, and it may crash, too.
func (m *machine) boot() {
	out := m.step(boot.Input{Kind: boot.Started, CanRecover: m.recover})
	if did(out, boot.ShowMenu) {
		m.menu = true
	}
	if !did(out, boot.EnterRecovery) {
		return
	}
	if m.deaf || rapid.IntRange(0, 4).Draw(m.t, "ignored") == 0 {
		return // the loader does not know what was asked for
	}
	out = m.step(boot.Input{Kind: boot.RecoveryEntered})
	switch {
	case did(out, boot.ShowMenu):
		m.menu = true
	case rapid.Bool().Draw(m.t, "remedied"):
		m.s, _ = m.s.Step(now, boot.Input{
			Kind: boot.Remedied, Mode: modes.Draw(m.t, "from"), Orders: orders.Draw(m.t, "orders"),
			Unset: rapid.Bool().Draw(m.t, "unset"),
		})
	}
}

// TestFailuresEndAtTheMenu: from any state, a row of failures ends, and stays ended.
func TestFailuresEndAtTheMenu(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &machine{
			t: t, s: states.Draw(t, "state"), recover: rapid.Bool().Draw(t, "can recover"), deaf: rapid.Bool().Draw(t, "deaf"),
		}
		for !m.menu {
			m.boot()
			if m.n > boot.MaxBoots {
				t.Fatalf("no menu after %d boots: %+v", m.n, m.s)
			}
		}
		for range 5 {
			out := m.step(boot.Input{Kind: boot.Started, CanRecover: m.recover})
			if did(out, boot.EnterRecovery) || !did(out, boot.ShowMenu) {
				t.Fatalf("it left the menu by itself: %v", out)
			}
		}
	})
}

// TestALoaderAloneEndsAtTheMenu: the same when only the loader's counter leads to the recovery environment.
func TestALoaderAloneEndsAtTheMenu(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := states.Draw(t, "state")
		for n := 0; ; n++ {
			var out []boot.Effect
			s, out = s.Step(now, boot.Input{Kind: boot.RecoveryEntered, Boot: fmt.Sprint("r", n)})
			if did(out, boot.ShowMenu) {
				return
			}
			if n > boot.MaxRecoveries {
				t.Fatalf("no menu after %d recoveries: %+v", n, s)
			}
			if rapid.Bool().Draw(t, "remedied") {
				s, _ = s.Step(now, boot.Input{Kind: boot.Remedied, Orders: orders.Draw(t, "orders")})
			}
		}
	})
}

// TestAGoodBootRearms: whatever was before, a good boot as configured leaves nothing of it but orders and history.
func TestAGoodBootRearms(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := states.Draw(t, "state")
		s, _ = s.Step(now, boot.Input{Kind: boot.Started, Boot: "x", Left: -1})
		ran := s.Mode
		s, out := s.Step(now, boot.Input{Kind: boot.Good, Boot: "x"})
		if s.Failures != 0 || s.Recoveries != 0 || s.Boot != "" || s.Attempt() != 1 || s.Floor != ran {
			t.Fatalf("after a good boot in %s: %+v", ran, s)
		}
		if !reflect.DeepEqual(out, []boot.Effect{{Act: boot.Keep}, {Act: boot.Arm, Tries: s.Tries()}}) {
			t.Fatalf("it was not armed again: %v", out)
		}
		if ran == boot.Normal && (s.Tries() != boot.MaxTries && !s.Orders.Safe || s.Next != boot.Normal) {
			t.Fatalf("%d tries after a good boot as configured: %+v", s.Tries(), s)
		}
	})
}

// TestACleanShutdownNeverCounts: with a shutdown between them, any number of boots stays on one rung.
func TestACleanShutdownNeverCounts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := states.Draw(t, "state")
		s, _ = s.Step(now, boot.Input{Kind: boot.Started, Boot: "0", Left: -1})
		first := s
		for n := range 5 {
			id := strconv.Itoa(n)
			s, _ = s.Step(now, boot.Input{Kind: boot.Started, Boot: id, Left: s.Tries() - 1})
			if s.Mode != first.Mode || s.Failures != first.Failures || s.Next != first.Next {
				t.Fatalf("boot %d: %+v, the first was %+v", n, s, first)
			}
			s, _ = s.Step(now, boot.Input{Kind: boot.ShutDown, Boot: id})
			if s.Boot != "" {
				t.Fatalf("after a shutdown: %+v", s)
			}
		}
	})
}

// TestTheSameInputCountsOnce: bootguard may run again in one boot, and the recovery environment, too.
func TestTheSameInputCountsOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, in := states.Draw(t, "state"), inputs.Draw(t, "input")
		if in.Boot == "" || in.Kind != boot.Started && in.Kind != boot.RecoveryEntered {
			return
		}
		once, out := s.Step(now, in)
		if did(out, boot.EnterRecovery) {
			return // the restart is under way
		}
		twice, _ := once.Step(now, in)
		if !reflect.DeepEqual(once, twice) {
			t.Fatalf("%v again: %+v, once %+v", in, twice, once)
		}
	})
}

// TestEveryStateFitsAndComesBack holds the codec against whatever a history and its texts may be.
func TestEveryStateFitsAndComesBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := states.Draw(t, "state")
		data, err := boot.Encode(&s, 7)
		if err != nil || len(data) != boot.Size {
			t.Fatalf("%d bytes, %v: %+v", len(data), err, s)
		}
		got, sequence, err := boot.Decode(data)
		if err != nil || sequence != 7 || !same(got, s) {
			t.Fatalf("%v\ngot  %+v\nwant %+v", err, got, s)
		}
	})
}

// same compares as a reader sees it: no list and an empty one are the same.
func same(a, b boot.State) bool {
	return fmt.Sprintf("%+v", a) == fmt.Sprintf("%+v", b)
}

// TestEffectsAreInOrder: the state is written before anything that leads out of this boot.
func TestEffectsAreInOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := states.Draw(t, "state")
		after, out := s.Step(now, inputs.Draw(t, "input"))
		kept := reflect.DeepEqual(s, after)
		for _, e := range out {
			kept = kept || e.Act == boot.Keep
			if !kept && (e.Act == boot.EnterRecovery || e.Act == boot.Arm) {
				t.Fatalf("%v before the state is kept: %v", e.Act, out)
			}
			if e.Act == boot.Run && e.Mode != boot.Normal && e.Mode != boot.LastKnownGood && e.Mode != boot.Safe {
				t.Fatalf("a system cannot run as %s", e.Mode)
			}
			if e.Act == boot.Arm && (e.Tries < 0 || e.Tries > boot.MaxTries) {
				t.Fatalf("%d tries", e.Tries)
			}
		}
	})
}
