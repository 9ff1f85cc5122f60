package sign_test

import (
	"bytes"
	"crypto/ed25519"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/keepout-security/keepout/internal/sign"
)

func wantText(t *testing.T, err error, text string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), text) {
		t.Errorf("%q does not say %q", err, text)
	}
}

// release publishes a further release in both repositories.
func (w *world) release(t *testing.T, r sign.Release) string {
	t.Helper()
	w.vendor.list(t, string(r.Class), r)
	w.operator.list(t, "catalog-"+string(r.Class), r)
	w.vendor.publish(t)
	w.operator.publish(t)
	return r.TargetPath()
}

func TestContentSize(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		size    int64
		shrinks bool
		first   bool
		code    string
	}{
		"larger":               {size: 9000},
		"half":                 {size: 2500},
		"less than half":       {size: 2499, code: sign.CodeShrunk},
		"empty":                {size: 0, code: sign.CodeShrunk},
		"empty, and the first": {size: 0, first: true, code: sign.CodeShrunk},
		"small, and the first": {size: 1, first: true},
		"empty on purpose":     {size: 0, shrinks: true},
		"shrunk on purpose":    {size: 100, shrinks: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			if !c.first {
				target, err := w.verify(sigsPath)
				must(t, err)
				w.state = w.state.Activated(target)
			}
			r := contentRelease("78", 78, c.size)
			r.Shrinks = c.shrinks
			if _, err := w.verify(w.release(t, r)); sign.CodeOf(err) != c.code {
				t.Errorf("%v", err)
			}
		})
	}
}

// TestOnlyOneWantsItToShrink: the explicit flag counts only when both have signed it.
func TestOnlyOneWantsItToShrink(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.release(t, contentRelease("78", 78, 0))
	w.vendor.change(t, "content", "acme-edr/content/78", func(r *sign.Release) { r.Shrinks = true })
	w.vendor.publish(t)
	if _, err := w.verify("acme-edr/content/78"); sign.CodeOf(err) != sign.CodeDiffer {
		t.Errorf("%v", err)
	}
}

// TestFloor: an older release may be activated down to the floor that both signed, and not below it, whatever is
// offered later.
func TestFloor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	at := func(counter, floor uint64, version string) sign.Release {
		r := engineRelease()
		r.Counter, r.Floor, r.Version = counter, floor, version
		return r
	}
	old, hole := w.release(t, at(40, 0, "4.0.0")), w.release(t, at(39, 0, "3.9.0"))
	mustVerify(t, w) // 42, floor 40
	if _, err := w.verify(old); err != nil {
		t.Errorf("back to the floor: %v", err)
	}
	if _, err := w.verify(hole); sign.CodeOf(err) != sign.CodeFloor {
		t.Errorf("below the floor: %v", err)
	}
	// Both take the release with the floor back. What was seen stays.
	delete(w.vendor.roles["engine"].Signed.Targets, enginePath)
	delete(w.operator.roles["catalog-engine"].Signed.Targets, enginePath)
	w.vendor.publish(t)
	w.operator.publish(t)
	if _, err := w.verify(hole); sign.CodeOf(err) != sign.CodeFloor {
		t.Errorf("below a floor that was seen: %v", err)
	}
	if err := w.state.Allows(at(39, 0, "3.9.0")); sign.CodeOf(err) != sign.CodeFloor {
		t.Errorf("rollback below the floor: %v", err)
	}
	if err := w.state.Allows(at(40, 0, "4.0.0")); err != nil {
		t.Errorf("rollback to the floor: %v", err)
	}
	if err := w.state.Allows(contentRelease("1", 1, 1)); err != nil {
		t.Errorf("an engine's floor is not its content's: %v", err)
	}
}

// TestAFloorNeedsBoth: a stolen vendor key alone cannot put every release below a floor.
func TestAFloorNeedsBoth(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := engineRelease()
	r.Version, r.Counter, r.Floor = "9.0.0", 1000, 1000
	w.vendor.list(t, "engine", r)
	w.vendor.publish(t)
	mustVerify(t, w)
	if got := w.state.Lines["acme-edr/engine"].Floor; got != 40 {
		t.Errorf("floor %d, want 40", got)
	}
}

// TestRolesOutliveExpiry: a halt is heard when everything else is too old, by the roles that were seen last.
func TestRolesOutliveExpiry(t *testing.T) {
	t.Parallel()
	const kind = "application/vnd.keepout.halt.v1+json"
	w := newWorld(t)
	w.now = epoch.Add(3000 * aday)
	state, err := sign.VerifyOperator(w.trust, w.state, w.now, w.operator.files)
	if sign.CodeOf(err) != sign.CodeExpired {
		t.Fatal(err)
	}
	seal := func(names ...string) []byte {
		var by []ed25519.PrivateKey
		for _, n := range names {
			by = append(by, key(n))
		}
		out, err := sign.Seal(by, kind, []byte("stop"))
		must(t, err)
		return out
	}
	for _, c := range []struct {
		role, code string
		by         []string
	}{
		{sign.RoleHalt, "", []string{"operator-halt-3"}},
		{sign.RoleHalt, sign.CodeThreshold, []string{"operator-director-1", "operator-catalog-engine-1"}},
		{sign.RoleDirector, sign.CodeThreshold, []string{"operator-halt-1"}},
		{sign.RoleDirector, "", []string{"operator-director-1"}},
		{sign.RoleRecovery, sign.CodeThreshold, []string{"operator-recovery-1"}},
		{sign.RoleRecovery, "", []string{"operator-recovery-1", "operator-recovery-2"}},
		{"janitor", sign.CodeThreshold, []string{"operator-halt-1"}},
	} {
		if _, _, err := state.Opens(c.role, kind, seal(c.by...)); sign.CodeOf(err) != c.code {
			t.Errorf("%s by %v: %v, want %q", c.role, c.by, err, c.code)
		}
	}
}

// TestStateIsKept: what is written and read again is the same host.
func TestStateIsKept(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	old := w.vendor.copyOf()
	w.vendor.publish(t)
	mustVerify(t, w)
	raw, err := w.state.Encode()
	must(t, err)
	w.state, err = sign.DecodeState(raw)
	must(t, err)
	again, err := w.state.Encode()
	must(t, err)
	if !bytes.Equal(raw, again) {
		t.Errorf("encoded twice:\n%s\n%s", raw, again)
	}
	mustVerify(t, w)
	w.vendor.files = old
	if _, err := w.verify(enginePath); sign.CodeOf(err) != sign.CodeOlder {
		t.Errorf("after a restart, replayed: %v", err)
	}
	for name, bad := range map[string][]byte{
		"empty": nil, "torn": raw[:len(raw)/2],
		"another version": bytes.Replace(raw, []byte(`"version":1`), []byte(`"version":9`), 1),
		"unknown":         []byte(`{"version":1,"forget":true}`),
		"two":             append(raw, raw...),
		"large":           make([]byte, sign.MaxState+1),
	} {
		if _, err := sign.DecodeState(bad); sign.CodeOf(err) != sign.CodeState {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestVerifyLeavesItsStateAlone: a State is a value.
func TestVerifyLeavesItsStateAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	mustVerify(t, w)
	before, err := w.state.Encode()
	must(t, err)
	kept := w.state
	w.vendor.publish(t)
	w.operator.publish(t)
	mustVerify(t, w)
	kept.Activated(sign.Target{Release: engineRelease()})
	after, err := kept.Encode()
	must(t, err)
	if !bytes.Equal(before, after) {
		t.Error("an earlier state was changed")
	}
}

// TestStateOnlyMovesForward plays random publications, replays and clocks: no version, floor or time ever falls.
func TestStateOnlyMovesForward(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(t)
		history := []*world{{vendor: &repo{files: w.vendor.copyOf()}, operator: &repo{files: w.operator.copyOf()}}}
		for range rapid.IntRange(1, 6).Draw(rt, "steps") {
			switch rapid.SampledFrom([]string{"vendor", "operator", "clock"}).Draw(rt, "what") {
			case "vendor":
				w.vendor.publish(t)
			case "operator":
				w.operator.publish(t)
			case "clock":
				w.now = epoch.Add(time.Duration(rapid.IntRange(-4000, 4000).Draw(rt, "days")) * aday)
			}
			history = append(history, &world{
				vendor: &repo{files: w.vendor.copyOf()}, operator: &repo{files: w.operator.copyOf()},
			})
			v := history[rapid.IntRange(0, len(history)-1).Draw(rt, "vendor's")]
			o := history[rapid.IntRange(0, len(history)-1).Draw(rt, "operator's")]
			_, after, _ := sign.Verify(w.trust, w.state, w.now, v.vendor.files, o.operator.files, enginePath)
			forward(rt, w.state, after)
			w.state = after
		}
	})
}

func forward(t *rapid.T, a, b sign.State) {
	if b.TimeFloor.Before(a.TimeFloor) {
		t.Fatalf("the time floor fell from %v to %v", a.TimeFloor, b.TimeFloor)
	}
	for line, l := range a.Lines {
		if b.Lines[line].Floor < l.Floor {
			t.Fatalf("the floor of %s fell", line)
		}
	}
	seen := func(a, b sign.Seen) {
		if b.Timestamp < a.Timestamp || b.Snapshot < a.Snapshot {
			t.Fatalf("a version fell: %+v, %+v", a, b)
		}
		for f, v := range a.Files {
			if b.Files[f] < v {
				t.Fatalf("%s fell from %d to %d", f, v, b.Files[f])
			}
		}
	}
	seen(a.Operator, b.Operator)
	for name, s := range a.Vendors {
		seen(s, b.Vendors[name])
	}
}
