package intent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keepout-security/keepout/internal/recovery/esp"
	"github.com/keepout-security/keepout/internal/recovery/protocol"
	"github.com/keepout-security/keepout/internal/recovery/remediation"
	"github.com/keepout-security/keepout/internal/sign"
)

// revoking is a revocation of a fix.
func revoking(t *testing.T, id string, by ...string) []byte {
	t.Helper()
	return revokingAll(t, []string{id}, remediation.Selector{}, by...)
}

func revokingAll(t *testing.T, ids []string, machines remediation.Selector, by ...string) []byte {
	t.Helper()
	text, err := remediation.Encode(&remediation.Fix{
		Format: 1, ID: "r", Kind: remediation.Revocation, Revokes: ids, Reason: "because", Machines: machines,
		Issued: time.Now().Add(-time.Minute), Expires: time.Now().Add(time.Hour),
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

// TestRevoke: a fix that was taken back is refused by both who judge, also when it lies there already and a power cut
// lets it be judged again; strangers take nothing back; a damaged memory keeps no revocation away,
// and that it is begun anew is said.
func TestRevoke(t *testing.T) {
	t.Parallel()
	dir, f := machine(t)
	trust, now := dir.Join(esp.Trust), time.Now()
	who := remediation.Trust{Organisation: sign.Role{Keys: remediation.PublicKeys(key("a"), key("b")), Threshold: 2}}
	fix := sealed(t, "one", f.Bundle, disable)
	if _, err := Verify(fix, trust); err != nil {
		t.Fatal(err)
	}
	for name, envelope := range map[string][]byte{
		"a stranger's": revoking(t, "one", "c"), "nonsense": []byte("{}"),
		"a fix": sealed(t, "two", strings.Repeat("9", 64), disable),
	} {
		if err := Revoke(dir, who, f, now, envelope); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	if _, err := Verify(fix, trust); err != nil {
		t.Fatalf("what nobody took back is refused: %v", err)
	}
	for range 2 {
		if err := Revoke(dir, who, f, now, revoking(t, "one", "b")); err != nil {
			t.Fatal(err)
		}
		if _, err := Verify(fix, trust); err == nil || !strings.Contains(err.Error(), "was taken back") {
			t.Errorf("the next boot: %v", err)
		}
		if _, err := Judge(dir, who, f, false, now, fix); err == nil {
			t.Error("the recovery environment believes it")
		}
	}
	if err := os.WriteFile(dir.Join(memoryFile), []byte("{torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Revoke(dir, who, f, now, revoking(t, "one", "a")); !errors.Is(err, ErrLost) {
		t.Fatalf("that all before it is forgotten is not said: %v", err)
	}
	if _, err := Verify(fix, trust); err == nil {
		t.Error("after a damaged memory the revocation does not hold")
	}
}

// TestLearn: what the fetcher staged while the system ran is remembered where the next start looks, as far as somebody
// who may has signed it; nothing takes a revocation back, an empty list and a torn one do not either.
func TestLearn(t *testing.T) {
	t.Parallel()
	dir, f := machine(t)
	trust, now, id := dir.Join(esp.Trust), time.Now(), "0123456789abcdef0123456789abcdef\n"
	staged := func(list ...[]byte) []byte {
		t.Helper()
		text, err := protocol.EncodeRevocations(list)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	others := remediation.Selector{IDs: []string{strings.Repeat("9", 32)}}
	own := remediation.Selector{IDs: []string{protocol.Pseudonym(id)}}
	for name, c := range map[string]struct {
		text []byte
		ok   bool
	}{
		"nothing":               {staged(), true},
		"a stranger's":          {staged(revoking(t, "one", "c")), false},
		"for other machines":    {staged(revokingAll(t, []string{"one"}, others, "a")), false},
		"torn":                  {staged(revoking(t, "one", "a"))[:40], false},
		"a fix":                 {staged(sealed(t, "two", f.Bundle, disable)), false},
		"another one, for this": {staged(revokingAll(t, []string{"other"}, own, "a")), true},
	} {
		if err := Learn(c.text, trust, id, now); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
	fix := sealed(t, "one", f.Bundle, disable)
	if _, err := Verify(fix, trust); err != nil {
		t.Fatalf("what nobody took back is refused: %v", err)
	}
	// One that is refused keeps no other away, wherever it stands.
	mixed := staged(revoking(t, "one", "c"), revoking(t, "one", "b"), []byte("{}"))
	if err := Learn(mixed, trust, id, now); err == nil || !strings.Contains(err.Error(), "revocation 1 of 3") {
		t.Errorf("nothing says which was refused: %v", err)
	}
	for _, text := range [][]byte{staged(), mixed[:20], staged(revoking(t, "one", "a"))} {
		_ = Learn(text, trust, id, now) // what it says was looked at above
		if _, err := Verify(fix, trust); err == nil || !strings.Contains(err.Error(), "was taken back") {
			t.Fatalf("the next boot: %v", err)
		}
	}
	m, err := recall(read, dir)
	if err != nil || !slices.Equal(m.State.Revoked, []string{"other", "one"}) ||
		!slices.Equal(m.Before.Revoked, m.State.Revoked) {
		t.Errorf("it remembers %+v, %v", m, err)
	}
	if err := os.Remove(filepath.Join(trust, TrustFile)); err != nil {
		t.Fatal(err)
	}
	if err := Learn(mixed, trust, id, now); err != nil {
		t.Errorf("without keys: %v", err)
	}
}

// TestRevokedMemoryIsBounded: what there is no room for is said, and what is known stays known.
func TestRevokedMemoryIsBounded(t *testing.T) {
	t.Parallel()
	dir, f := machine(t)
	who := remediation.Trust{Organisation: sign.Role{Keys: remediation.PublicKeys(key("a"), key("b")), Threshold: 2}}
	revoke := func(first, n int) error {
		var ids []string
		for i := range n {
			ids = append(ids, fmt.Sprint("fix-", first+i))
		}
		return Revoke(dir, who, f, time.Now(), revokingAll(t, ids, remediation.Selector{}, "a"))
	}
	for first := 0; first < 256; first += remediation.MaxRevoked {
		if err := revoke(first, remediation.MaxRevoked); err != nil {
			t.Fatal(err)
		}
	}
	if err := revoke(256, 1); err == nil || !strings.Contains(err.Error(), remediation.CodeFull) {
		t.Errorf("one more: %v", err)
	}
	if err := revoke(10, 5); err != nil {
		t.Errorf("what is known already: %v", err)
	}
}
