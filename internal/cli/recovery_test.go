package cli

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/keepout-security/keepout/internal/crash"
	"github.com/keepout-security/keepout/internal/recovery/diagnostics"
	"github.com/keepout-security/keepout/internal/recovery/remediation"
	"github.com/keepout-security/keepout/internal/sign"
)

// command runs a command line without a daemon.
func command(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	a := &app{out: &out, err: &errs, version: "1.2.3"}
	code = a.run(t.Context(), append([]string{"--run-dir", t.TempDir()}, args...))
	return code, out.String(), errs.String()
}

// must is command where nothing may go wrong.
func must(t *testing.T, args ...string) string {
	t.Helper()
	code, out, errs := command(t, args...)
	if code != exitOK {
		t.Fatalf("keepout %s: exit code %d, %s", strings.Join(args, " "), code, errs)
	}
	return out
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestCrashCommands(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if out := must(t, "crash", "show", "--dir", dir); !strings.Contains(out, "has not failed to start") {
		t.Errorf("without a record: %s", out)
	}
	acme := crash.Product{ID: "acme-av", Name: "ACME AV", Engine: "7.2", Content: "291"}
	r := crash.Record{
		Code: "2FB4-12B9", Time: time.Now().Add(-time.Hour), Attempts: 3, Starting: &acme,
		Cause:   "Kernel panic - not syncing: x",
		Suspect: &crash.Suspect{Product: acme, Reason: "its content changed 4 minutes before the first failed start"},
		Steps:   []crash.Step{{Progress: crash.Done, Text: "Network: wired", Detail: "10.0.2.15"}},
		Details: []string{"the last line \x1b[2J"}, Outcome: &crash.Outcome{
			Recovered: true,
			Action:    "content 291 was rolled back",
		},
	}
	data, err := crash.Encode(&r)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, r.FileName()), data)
	out := must(t, "crash", "show", "2fb4-12b9", "--dir", dir)
	for _, want := range []string{
		"This machine could not start, and has recovered (3 attempts)", "Stopped while starting: ACME AV 7.2, content 291",
		"Suspected: ACME AV", "Reason: its content changed", "done     Network: wired: 10.0.2.15",
		"Your files have not been changed.",
		"Report 2FB4-12B9", "content 291 was rolled back. It has started well since.", "the last line ?[2J",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("show lacks %q:\n%s", want, out)
		}
	}
	if out := must(t, "crash", "notice", "--dir", dir); !strings.HasPrefix(out, "Keepout: This machine could not start") {
		t.Errorf("notice: %s", out)
	}
	if out := must(t, "crash", "list", "--dir", dir); !strings.Contains(out, "2FB4-12B9") || !strings.Contains(out,
		"recovered") {
		t.Errorf("list: %s", out)
	}
	var shown crash.Record
	if err := json.Unmarshal([]byte(must(t, "crash", "show", "-o", "json", "--dir", dir)), &shown); err != nil ||
		shown.Code != r.Code {
		t.Errorf("as JSON: %+v, %v", shown, err)
	}
	if code, _, errs := command(t, "crash", "show", "0000-0000", "--dir", dir); code != exitFailure ||
		!strings.Contains(errs, "KO-2503") {
		t.Errorf("an unknown code: %d, %s", code, errs)
	}
}

func TestDiagnosticsCommands(t *testing.T) {
	t.Parallel()
	root, state := t.TempDir(), t.TempDir()
	for name, text := range map[string]string{
		"etc/machine-id": "0123456789abcdef0123456789abcdef\n", "etc/hostname": "pc-of-bob\n",
		"sys/fs/pstore/dmesg-erst-1": "Panic#1 Part1\nKernel panic - not syncing: pc-of-bob and topsecret at 10.1.2.3\n",
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(root, name), []byte(text))
	}
	out := must(t, "diagnostics", "preview", "--root", root, "--state-dir", state, "--redact", "topsecret")
	if !strings.Contains(out, "[host] and [removed] at [address]") || !strings.Contains(out, "known-host") ||
		!strings.Contains(out, "Nothing was kept or sent") || strings.Contains(out, "pc-of-bob") {
		t.Errorf("preview:\n%s", out)
	}
	if entries, _ := os.ReadDir(state); len(entries) > 0 {
		t.Error("a preview kept something")
	}
	if code, _, errs := command(t, "diagnostics", "send", "--state-dir", state); code != exitFailure ||
		!strings.Contains(errs, "KO-2513") {
		t.Errorf("nothing to send: %d, %s", code, errs)
	}
	if code, _, errs := command(t, "diagnostics", "collect", "--level", "off"); code != exitFailure ||
		!strings.Contains(errs, "KO-2511") {
		t.Errorf("level off: %d, %s", code, errs)
	}
	var kept struct{ Path, Report, Digest string }
	if err := json.Unmarshal([]byte(must(t, "diagnostics", "collect", "-o", "json", "--root", root, "--state-dir",
		state)), &kept); err != nil {
		t.Fatal(err)
	}
	bundle, err := os.ReadFile(kept.Path)
	if err != nil || diagnostics.Digest(bundle) != kept.Digest || kept.Report != crash.CodeOf(kept.Digest) {
		t.Fatalf("kept %+v, %v", kept, err)
	}
	key := filepath.Join(t.TempDir(), "ours.pub")
	if code, _, errs := command(t, "diagnostics", "send", "--state-dir", state, "--key", key); code != exitFailure ||
		!strings.Contains(errs, "KO-2514") {
		t.Errorf("without a key: %d, %s", code, errs)
	}
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	write(t, key, []byte(identity.Recipient().String()))
	must(t, "diagnostics", "send", "--state-dir", state, "--key", key)
	parcels, err := filepath.Glob(filepath.Join(state, "outbox", "*.parcel"))
	if err != nil || len(parcels) != 1 {
		t.Fatalf("in the outbox: %q, %v", parcels, err)
	}
	parcel, err := os.ReadFile(parcels[0])
	if err != nil {
		t.Fatal(err)
	}
	if _, opened, err := diagnostics.Open(parcel, []age.Identity{identity}); err != nil || !bytes.Equal(opened, bundle) {
		t.Errorf("what is sent is not what is kept: %v", err)
	}
}

// TestBundlesAreBounded: only so many bundles are kept, the newest.
func TestBundlesAreBounded(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for i := range keptBundles + 4 {
		write(t, filepath.Join(dir, bundlePrefix+"20260101-"+string(rune('a'+i))+bundleSuffix), nil)
	}
	path, err := keepBundle(dir, []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	names, err := bundles(dir)
	if err != nil || len(names) != keptBundles || names[len(names)-1] != filepath.Base(path) {
		t.Errorf("%d are kept, the last is %q, %v", len(names), names[len(names)-1], err)
	}
}

// keyPair writes a key as OpenSSL does, and returns its file.
func keyPair(t *testing.T, dir, name string) (file string, key ed25519.PrivateKey) {
	t.Helper()
	seed := sha256.Sum256([]byte(name))
	key = ed25519.NewKeyFromSeed(seed[:])
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(dir, name+".pem")
	write(t, file, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	return file, key
}

func TestRemediationCommands(t *testing.T) {
	t.Parallel()
	dir, keys := t.TempDir(), t.TempDir()
	adaFile, ada := keyPair(t, keys, "ada")
	bobFile, bob := keyPair(t, keys, "bob")
	var public []byte
	for _, k := range remediation.PublicKeys(ada, bob) {
		der, err := x509.MarshalPKIXPublicKey(k)
		if err != nil {
			t.Fatal(err)
		}
		public = append(public, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})...)
	}
	trust := filepath.Join(keys, "trust.pem")
	write(t, trust, public)

	must(t, "remediation", "create", "fix-1", "--reason", "content 291 ends machines", "--provider", "acme-av",
		"--content", "291",
		"--do", "rollback-content acme-av", "--dir", dir)
	draft, fix := filepath.Join(dir, "fix-1.draft.json"), filepath.Join(dir, "fix-1.fix")
	must(t, "remediation", "sign", draft, "--key", adaFile)
	if out := must(t, "remediation", "list", dir, "--trust", trust); !strings.Contains(out, "1 of 2 signatures") ||
		!strings.Contains(out, "draft") {
		t.Errorf("after the first signature:\n%s", out)
	}
	if code, _, errs := command(t, "remediation", "approve", fix, "--key", adaFile, "--yes"); code != exitFailure ||
		!strings.Contains(errs, "KO-2531") {
		t.Errorf("approving one's own: %d, %s", code, errs)
	}
	role := sign.Role{Keys: remediation.PublicKeys(ada, bob), Threshold: 2}
	machine := remediation.Machine{Now: time.Now(), Providers: []remediation.Provider{{ID: "acme-av", Content: "291"}}}
	judge := func(path string) error {
		sealed, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		_, err = remediation.Judge(remediation.Trust{Organisation: role}, remediation.State{}, machine, sealed)
		return err
	}
	if out := must(t, "remediation", "approve", fix, "--key", bobFile); !strings.Contains(out,
		"rollback-content acme-av") || judge(fix) == nil {
		t.Errorf("looking at it signed it, or does not show what it does:\n%s", out)
	}
	must(t, "remediation", "approve", fix, "--key", bobFile, "--yes")
	if err := judge(fix); err != nil {
		t.Errorf("a fix with two signatures is refused: %v", err)
	}
	if out := must(t, "remediation", "list", dir, "--trust", trust); !strings.Contains(out, "ready") {
		t.Errorf("after the second signature:\n%s", out)
	}
	out := must(t, "remediation", "revoke", "fix-1", "--reason", "wrong", "--key", bobFile, "--dir", dir)
	revocations, err := filepath.Glob(filepath.Join(dir, "revocation-*.fix"))
	if err != nil || len(revocations) != 1 || !strings.Contains(out, "revokes") {
		t.Fatalf("revocations %q, %v:\n%s", revocations, err, out)
	}
	if err := judge(revocations[0]); err != nil {
		t.Errorf("a revocation is refused: %v", err)
	}
}

func TestRemediationRefusals(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "bad.fix"), []byte("{}"))
	create := []string{"remediation", "create", "x", "--reason", "r", "--provider", "a", "--dir", dir}
	for name, args := range map[string][]string{
		"a script":         append(create, "--do", "run rm"),
		"no action":        create,
		"half an action":   append(create, "--do", "disable-provider"),
		"a file elsewhere": append(create, "--do", "restore-file /etc/passwd "+strings.Repeat("a", 64)),
		"no id":            {"remediation", "create"},
	} {
		if code, _, errs := command(t, args...); code != exitUsage {
			t.Errorf("%s: exit code %d, %s", name, code, errs)
		}
	}
	if out := must(t, "remediation", "list", dir); !strings.Contains(out, "damaged") {
		t.Errorf("a damaged file: %s", out)
	}
}

// TestALostKeyIsTakenBack: with the commands, one person alone takes back only their own key, two take back another's.
func TestALostKeyIsTakenBack(t *testing.T) {
	t.Parallel()
	keys := t.TempDir()
	adaFile, ada := keyPair(t, keys, "ada")
	bobFile, bob := keyPair(t, keys, "bob")
	_, cyd := keyPair(t, keys, "cyd")
	der, err := x509.MarshalPKIXPublicKey(cyd.Public())
	if err != nil {
		t.Fatal(err)
	}
	public := filepath.Join(keys, "cyd.pub")
	write(t, public, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	trust := remediation.Trust{Organisation: sign.Role{Keys: remediation.PublicKeys(ada, bob, cyd), Threshold: 2}}

	out := must(t, "remediation", "revoke", "--lost", public, "--reason", "it was stolen", "--key", adaFile, "--dir", keys)
	files, err := filepath.Glob(filepath.Join(keys, "revocation-*.fix"))
	id := string(sign.IDOf(remediation.PublicKeys(cyd)[0]))
	if err != nil || len(files) != 1 || !strings.Contains(out, id) {
		t.Fatalf("%q, %v:\n%s", files, err, out)
	}
	judge := func() (remediation.Plan, error) {
		sealed, err := os.ReadFile(files[0])
		if err != nil {
			t.Fatal(err)
		}
		return remediation.Judge(trust, remediation.State{}, remediation.Machine{Now: time.Now()}, sealed)
	}
	if _, err := judge(); err == nil || !strings.Contains(err.Error(), remediation.CodeOverreach) {
		t.Errorf("with one signature: %v", err)
	}
	must(t, "remediation", "approve", files[0], "--key", bobFile, "--yes")
	if plan, err := judge(); err != nil || len(plan.State.RevokedKeys) != 1 {
		t.Errorf("with two: %+v, %v", plan.State, err)
	}
	if code, _, errs := command(t, "remediation", "revoke", "--reason", "r", "--key", adaFile); code != exitUsage {
		t.Errorf("nothing is taken back: %d, %s", code, errs)
	}
}
