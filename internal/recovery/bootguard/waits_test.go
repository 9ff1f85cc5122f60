//go:build linux

package bootguard_test

import (
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keepout-security/keepout/internal/boot"
	"github.com/keepout-security/keepout/internal/recovery/esp"
	"github.com/keepout-security/keepout/internal/recovery/intent"
	"github.com/keepout-security/keepout/internal/recovery/remediation"
	"github.com/keepout-security/keepout/internal/sign"
)

func keys() []ed25519.PrivateKey {
	a, b := sha256.Sum256([]byte("a")), sha256.Sum256([]byte("b"))
	return []ed25519.PrivateKey{ed25519.NewKeyFromSeed(a[:]), ed25519.NewKeyFromSeed(b[:])}
}

// armed lets bootguard verify fixes by the organisation's keys, and gives the failure that they answer.
func (h *host) armed() *intent.Failure {
	h.t.Helper()
	text, err := intent.EncodeTrust(remediation.Trust{
		Organisation: sign.Role{Keys: remediation.PublicKeys(keys()...), Threshold: 2},
	})
	if err != nil {
		h.t.Fatal(err)
	}
	h.write("boot/efi/keepout/"+filepath.Join(esp.Trust, intent.TrustFile), string(text))
	f := &intent.Failure{
		Machine: strings.Repeat("1", 32), Bundle: strings.Repeat("2", 64), Signature: "0123456789abcdef",
		Floor: time.Now().Add(-300 * 24 * time.Hour), At: time.Now().Add(-time.Hour),
	}
	if err := intent.Note(h.dir, f); err != nil {
		h.t.Fatal(err)
	}
	h.verify = intent.Verify
	return f
}

// leaves puts the organisation's fix among the intents.
func (h *host) leaves(name string, f *remediation.Fix) {
	h.t.Helper()
	f.Format, f.ID, f.Reason = remediation.Format, name, "because"
	if f.Expires.IsZero() {
		f.Issued, f.Expires = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	}
	text, err := remediation.Encode(f)
	if err != nil {
		h.t.Fatal(err)
	}
	sealed, err := sign.Seal(keys(), remediation.PayloadType, text)
	if err != nil {
		h.t.Fatal(err)
	}
	if err := h.dir.LeaveIntent(esp.Intent{Name: name, Data: sealed}); err != nil {
		h.t.Fatal(err)
	}
}

// TestNothingWaitsOnceTheFailureIsOver: a good boot and a release end the wait of a fix, which no later start applies;
// the history says that it went. The end of a boot that was not judged does not.
func TestNothingWaitsOnceTheFailureIsOver(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		over  func(h *host) error
		waits bool
	}{
		"a good boot": {over: func(h *host) error { return h.guard().Good() }},
		"a release":   {over: func(h *host) error { return h.guard().Release("a person asked for it") }},
		"a shutdown":  {over: func(h *host) error { return h.guard().ShutDown() }, waits: true},
	} {
		h := newHost(t)
		f := h.armed()
		block := h.dir.Join("fixes.json")
		if err := os.Mkdir(block, 0o700); err != nil { // no file can take its name: the fix cannot be remembered
			t.Fatal(err)
		}
		h.leaves("fix-1", &remediation.Fix{
			Kind: remediation.Targeted, Bundle: f.Bundle, Actions: []remediation.Action{{Verb: remediation.SafeMode}},
		})
		if in := h.boot(); in.Orders.Safe || !strings.Contains(in.Trouble, "fix-1 waits") {
			t.Fatalf("%s: %+v", name, in)
		}
		if err := c.over(h); err != nil {
			t.Fatal(err)
		}
		history := h.dir.State().State.History
		if last := history[len(history)-1]; strings.Contains(last.Why, "no longer waits: fix-1") == c.waits {
			t.Errorf("%s: the history says %+v", name, last)
		}
		if err := os.Remove(block); err != nil {
			t.Fatal(err)
		}
		if in := h.boot(); in.Orders.Safe != c.waits || in.Mode == boot.Safe != c.waits {
			t.Errorf("after %s: %+v", name, in)
		}
	}
}

// TestAWaitingFixExpires: by the clock that showed a time before its expiry when the failure was found. One that was
// wrong then keeps no fix away.
func TestAWaitingFixExpires(t *testing.T) {
	t.Parallel()
	const days = 24 * time.Hour
	now := time.Now()
	for name, c := range map[string]struct {
		found   time.Time
		applied bool
	}{
		"it has waited for long":          {found: now.Add(-60 * days)},
		"the clock is ahead, now as then": {found: now.Add(-time.Hour), applied: true},
		"the clock was behind then":       {found: time.Unix(0, 0), applied: true},
		"nobody knows":                    {applied: true},
	} {
		h := newHost(t)
		f := h.armed()
		f.At = c.found
		if err := intent.Note(h.dir, f); err != nil {
			t.Fatal(err)
		}
		h.leaves("fix-1", &remediation.Fix{
			Kind: remediation.Targeted, Bundle: f.Bundle, Actions: []remediation.Action{{Verb: remediation.SafeMode}},
			Issued: now.Add(-59 * days), Expires: now.Add(-50 * days),
		})
		if in := h.boot(); in.Orders.Safe != c.applied || c.applied == strings.Contains(in.Trouble, "expired") {
			t.Errorf("%s: %+v", name, in)
		}
	}
}

// TestNoFixTakesThePlaceOfOneThatWaits: while orders cannot be kept no further fix is taken, the history says why, and
// all are applied when they can be.
func TestNoFixTakesThePlaceOfOneThatWaits(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.grub()
	f := h.armed()
	disable := func(id string) []remediation.Action {
		return []remediation.Action{{Verb: remediation.DisableProvider, Provider: id}}
	}
	h.leaves("fix-1", &remediation.Fix{
		Kind: remediation.Campaign, Sequence: 7, Symptom: remediation.Symptom{Signature: f.Signature},
		Actions: disable("acme"),
	})
	h.leaves("fix-2", &remediation.Fix{Kind: remediation.Targeted, Bundle: f.Bundle, Actions: disable("other")})
	env := h.dir.Join(esp.GrubEnv)
	block, err := os.ReadFile(env)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(env), os.MkdirAll(filepath.Join(env, "x"), 0o700)); err != nil {
		t.Fatal(err)
	}
	if in := h.boot(); !in.Orders.None() || !strings.Contains(in.Trouble, "fix-1 waits") {
		t.Errorf("without a counter: %+v", in)
	}
	history := h.dir.State().State.History
	if len(history) != 1 || history[0].What != boot.Unfixed || !strings.Contains(history[0].Why, "cannot be kept") {
		t.Errorf("the history is %+v", history)
	}
	if err := errors.Join(os.RemoveAll(env), os.WriteFile(env, block, 0o600)); err != nil {
		t.Fatal(err)
	}
	if in := h.boot(); !in.Disables("acme") || !in.Disables("other") || in.Trouble != "" {
		t.Errorf("with one: %+v", in)
	}
	if left, err := h.dir.Intents(); len(left) > 0 || err != nil {
		t.Errorf("left over: %v, %v", left, err)
	}
}

// TestTheLossOfTheMemoryIsSaid: the fix is applied, and the instruction says what was forgotten.
func TestTheLossOfTheMemoryIsSaid(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	f := h.armed()
	h.write("boot/efi/keepout/fixes.json", "{torn")
	h.leaves("fix-1", &remediation.Fix{
		Kind: remediation.Targeted, Bundle: f.Bundle, Actions: []remediation.Action{{Verb: remediation.SafeMode}},
	})
	if in := h.boot(); !in.Orders.Safe || !strings.Contains(in.Trouble, "forgotten") {
		t.Errorf("%+v", in)
	}
}
