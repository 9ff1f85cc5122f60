package intent

import (
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

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
	dir := esp.Open(t.TempDir())
	if err := dir.Prepare(); err != nil {
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
	text, err := remediation.Encode(&remediation.Fix{
		Format: 1, ID: id, Kind: remediation.Targeted, Bundle: bundle, Issued: time.Now().Add(-time.Minute),
		Expires: time.Now().Add(time.Hour), Reason: "because", Actions: actions,
	})
	if err != nil {
		t.Fatal(err)
	}
	out, err := sign.Seal([]ed25519.PrivateKey{key("a"), key("b")}, remediation.PayloadType, text)
	if err != nil {
		t.Fatal(err)
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
		orders, err := Verify(first, trust)
		if err != nil || len(orders.Disabled) != 1 || orders.Disabled[0] != "acme" || orders.Source != "fix one" {
			t.Fatalf("orders %+v, %v", orders, err)
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

// TestADamagedMemoryKeepsNoFixAway: a machine must be able to recover.
func TestADamagedMemoryKeepsNoFixAway(t *testing.T) {
	t.Parallel()
	dir, f := machine(t)
	if err := os.WriteFile(dir.Join(memoryFile), []byte("{torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Verify(sealed(t, "x", f.Bundle, disable), dir.Join(esp.Trust)); err != nil {
		t.Error(err)
	}
}

func TestOrdersRefuseWhatNeedsTheSystem(t *testing.T) {
	t.Parallel()
	p := remediation.Plan{Effects: []remediation.Action{{Verb: remediation.RestoreFile, Path: "config/x"}}}
	if _, err := Orders(&p); !errors.Is(err, ErrNotYet) {
		t.Errorf("got %v", err)
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
