package intent

import (
	"crypto/ed25519"
	"crypto/sha256"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/keepout-security/keepout/internal/boot"
	"github.com/keepout-security/keepout/internal/recovery/esp"
	"github.com/keepout-security/keepout/internal/recovery/remediation"
	"github.com/keepout-security/keepout/internal/sign"
)

func key(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte(name))
	return ed25519.NewKeyFromSeed(seed[:])
}

// machine is Keepout's folder of a machine whose recovery environment found a failure.
func machine(t *testing.T) (*esp.Dir, *Failure) {
	t.Helper()
	return machineIn(t, t.TempDir())
}

func machineIn(t *testing.T, folder string) (*esp.Dir, *Failure) {
	t.Helper()
	dir := esp.Open(folder)
	if err := dir.Prepare(); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir.Join(esp.Trust), 0o700); err != nil {
		t.Fatal(err)
	}
	keys, err := EncodeTrust(remediation.Trust{
		Organisation: sign.Role{Keys: remediation.PublicKeys(key("a"), key("b")), Threshold: 2},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir.Join(esp.Trust), TrustFile), keys, 0o600); err != nil {
		t.Fatal(err)
	}
	f := &Failure{Machine: strings.Repeat("1", 32), Bundle: strings.Repeat("2", 64), Floor: time.Now().Add(-time.Hour)}
	if err := Note(dir, f); err != nil {
		t.Fatal(err)
	}
	return dir, f
}

func sealed(t *testing.T, id, bundle string, actions ...remediation.Action) []byte {
	t.Helper()
	return sealedBy(t, "", id, bundle, actions, "a", "b")
}

func sealedBy(t *testing.T, vendor, id, bundle string, actions []remediation.Action, by ...string) []byte {
	t.Helper()
	text, err := remediation.Encode(&remediation.Fix{
		Format: 1, ID: id, Kind: remediation.Targeted, Bundle: bundle, Issued: time.Now().Add(-time.Minute),
		Expires: time.Now().Add(time.Hour), Reason: "because", Actions: actions, Vendor: vendor,
	})
	if err != nil {
		t.Fatal(err)
	}
	out, err := sign.Seal(keysOf(by), remediation.PayloadType, text)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func keysOf(names []string) (out []ed25519.PrivateKey) {
	for _, name := range names {
		out = append(out, key(name))
	}
	return out
}

var disable = remediation.Action{Verb: remediation.DisableProvider, Provider: "acme"}

// TestAnIntentIsBelievedOnce: the same file again, as after a power cut, gives the same orders; after another fix it
// does not, and the recovery environment refuses it at once.
func TestAnIntentIsBelievedOnce(t *testing.T) {
	t.Parallel()
	dir, f := machine(t)
	trust := dir.Join(esp.Trust)
	first := sealed(t, "one", f.Bundle, disable)
	for range 2 {
		got, err := Verify(first, trust)
		if o := got.Orders; err != nil || len(o.Disabled) != 1 || o.Disabled[0] != "acme" || o.Source != "fix one" {
			t.Fatalf("%+v, %v", got, err)
		}
	}
	roles, err := os.ReadFile(filepath.Join(trust, TrustFile))
	if err != nil {
		t.Fatal(err)
	}
	who, err := ParseTrust(roles)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Judge(dir, who, f, false, time.Now(), first); err == nil {
		t.Error("the recovery environment believes what was applied")
	}
	f.Bundle = strings.Repeat("3", 64)
	if err := Note(dir, f); err != nil {
		t.Fatal(err)
	}
	if _, err := Verify(sealed(t, "two", f.Bundle, disable), trust); err != nil {
		t.Fatal(err)
	}
	if _, err := Verify(first, trust); err == nil {
		t.Error("an old fix is believed after a newer one")
	}
}

func TestVerifyRefuses(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(t *testing.T, dir *esp.Dir) []byte{
		"without keys": func(t *testing.T, dir *esp.Dir) []byte {
			t.Helper()
			if err := os.Remove(filepath.Join(dir.Join(esp.Trust), TrustFile)); err != nil {
				t.Fatal(err)
			}
			return nil
		},
		"without a failure": func(t *testing.T, dir *esp.Dir) []byte {
			t.Helper()
			if err := os.Remove(dir.Join(failureFile)); err != nil {
				t.Fatal(err)
			}
			return nil
		},
		"changed": func(t *testing.T, _ *esp.Dir) []byte {
			t.Helper()
			return []byte(strings.Replace(string(sealed(t, "x", strings.Repeat("2", 64), disable)), "e", "f", 1))
		},
		"for another failure": func(t *testing.T, _ *esp.Dir) []byte {
			t.Helper()
			return sealed(t, "x", strings.Repeat("9", 64), disable)
		},
	} {
		dir, f := machine(t)
		envelope := change(t, dir)
		if envelope == nil {
			envelope = sealed(t, "x", f.Bundle, disable)
		}
		if orders, err := Verify(envelope, dir.Join(esp.Trust)); err == nil {
			t.Errorf("%s: %+v", name, orders)
		}
	}
}

// TestADamagedMemoryKeepsNoFixAway: a machine must be able to recover; what is forgotten by that is said.
func TestADamagedMemoryKeepsNoFixAway(t *testing.T) {
	t.Parallel()
	dir, f := machine(t)
	if err := os.WriteFile(dir.Join(memoryFile), []byte("{torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	fix := sealed(t, "x", f.Bundle, disable)
	if got, err := Verify(fix, dir.Join(esp.Trust)); err != nil || !strings.Contains(got.Lost, "forgotten") {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := Verify(fix, dir.Join(esp.Trust)); err != nil || got.Lost != "" {
		t.Errorf("of the new memory: %+v, %v", got, err)
	}
}

// TestEveryVerb: each verb of the closed list becomes something that bootguard does, and no other verb does.
func TestEveryVerb(t *testing.T) {
	t.Parallel()
	file := boot.Restore{Path: "config/keepout.yaml", SHA256: strings.Repeat("a", 64)}
	source := boot.Orders{Source: "fix x", Reason: "because"}
	with := func(change func(*boot.Remedy)) boot.Remedy {
		r := boot.Remedy{Orders: source}
		change(&r)
		return r
	}
	wants := map[remediation.Verb]boot.Remedy{
		remediation.DisableProvider: with(func(r *boot.Remedy) { r.Orders.Disabled = []string{"acme"} }),
		remediation.RollbackContent: with(func(r *boot.Remedy) { r.Orders.LastKnownGood = []string{"acme"} }),
		remediation.RestoreFile:     with(func(r *boot.Remedy) { r.Restore = []boot.Restore{file} }),
		remediation.SafeMode:        with(func(r *boot.Remedy) { r.Orders.Safe = true }),
		remediation.UnsetSafeMode:   with(func(r *boot.Remedy) { r.Unset = true }),
		remediation.Hold:            {Orders: source},
		remediation.Collect:         {Orders: source},
	}
	for _, verb := range remediation.Verbs() {
		a := remediation.Action{Verb: verb, Provider: "acme", Path: file.Path, SHA256: file.SHA256}
		got, err := Remedy(&remediation.Plan{
			Fix: remediation.Fix{ID: "x", Reason: "because"}, Effects: []remediation.Action{a},
		})
		if want, known := wants[verb]; !known || err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v", verb, got, err)
		}
	}
	bad := remediation.Plan{Effects: []remediation.Action{{Verb: "run"}}}
	if _, err := Remedy(&bad); err == nil {
		t.Error("an unknown verb is done")
	}
}

// TestFilesAndSafeModeAreForTheOrganisation: the verbs that reach Keepout's own files and take caution back, forged or
// from a vendor, are refused at the next boot, and a replay of them is, too.
func TestFilesAndSafeModeAreForTheOrganisation(t *testing.T) {
	t.Parallel()
	for _, action := range []remediation.Action{
		{Verb: remediation.UnsetSafeMode},
		{Verb: remediation.RestoreFile, Path: "program/keepoutd", SHA256: strings.Repeat("a", 64)},
	} {
		dir, f := machine(t)
		trust := dir.Join(esp.Trust)
		keys, err := EncodeTrust(remediation.Trust{
			Organisation: sign.Role{Keys: remediation.PublicKeys(key("a"), key("b")), Threshold: 2},
			Vendors:      map[string]sign.Role{"acme": {Keys: remediation.PublicKeys(key("vendor")), Threshold: 1}},
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(trust, TrustFile), keys, 0o600); err != nil {
			t.Fatal(err)
		}
		seal := func(vendor string, keys ...string) []byte {
			return sealedBy(t, vendor, "x", f.Bundle, []remediation.Action{action}, keys...)
		}
		for name, envelope := range map[string][]byte{
			"one key": seal("", "a"), "the same key twice": seal("", "a", "a"), "strangers": seal("", "c", "d"),
			"the vendor": seal("acme", "vendor"), "the vendor as the organisation": seal("", "vendor", "a"),
		} {
			if got, err := Verify(envelope, trust); err == nil {
				t.Errorf("%s by %s: %+v", action.Verb, name, got)
			}
		}
		good := seal("", "a", "b")
		if _, err := Verify(good, trust); err != nil {
			t.Errorf("%s: %v", action.Verb, err)
		}
		if _, err := Verify(sealed(t, "another", f.Bundle, disable), trust); err == nil {
			t.Error("a second answer to one report is believed")
		}
		f.Bundle = strings.Repeat("4", 64)
		if err := Note(dir, f); err != nil {
			t.Fatal(err)
		}
		if _, err := Verify(good, trust); err == nil {
			t.Errorf("%s: replayed at the next failure", action.Verb)
		}
	}
}

func FuzzParseTrust(f *testing.F) {
	f.Add([]byte(`{"organisation":{"keys":["AAAA"],"threshold":2}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		trust, err := ParseTrust(data)
		if err != nil {
			return
		}
		if text, err := EncodeTrust(trust); err != nil {
			t.Fatal(err)
		} else if _, err := ParseTrust(text); err != nil {
			t.Fatal(err)
		}
	})
}
