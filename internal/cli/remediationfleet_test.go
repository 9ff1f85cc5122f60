package cli

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keepout-security/keepout/internal/fleet"
	"github.com/keepout-security/keepout/internal/fleet/client"
)

// writeKeys makes key pairs for people and puts their public keys where a control plane looks for them.
func writeKeys(t *testing.T, dir, state string, people ...string) {
	t.Helper()
	var public []byte
	for _, name := range people {
		seed := sha256.Sum256([]byte(name))
		key := ed25519.NewKeyFromSeed(seed[:])
		private, err := x509.MarshalPKCS8PrivateKey(key)
		der, err2 := x509.MarshalPKIXPublicKey(key.Public())
		err3 := os.WriteFile(filepath.Join(dir, name+".pem"),
			pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600)
		if err := errors.Join(err, err2, err3); err != nil {
			t.Fatal(err)
		}
		public = append(public, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})...)
	}
	keys := filepath.Join(state, fleet.FixKeys)
	err := errors.Join(os.MkdirAll(keys, 0o700), os.WriteFile(filepath.Join(keys, "organisation.pem"), public, 0o600))
	if err != nil {
		t.Fatal(err)
	}
}

// loginAs makes a second person's login.
func loginAs(t *testing.T, admin, dir, person, role string) string {
	t.Helper()
	out, errs, code := typed(t, "fleet", "token", "create", "--person", person, "--role", role, "--login", admin)
	l, err := client.LoadLogin(admin)
	if code != exitOK || err != nil {
		t.Fatalf("%d %s %v", code, errs, err)
	}
	l.Token = strings.TrimSpace(out)
	path := filepath.Join(dir, person+".json")
	if err := os.WriteFile(path, l.Text(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestRemediationThroughTheFleet: two people with two keys and two logins bring a fix to the control plane.
func TestRemediationThroughTheFleet(t *testing.T) {
	t.Parallel()
	ann, dir := fleetOf(t), t.TempDir()
	writeKeys(t, dir, filepath.Dir(ann), "ada", "bob")
	ben := loginAs(t, ann, dir, "ben", "approver")
	for _, c := range []struct {
		line, login string
		code        int
		says        string
	}{
		{"remediation create f-1 --reason ends_machines --provider acme --do safe-mode --dir " + dir, ann, exitOK, "f-1"},
		{"remediation sign " + dir + "/f-1.draft.json --key " + dir + "/ada.pem --fleet", ann, exitOK, "another person"},
		{"remediation list --fleet", ann, exitOK, "waiting"},
		{"remediation approve f-1 --fleet", ben, exitOK, "safe-mode"},
		{"remediation approve f-1 --fleet --yes", ben, exitDenied, "KO-2704"},
		{"remediation approve f-1 --fleet --yes --key " + dir + "/ada.pem", ben, exitFailure, "KO-2531"},
		{"remediation approve f-1 --fleet --yes --key " + dir + "/bob.pem", ann, exitDenied, "KO-2704"},
		{"remediation approve f-1 --fleet --yes --key " + dir + "/bob.pem", ben, exitOK, "from now on"},
		{"remediation list --fleet", ben, exitOK, "active"},
		{"remediation revoke f-1 --fleet", ben, exitUsage, "--reason"},
		{"remediation revoke f-1 --fleet --reason wrong", ben, exitOK, "not served"},
		{"remediation list --fleet", ben, exitOK, "revoked"},
		{
			"remediation revoke f-1 --fleet --reason wrong --key " + dir + "/bob.pem --dir " + dir, ann, exitOK,
			"it is in force",
		},
		{"fleet bundles", ben, exitOK, "SIGNATURE"},
		{"fleet bundles get 0123-4567 --to " + dir + "/b", ben, exitFailure, "KO-2209"},
		{"fleet groups", ben, exitOK, "SUSPECTED CHANGE"},
	} {
		out, errs, code := typed(t, append(strings.Fields(c.line), "--login", c.login)...)
		if code != c.code || !strings.Contains(out+errs, c.says) {
			t.Errorf("%s: code %d, want %d; wanted %q in\n%s%s", c.line, code, c.code, c.says, out, errs)
		}
	}
	for _, line := range []string{"remediation list --fleet", "fleet bundles", "fleet groups"} {
		out, errs, code := typed(t, append(strings.Fields(line), "-o", "json", "--login", ann)...)
		if code != exitOK || !json.Valid([]byte(out)) {
			t.Errorf("%s as JSON: %d %s%s", line, code, out, errs)
		}
	}
}

// TestALostKeyThroughTheFleet: the control plane takes what two people signed against a third one's key, and not what
// one of them did.
func TestALostKeyThroughTheFleet(t *testing.T) {
	t.Parallel()
	ann, dir := fleetOf(t), t.TempDir()
	state := filepath.Dir(ann)
	writeKeys(t, dir, state, "ada", "bob", "cyd")
	lost := filepath.Join(state, fleet.FixKeys, "organisation.pem") // all of them, for want of a file of its own
	run := func(line string, want int, says string) {
		t.Helper()
		out, errs, code := typed(t, append(strings.Fields(line), "--login", ann)...)
		if code != want || !strings.Contains(out+errs, says) {
			t.Errorf("%s: code %d, want %d; wanted %q in\n%s%s", line, code, want, says, out, errs)
		}
	}
	run("remediation revoke --lost "+lost+" --fleet --reason stolen --key "+dir+"/ada.pem --dir "+dir, exitOK,
		"another person")
	files, err := filepath.Glob(filepath.Join(dir, "revocation-*.fix"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%q, %v", files, err)
	}
	run("remediation send "+files[0], exitFailure, "KO-2704")
	run("remediation approve "+files[0]+" --key "+dir+"/bob.pem --yes", exitOK, "keepout remediation send")
	run("remediation send "+files[0], exitOK, "it is in force")
}
