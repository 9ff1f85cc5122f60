package sign_test

import (
	"crypto/ed25519"
	"crypto/sha256"
	"math"
	"testing"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/keepout-security/keepout/internal/sign"
)

// evil lets a thief name other bytes for the engine in a repository, signing with what he has.
func evil(r func(*world) *repo, role string, stolen ...ed25519.PrivateKey) func(*testing.T, *world) {
	return func(t *testing.T, w *world) {
		t.Helper()
		sum := sha256.Sum256([]byte("evil"))
		r(w).roles[role].Signed.Targets[enginePath].Hashes = metadata.Hashes{"sha256": sum[:]}
		r(w).signers[role] = stolen
		r(w).publish(t)
	}
}

// TestStolenKeys says for the key of each role that is online, or that one person has, what a thief can do with it:
// stop things, never start what only he wants.
func TestStolenKeys(t *testing.T) {
	t.Parallel()
	vendorContent, operatorContent := key("vendor-content-1"), key("operator-catalog-content-1")
	for _, f := range []forgery{
		{
			name: "vendor's content key names an engine", code: sign.CodeThreshold,
			do: evil(vendor, "engine", vendorContent),
		},
		{
			name: "vendor's content key and one engine key", code: sign.CodeThreshold,
			do: evil(vendor, "engine", vendorContent, key("vendor-engine-1")),
		},
		{
			name: "all engine keys of the vendor", code: sign.CodeDiffer,
			do: evil(vendor, "engine", keys("vendor-engine", 3)...),
		},
		{
			name: "operator's content key names an engine", code: sign.CodeThreshold,
			do: evil(operator, "catalog-engine", operatorContent),
		},
		{
			name: "operator's director key", code: sign.CodeThreshold,
			do: evil(operator, "catalog-engine", key("operator-director-1")),
		},
		{
			name: "operator's halt keys", code: sign.CodeThreshold,
			do: evil(operator, "catalog-engine", keys("operator-halt", 3)...),
		},
		{
			name: "operator's recovery keys", code: sign.CodeThreshold,
			do: evil(operator, "catalog-engine", keys("operator-recovery", 3)...),
		},
		{
			name: "vendor's content key, content that the operator does not know", path: "acme-edr/content/78",
			code: sign.CodeNotBoth, do: func(t *testing.T, w *world) {
				t.Helper()
				w.vendor.list(t, "content", contentRelease("78", 78, 5000))
				w.vendor.publish(t)
			},
		},
		{
			// What rings, sandbox and the class rule are for: both online content keys together start content.
			name: "both content keys", path: "acme-edr/content/78", code: "", do: func(t *testing.T, w *world) {
				t.Helper()
				w.vendor.list(t, "content", contentRelease("78", 78, 5000))
				w.operator.list(t, "catalog-content", contentRelease("78", 78, 5000))
				w.vendor.publish(t)
				w.operator.publish(t)
			},
		},
		{
			name: "both content keys, an engine among the content", path: "acme-edr/content/78", code: sign.CodeRelease,
			do: func(t *testing.T, w *world) {
				t.Helper()
				for _, side := range []func(*world) *repo{vendor, operator} {
					role := map[string]string{"vendor": "content", "operator": "catalog-content"}[side(w).name]
					side(w).list(t, role, contentRelease("78", 78, 5000))
					side(w).change(t, role, "acme-edr/content/78", func(r *sign.Release) { r.Kind = sign.Engine })
					side(w).publish(t)
				}
			},
		},
		{
			name: "both content keys name an engine's path", code: "", do: func(t *testing.T, w *world) {
				t.Helper()
				// It is listed and not looked at: the content role has nothing to say about that path.
				w.vendor.list(t, "content", engineRelease()).Length = 1
				w.operator.list(t, "catalog-content", engineRelease()).Length = 1
				w.vendor.publish(t)
				w.operator.publish(t)
			},
		},
		{
			name: "vendor's online key freezes", code: sign.CodeExpired, do: func(t *testing.T, w *world) {
				t.Helper()
				mustVerify(t, w)
				w.now = w.now.Add(2 * aday) // and it goes on showing the same
			},
		},
		{
			name: "vendor's online key signs targets", code: sign.CodeThreshold, do: func(t *testing.T, w *world) {
				t.Helper()
				w.vendor.signers["targets"] = keys("vendor-online", 1)
				w.vendor.publish(t)
			},
		},
		{
			name: "operator's online key puts the time beyond the root", code: sign.CodeMetadata,
			do: func(t *testing.T, w *world) {
				t.Helper()
				w.operator.now = epoch.Add(10 * 365 * aday)
				w.operator.timestamp.Signed.Expires = epoch.Add(20 * 365 * aday)
				w.operator.publish(t)
			},
		},
	} {
		t.Run(f.name, f.run)
	}
}

// TestFastForward: a thief with the online key raises the versions as high as they go, so that nothing of the owner is
// new. The owner's root takes the key away, and all is well.
func TestFastForward(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	before := w.vendor.timestamp.Signed.Version
	w.vendor.timestamp.Signed.Version = math.MaxInt64 - 1
	w.vendor.snapshot.Signed.Version = math.MaxInt64 - 1
	w.vendor.publish(t)
	mustVerify(t, w)
	w.vendor.timestamp.Signed.Version, w.vendor.snapshot.Signed.Version = before, before
	w.vendor.publish(t)
	if _, err := w.verify(enginePath); sign.CodeOf(err) != sign.CodeOlder {
		t.Fatalf("the owner's metadata after the theft: %v", err)
	}
	for _, online := range []string{"snapshot", "timestamp"} {
		id, err := tufKey(t, key("vendor-online-1")).ID()
		must(t, err)
		must(t, w.vendor.root.Signed.RevokeKey(id, online))
		w.vendor.add(t, online, key("vendor-online-new"))
		w.vendor.signers[online] = []ed25519.PrivateKey{key("vendor-online-new")}
	}
	w.vendor.root.Signed.Version++
	w.vendor.publish(t)
	mustVerify(t, w)
}

// TestRevokedKeys: what a key could do ends with the next metadata of those above it.
func TestRevokedKeys(t *testing.T) {
	t.Parallel()
	for _, f := range []forgery{
		{name: "engine key", code: sign.CodeThreshold, do: func(t *testing.T, w *world) {
			t.Helper()
			revokeDelegated(t, w.vendor, "engine", "vendor-engine-1")
		}},
		{name: "catalog key", code: sign.CodeThreshold, do: func(t *testing.T, w *world) {
			t.Helper()
			revokeDelegated(t, w.operator, "catalog-engine", "operator-catalog-engine-1")
		}},
		{name: "online key", code: sign.CodeThreshold, do: func(t *testing.T, w *world) {
			t.Helper()
			revokeTop(t, w.vendor, "vendor-online-1", "timestamp")
		}},
		{name: "root key, then it signs a root", code: sign.CodeThreshold, do: func(t *testing.T, w *world) {
			t.Helper()
			revokeTop(t, w.operator, "operator-root-1", "root")
			w.operator.signers["root"] = keys("operator-root", 3)[1:]
			w.operator.signers["root"] = append(w.operator.signers["root"], key("operator-root-1"))
			w.operator.publish(t) // by the two that stay: good
			w.operator.signers["root"] = []ed25519.PrivateKey{key("operator-root-1"), key("operator-root-2")}
			w.operator.root.Signed.Version++
			w.operator.publish(t) // by one that stays and the revoked one
		}},
	} {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			mustVerify(t, w)
			f.do(t, w)
			if _, err := w.verify(enginePath); sign.CodeOf(err) != f.code {
				t.Fatalf("%v", err)
			}
		})
	}
}

func revokeDelegated(t *testing.T, r *repo, role, name string) {
	t.Helper()
	id, err := tufKey(t, key(name)).ID()
	must(t, err)
	must(t, r.targets.Signed.RevokeKey(id, role))
	r.publish(t)
}

func revokeTop(t *testing.T, r *repo, name, role string) {
	t.Helper()
	id, err := tufKey(t, key(name)).ID()
	must(t, err)
	must(t, r.root.Signed.RevokeKey(id, role))
	r.root.Signed.Version++
	r.publish(t)
}

// TestClock: ten years off in both directions.
func TestClock(t *testing.T) {
	t.Parallel()
	decade := 10 * 365 * aday
	t.Run("ahead", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		w.now = w.now.Add(decade)
		_, err := w.verify(enginePath)
		if sign.CodeOf(err) != sign.CodeExpired {
			t.Fatal(err)
		}
		wantText(t, err, "set the clock")
		w.now = w.now.Add(-decade) // it left no trace
		mustVerify(t, w)
	})
	t.Run("behind", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		mustVerify(t, w)
		frozen := w.vendor.copyOf()
		later := epoch.Add(3 * aday)
		for _, r := range []*repo{w.vendor, w.operator} {
			r.now, r.timestamp.Signed.Expires = later, later.Add(aday)
			r.publish(t)
		}
		w.now = later
		mustVerify(t, w)
		// The clock falls back; a mirror shows the vendor's old metadata, which was good at that time.
		w.now = epoch.Add(-decade)
		w.vendor.files = frozen
		if _, err := w.verify(enginePath); sign.CodeOf(err) != sign.CodeOlder {
			t.Fatalf("old metadata: %v", err)
		}
		if !w.state.TimeFloor.Equal(later) {
			t.Errorf("the time floor is %v, want %v", w.state.TimeFloor, later)
		}
	})
	t.Run("behind, with what is current", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		w.now = epoch.Add(-decade)
		mustVerify(t, w) // a wrong clock does not keep a fix away
	})
	t.Run("behind, with a frozen copy", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		mustVerify(t, w)
		w.state = w.state.Witness(epoch.Add(2 * aday)) // a signed answer showed the time
		w.now = epoch.Add(-decade)
		if _, err := w.verify(enginePath); sign.CodeOf(err) != sign.CodeExpired {
			t.Fatal(err)
		}
	})
}

// TestTimeFloor: it never falls, one stolen online key cannot raise it, and none beyond the operator's root.
func TestTimeFloor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.vendor.now = epoch.Add(100 * aday)
	w.vendor.timestamp.Signed.Expires = epoch.Add(200 * aday)
	w.vendor.publish(t)
	mustVerify(t, w)
	if !w.state.TimeFloor.Equal(epoch) {
		t.Errorf("one repository alone raised the floor to %v", w.state.TimeFloor)
	}
	up := w.state.Witness(epoch.Add(50 * aday))
	if down := up.Witness(epoch); !down.TimeFloor.Equal(up.TimeFloor) {
		t.Error("the floor fell")
	}
	if far := up.Witness(epoch.Add(9999 * aday)); far.TimeFloor.After(epoch.Add(365 * aday)) {
		t.Errorf("a director key raised the floor to %v", far.TimeFloor)
	}
	if up.Witness(time.Time{}).TimeFloor.IsZero() {
		t.Error("the floor vanished")
	}
}
