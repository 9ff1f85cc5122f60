package rollback_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/keepout-security/keepout/internal/rollback"
)

// digits is how many different packages a history has.
const digits = 6

var inputs = rapid.Custom(func(t *rapid.T) rollback.Input {
	in := rollback.Input{
		Kind: rollback.Kind(rapid.IntRange(int(rollback.Installed), int(rollback.Removed)).Draw(t, "kind")),
		Part: rapid.SampledFrom([]rollback.Part{rollback.Engine, rollback.Content}).Draw(t, "part"),
		OK:   rapid.IntRange(0, 4).Draw(t, "ok") > 0, Serving: rapid.IntRange(0, 4).Draw(t, "serving") > 0,
		Samples: uint64(rapid.SampledFrom([]int{0, 10, 1000, 5000}).Draw(t, "samples")),
		Cause:   rapid.SampledFrom([]string{"", "some cause"}).Draw(t, "cause"),
	}
	in.Differing = uint64(rapid.SampledFrom([]int{0, 0, 1, 100}).Draw(t, "differing"))
	in.Digest = digest(strconv.Itoa(rapid.IntRange(0, digits-1).Draw(t, "digest")))
	in.Version = rollback.Version{Digest: in.Digest, Label: string(in.Digest[:1]), Origin: "test"}
	if in.Kind == rollback.Removed && rapid.IntRange(0, 9).Draw(t, "really") > 0 {
		in.Kind = rollback.Tick
	}
	return in
})

// scenario is a history that gets somewhere: inputs of a trial are mostly about what is on trial.
func scenario(t *rapid.T, s rollback.State, in rollback.Input) rollback.Input {
	onTrial := in.Kind >= rollback.Checked && in.Kind <= rollback.BesideEnded
	if onTrial && s.Trial.Digest != "" && rapid.IntRange(0, 9).Draw(t, "about") > 0 {
		in.Part, in.Digest = s.Trial.Part, s.Trial.Digest
	}
	return in
}

func TestAnyHistory(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := rollback.Defaults()
		now := time.Unix(1_000_000, 0).UTC()
		s := rollback.New("p")
		count := map[rollback.Act]int{}
		undone := 0 // rollbacks that an operator or a damaged disk asked for
		for range rapid.IntRange(1, 120).Draw(t, "steps") {
			now = now.Add(rapid.SampledFrom([]time.Duration{
				0, time.Second, 20 * time.Second, time.Minute, -time.Hour, 30 * time.Hour,
			}).Draw(t, "pass"))
			in := scenario(t, s, inputs.Draw(t, "input"))
			before := s
			var out []rollback.Effect
			s, out = s.Next(c, now, in)
			if err := s.Check(); err != nil {
				t.Fatalf("after %+v: %v", in, err)
			}
			honest(t, before, s, in, out)
			bounded(t, c, &s)
			survives(t, c, now, s, in)
			for _, e := range out {
				count[e.Act]++
				if e.Act == rollback.RollBack && (in.Kind == rollback.RollBackNow || in.Kind == rollback.Lost) {
					undone++
				}
			}
			if count[rollback.RollBack]-undone > count[rollback.Activate] {
				t.Fatalf("%d rollbacks after %d activations", count[rollback.RollBack]-undone, count[rollback.Activate])
			}
		}
	})
}

// honest holds one step against the rules.
func honest(t *rapid.T, before, after rollback.State, in rollback.Input, out []rollback.Effect) {
	t.Helper()
	for _, p := range rollback.Parts() {
		was, is := before.Slots(p), after.Slots(p)
		if _, refused := is.Refusal(is.Active.Digest); refused && !is.Active.None() {
			t.Fatalf("%s: %s is active and refused", p, is.Active)
		}
		if _, refused := was.Refusal(is.Active.Digest); refused && is.Active.Digest != was.Active.Digest {
			t.Fatalf("%s: %s became active though it was refused", p, is.Active)
		}
		if is.Active.Digest != was.Active.Digest && !is.Active.None() {
			known := []rollback.Digest{was.Candidate.Digest, was.LKG.Digest, was.Factory.Digest, is.Factory.Digest}
			if in.Kind == rollback.RollBackNow {
				known = append(known, was.Former.Digest, in.Version.Digest)
			}
			if !contains(known, is.Active.Digest) {
				t.Fatalf("%s: %s became active out of nowhere", p, is.Active)
			}
			if is.Active.Digest == was.Candidate.Digest && is.Changed != 0 && !before.Trial.Beside {
				t.Fatalf("%s: %s was promoted without a trial", p, is.Active)
			}
			if after.Generation == before.Generation {
				t.Fatal("what is active changed, the generation did not")
			}
		}
	}
	if len(out) > 0 && !reflect.DeepEqual(before, after) {
		kept := out[0].Act == rollback.Keep
		for _, e := range out {
			if !kept && e.Act != rollback.Notify && e.Act != rollback.Refuse {
				t.Fatalf("%+v: effect %+v before the state is kept", in, e)
			}
			if (e.Act == rollback.RollBack || e.Act == rollback.Refuse || e.Act == rollback.Isolate) && e.Cause == "" {
				t.Fatalf("effect %+v names no cause", e)
			}
		}
	}
	if b := before.Trial; b.Beside && !after.Trial.Beside && in.Kind != rollback.Restarted {
		for _, e := range out {
			if e.Act == rollback.StopBeside {
				return
			}
		}
		if in.Kind != rollback.Stopping {
			t.Fatalf("after %+v the process beside runs on: %+v", in, out)
		}
	}
}

func contains(all []rollback.Digest, d rollback.Digest) bool {
	for _, a := range all {
		if a == d {
			return true
		}
	}
	return false
}

func bounded(t *rapid.T, c rollback.Config, s *rollback.State) {
	t.Helper()
	if len(s.History) > c.History || len(s.Engine.Refused) > c.Refusals || len(s.Crashes) > c.Crashes ||
		s.Engine.Attempts > c.Attempts+1 {
		t.Fatalf("grows: %d entries, %d refusals, %d crashes, %d attempts", len(s.History), len(s.Engine.Refused),
			len(s.Crashes), s.Engine.Attempts)
	}
}

// survives writes the state and reads it back: the copy is the same, and does the same.
func survives(t *rapid.T, c rollback.Config, now time.Time, s rollback.State, in rollback.Input) {
	t.Helper()
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var read rollback.State
	if err := json.Unmarshal(text, &read); err != nil {
		t.Fatal(err)
	}
	again, err := json.Marshal(read)
	if err != nil || !bytes.Equal(text, again) {
		t.Fatalf("written and read: %s\n%s\n%v", text, again, err)
	}
	_, a := s.Next(c, now.Add(time.Second), in)
	_, b := read.Next(c, now.Add(time.Second), in)
	if fmt.Sprintf("%+v", a) != fmt.Sprintf("%+v", b) {
		t.Fatalf("the read state does something else: %+v, %+v", a, b)
	}
}

// TestNeverOscillates: however bad everything is, whoever only offers and never allows is refused in the end.
func TestNeverOscillates(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := rollback.Defaults()
		now := time.Unix(1_000_000, 0).UTC()
		s := rollback.New("p")
		rollbacks, refused := 0, map[rollback.Digest]bool{}
		step := func(in rollback.Input) {
			var out []rollback.Effect
			s, out = s.Next(c, now, in)
			for _, e := range out {
				switch e.Act {
				case rollback.RollBack:
					rollbacks++
					if e.Part == rollback.Content && refused[e.Version.Digest] {
						t.Fatalf("rolled back to %s, which was refused", e.Version)
					}
				case rollback.Refuse:
					refused[e.Version.Digest] = true
				}
			}
		}
		step(rollback.Input{Kind: rollback.Installed, Part: rollback.Engine, Version: version("1", "e")})
		step(rollback.Input{Kind: rollback.Installed, Part: rollback.Content, Version: version("0", "f")})
		for range 60 {
			now = now.Add(time.Minute)
			d := digest(strconv.Itoa(rapid.IntRange(0, digits-1).Draw(t, "digest")))
			step(rollback.Input{Kind: rollback.Offered, Part: rollback.Content, Version: rollback.Version{Digest: d}})
			for _, k := range []rollback.Kind{rollback.Checked, rollback.Loaded, rollback.SelfTested, rollback.Measured} {
				step(rollback.Input{Kind: k, Part: s.Trial.Part, Digest: s.Trial.Digest, OK: true})
			}
			step(rollback.Input{Kind: rollback.Promote, Part: rollback.Content})
			for range 3 {
				step(rollback.Input{Kind: rollback.Crashed})
			}
		}
		if rollbacks > digits {
			t.Fatalf("%d rollbacks of %d versions", rollbacks, digits)
		}
	})
}

// TestDueIsNotTooLate: a Tick before Due does nothing that cannot wait.
func TestDueIsNotTooLate(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := rollback.Defaults()
		c.Soak = rapid.SampledFrom([]time.Duration{time.Second, 10 * time.Second, c.Soak}).Draw(t, "soak")
		now := time.Unix(1_000_000, 0).UTC()
		s := rollback.New("p")
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			s, _ = s.Next(c, now, scenario(t, s, inputs.Draw(t, "input")))
			due, ok := s.Due(c)
			wait := rapid.SampledFrom([]time.Duration{0, time.Second, 5 * time.Second, 59 * time.Second}).Draw(t, "wait")
			now = now.Add(wait)
			if ok && due <= wait {
				continue
			}
			for _, e := range second(s.Next(c, now, rollback.Input{Kind: rollback.Tick, Serving: s.Serving})) {
				if e.Act == rollback.RollBack || e.Act == rollback.Isolate || e.Act == rollback.Release ||
					e.Act == rollback.Activate || e.Act == rollback.MarkLKG {
					t.Fatalf("due in %v (%v), but after %v there is %+v", due, ok, wait, e)
				}
			}
		}
	})
}

func second[A, B any](_ A, b B) B { return b }
