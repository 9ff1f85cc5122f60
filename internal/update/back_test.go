package update

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/keepout-security/keepout/internal/rollback"
	"github.com/keepout-security/keepout/internal/sign"
)

// halted is a world without a control plane in which release 5 runs, came by rollout r5, and is last-known-good.
// Release 3 was published before, and both are staged.
func halted(t *testing.T, older, bad sign.Release) (w *world, order Order) {
	t.Helper()
	w = newWorld(t, false)
	named := w.release(older, "acme", "ops")
	active := w.release(bad, "acme", "ops")
	active.Rollout = "r5"
	w.look(nil, active)
	if len(w.offered) != 1 {
		t.Fatalf("offered %v, refused %v", w.offered, w.taker.refusals())
	}
	w.state.Content = rollback.Slots{
		Active: w.offered[0], LKG: w.offered[0], Factory: rollback.Version{Digest: factory, Label: "factory"},
	}
	order = Order{
		Act: RollBack, Rollout: "r5", Provider: "acme-edr", Part: rollback.Content, Digest: named.Digest,
		Vendor: named.Vendor, Path: named.Path, Reason: "crash",
	}
	return w, order
}

var (
	factory = rollback.Digest(strings.Repeat("f", 64))
	third   = sign.Release{Version: "3", Counter: 3}
	fifth   = sign.Release{Version: "5", Counter: 5}
)

// TestRollBackGoesWhereTheOrderSays: to a version that the host has; else to one that was brought, if vendor and
// operator name it and it is older than what is left. Elsewhere only if that cannot be, and then it is said.
func TestRollBackGoesWhereTheOrderSays(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		older, bad sign.Release
		change     func(w *world, o *Order)
		to         string // "named", "factory", "" for nowhere
		says       string
	}{
		"it was active before": {third, fifth, func(w *world, o *Order) {
			o.Vendor, o.Path = "", ""
			w.must(os.RemoveAll(w.in("staging/blobs")))
			w.state.Content.Former = rollback.Version{Digest: factory}
			w.state.Content.Factory = rollback.Version{}
			o.Digest = "sha256:" + string(factory)
		}, "factory", ""},
		"it was brought": {third, fifth, func(*world, *Order) {}, "named", ""},
		"it is newer and never ran": {
			sign.Release{Version: "3", Counter: 7}, fifth, func(*world, *Order) {}, "factory", "not older",
		},
		"it is below the floor": {
			third, sign.Release{Version: "5", Counter: 5, Floor: 4}, func(*world, *Order) {}, "factory", "KO-2121",
		},
		"it could not be fetched": {third, fifth, func(_ *world, o *Order) { o.Lacking = "no route" }, "factory", "no route"},
		"nobody names it":         {third, fifth, func(_ *world, o *Order) { o.Path = "" }, "factory", "does not name it"},
		"another package was brought": {
			third, fifth, func(_ *world, o *Order) { o.Path = "acme-edr/content/5" }, "factory", "another",
		},
		"it was changed": {third, fifth, func(w *world, o *Order) {
			path := w.in("staging/blobs/sha256/" + strings.TrimPrefix(o.Digest, "sha256:"))
			w.must(os.Chmod(path, 0o600))
			w.must(os.WriteFile(path, []byte("{}"), 0o600))
		}, "factory", "KO-"},
		"all metadata has expired, and it never ran": {third, fifth, func(w *world, _ *Order) {
			w.now = w.now.Add(10 * 365 * 24 * time.Hour)
		}, "factory", "KO-21"},
		"there is nothing else": {third, fifth, func(w *world, o *Order) {
			w.state.Content.Factory, o.Lacking = rollback.Version{}, "no route"
		}, "", "goes on"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, order := halted(t, c.older, c.bad)
			c.change(w, &order)
			before := w.state.Content.Active.Digest
			w.look(nil, order)
			w.look(nil, order)
			got := w.state.Content.Active
			switch {
			case c.to == "" && got.Digest != before, c.to == "factory" && got.Digest != factory,
				c.to == "named" && w.taker.packageOf(got.Digest) != order.Digest:
				t.Fatalf("active is %v, want %s; %v", got, c.to, w.taker.Problems())
			}
			if len(w.back) > 2 {
				t.Errorf("went back %d times", len(w.back))
			}
			var r Report
			w.taker.Fill(&r)
			problems := w.taker.Problems()
			if c.says == "" {
				if len(r.Refused)+len(problems) > 0 {
					t.Errorf("it says %v, %v", r.Refused, problems)
				}
				return
			}
			if len(r.Refused) != 1 || r.Refused[0].Digest != order.Digest || !strings.Contains(r.Refused[0].Why, c.says) {
				t.Errorf("reported %v, want %q", r.Refused, c.says)
			}
			if len(problems) != 1 || problems[0].Code != CodeStray {
				t.Errorf("problems %v", problems)
			}
			w.state.Content.Active = rollback.Version{Digest: rollback.Digest(strings.Repeat("1", 64))}
			w.look(nil)
			if p := w.taker.Problems(); len(p) > 0 {
				t.Errorf("another version is active, and it still says %v", p)
			}
		})
	}
}

// TestRollBackToWhatRanNeedsNoFreshMetadata: a release that this host has used is returned to when all signatures have
// expired; only its bytes must be had, and the floor holds.
func TestRollBackToWhatRanNeedsNoFreshMetadata(t *testing.T) {
	t.Parallel()
	w := newWorld(t, false)
	good := w.publish("3", 3, "acme", "ops")
	w.look(nil, good)
	w.state.Content.Active = w.offered[0]
	w.look(nil)
	w.state.Content.Candidate = rollback.Version{}
	bad := w.publish("5", 5, "acme", "ops")
	bad.Rollout = "r5"
	w.look(nil, bad)
	w.state.Content = rollback.Slots{Active: w.offered[1], LKG: w.offered[1]}
	w.now = w.now.Add(10 * 365 * 24 * time.Hour)
	w.look(nil, Order{
		Act: RollBack, Rollout: "r5", Provider: "acme-edr", Part: rollback.Content, Digest: good.Digest, Reason: "crash",
	})
	if got := w.state.Content.Active.Digest; got != w.offered[0].Digest {
		t.Errorf("active is %v, want %v; %v", got, w.offered[0].Digest, w.taker.Problems())
	}
}

// TestRollBackSparesOtherVersions: a host that only tried what was halted keeps what it runs.
func TestRollBackSparesOtherVersions(t *testing.T) {
	t.Parallel()
	w, order := halted(t, third, fifth)
	other := rollback.Version{Digest: rollback.Digest(strings.Repeat("2", 64))}
	w.state.Content.Candidate, w.state.Content.Active = w.state.Content.Active, other
	w.look(nil, order)
	if len(w.taken) != 1 {
		t.Fatalf("withdrawn %v", w.taken)
	}
	w.state.Content.Candidate = rollback.Version{}
	w.look(nil, order)
	if len(w.back) > 0 || w.state.Content.Active != other {
		t.Errorf("went back %v", w.back)
	}
}

// TestNothingIsUsedThatCannotBeRemembered: with a disk that takes nothing, nothing new is used and what runs goes on;
// once there is room, it is.
func TestNothingIsUsedThatCannotBeRemembered(t *testing.T) {
	t.Parallel()
	w := newWorld(t, false)
	o := w.publish("1", 1, "acme", "ops")
	w.must(os.Rename(w.in("trust"), w.in("elsewhere")))
	w.look(nil, o)
	if len(w.offered)+len(w.back) > 0 {
		t.Fatalf("offered %v, back %v", w.offered, w.back)
	}
	if why := w.taker.refusals(); len(why) != 1 || !strings.Contains(why[0].Why, CodeLocked) {
		t.Errorf("refused %v, want %s", why, CodeLocked)
	}
	w.must(os.Rename(w.in("elsewhere"), w.in("trust")))
	w.look(nil, o)
	if len(w.offered) != 1 {
		t.Errorf("with room again: offered %v, refused %v", w.offered, w.taker.refusals())
	}
}

// TestStolenDirectorKey: whoever has the operator's director key, and the fetcher besides, activates nothing that
// vendor and operator have not both signed, and makes no host go back to what it never ran and is no older.
func TestStolenDirectorKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t, true)
	runs := w.publish("1", 1, "acme", "ops")
	w.look(nil, runs)
	w.look([][]byte{w.grant(directorKey, runs.Digest, w.taker.Asks()[0].Nonce, 3)}, runs)
	w.state.Content = rollback.Slots{Active: w.offered[0], LKG: w.offered[0]}
	half := w.publish("2", 2, "acme")
	w.look(nil, half)
	if asks := w.taker.Asks(); len(asks) > 0 {
		t.Fatalf("it asks for %v", asks)
	}
	for _, nonce := range [][]byte{nil, make([]byte, nonceSize)} {
		w.look([][]byte{w.grant(directorKey, half.Digest, nonce, 1<<40)}, half)
	}
	newer := w.publish("3", 3, "acme", "ops")
	for _, o := range []Order{half, newer} {
		o.Act, o.Rollout, o.Reason = RollBack, "r1", "so"
		w.look([][]byte{w.grant(directorKey, o.Digest, nil, 1<<40)}, o)
	}
	if len(w.offered) != 1 || w.state.Content.Active.Digest != w.offered[0].Digest {
		t.Errorf("offered %v, active %v", w.offered, w.state.Content.Active)
	}
}
