package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keepout-security/keepout/internal/recovery/esp"
	"github.com/keepout-security/keepout/internal/recovery/intent"
	"github.com/keepout-security/keepout/internal/recovery/remediation"
	"github.com/keepout-security/keepout/internal/sign"
)

// TestRecoveryStatusTellsOfKeys: whose fixes this machine believes, and how the last rehearsal went.
func TestRecoveryStatusTellsOfKeys(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	id := filepath.Join(root, "proc", "sys", "kernel", "random")
	if err := os.MkdirAll(id, 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(id, "boot_id"), []byte("boot-1\n"))
	dir := esp.Open(filepath.Join(root, "boot", "efi", "keepout"))
	if err := dir.Prepare(); err != nil {
		t.Fatal(err)
	}
	status := func() string {
		t.Helper()
		code, out, errs := command(t, "recovery", "status", "--root", root)
		if code != exitDegraded { // it is not armed
			t.Fatalf("%d, %s", code, errs)
		}
		return out
	}
	if out := status(); !strings.Contains(out, "none is believed") || strings.Contains(out, "rehearsal") {
		t.Errorf("without keys:\n%s", out)
	}
	keys := t.TempDir()
	_, ada := keyPair(t, keys, "ada")
	_, bob := keyPair(t, keys, "bob")
	text, err := intent.EncodeTrust(remediation.Trust{
		Organisation: sign.Role{Keys: remediation.PublicKeys(ada, bob), Threshold: 2},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir.Join(esp.Trust), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir.Join(esp.Trust), intent.TrustFile), text)
	write(t, dir.Join("rehearsal.json"), []byte(`{"version":1,"trouble":"no network","steps":[]}`))
	if out := status(); !strings.Contains(out, "2 keys of the organisation") ||
		!strings.Contains(out, "did not pass: no network") {
		t.Errorf("with keys and a report:\n%s", out)
	}
}
