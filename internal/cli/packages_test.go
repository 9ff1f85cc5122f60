package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keepout-security/keepout/internal/testenv"
)

var updateDocuments = flag.Bool("update-documents", false, "write the outputs in docs/packages.md")

// packagesWorld is a working folder with an engine and its content, as the document assumes it.
func packagesWorld(t *testing.T) {
	t.Helper()
	from, err := filepath.Abs(filepath.Join("testdata", "packages"))
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	if err := os.CopyFS(".", os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	// A checkout's modes depend on the umask.
	err = fs.WalkDir(os.DirFS("."), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		return os.Chmod(name, map[bool]fs.FileMode{true: 0o755, false: 0o644}[d.Name() == "engine"])
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, code := keepout(t, "provider seal acme-edr"); code != exitOK {
		t.Fatal("the engine is not sealed")
	}
}

// keepout runs one command line in this process.
func keepout(t *testing.T, line string) (out, errs string, code int) {
	t.Helper()
	return typed(t, strings.Fields(line)...)
}

// typed runs one command in this process.
func typed(t *testing.T, args ...string) (out, errs string, code int) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	a := &app{out: &stdout, err: &stderr, version: "test", now: func() time.Time {
		return time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	}}
	code = a.run(context.Background(), args)
	return stdout.String(), stderr.String(), code
}

// TestPackagesDocument runs every command of docs/packages.md in its order and compares what it prints.
func TestPackagesDocument(t *testing.T) {
	file := filepath.Join(testenv.ModuleRoot(t), "docs", "packages.md")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	packagesWorld(t)
	var out strings.Builder
	inside, commands := false, 0
	for line := range strings.Lines(string(text)) {
		command, isCommand := strings.CutPrefix(strings.TrimSpace(line), "$ keepout ")
		switch {
		case strings.HasPrefix(line, "```"):
			inside = strings.TrimSpace(line) == "```console"
			out.WriteString(line)
		case inside && isCommand:
			commands++
			stdout, stderr, _ := keepout(t, command)
			out.WriteString(line + stdout + stderr)
		case !inside:
			out.WriteString(line)
		}
	}
	if commands < 9 {
		t.Errorf("only %d commands were found", commands)
	}
	got := out.String()
	if *updateDocuments {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got != string(text) {
		t.Errorf("docs/packages.md is not what is printed; go test ./internal/cli -update-documents writes it.\n%s", got)
	}
}

// signedPackage goes through the document's path once.
func signedPackage(t *testing.T) {
	t.Helper()
	packagesWorld(t)
	for _, line := range []string{
		"keys init acme --as vendor --no-passphrase",
		"keys init ops --as operator --no-passphrase",
		"keys vendor ops acme --root acme/metadata/1.root.json --provider acme-edr",
		"package build acme-edr --version 4.2.0 --counter 42",
		"package sign acme-edr.oci --home acme --as vendor --role engine",
		"package sign acme-edr.oci --home ops --as operator",
	} {
		if _, errs, code := keepout(t, line); code != exitOK || errs != "" {
			t.Fatalf("keepout %s: %d %s", line, code, errs)
		}
	}
}

const verifyLine = "package verify acme-edr.oci --vendor acme=acme/metadata --operator ops/metadata"

func TestPackageCommands(t *testing.T) {
	signedPackage(t)
	for _, c := range []struct {
		line string
		code int
		says string
	}{
		{verifyLine, exitOK, "is good"},
		{verifyLine + " --state state", exitOK, "is good"},
		{verifyLine + " --state state", exitOK, "is good"},
		{verifyLine + " --hardware plan9/mips", exitFailure, "KO-2120"},
		{verifyLine + " --root nowhere", exitFailure, "operator's root"},
		{strings.Replace(verifyLine, "acme=", "evil=", 1), exitFailure, "KO-2116"},
		{strings.Replace(verifyLine, "ops/metadata", "acme/metadata", 1), exitFailure, "KO-2116"},
		{"package verify acme-edr.oci", exitUsage, "--vendor"},
		{"package verify nothing.oci --vendor a=b --operator c", exitFailure, "open folder"},
		{"package sign acme-edr.oci --home acme --as operator", exitUsage, "signed as operator"},
		{"package sign acme-edr.oci --home acme --role content", exitUsage, "class engine"},
		{"package sign acme-edr.oci", exitUsage, "--home"},
		{"package sign --refresh --home ops", exitOK, "is current"},
		{"package sign acme-edr.oci --home nowhere", exitFailure, "KO-2141"},
		{"package build acme-edr --version 4", exitUsage, "--counter"},
		{"package build lists --version 4 --counter 1", exitUsage, "--provider"},
		{"package build acme-edr --version ../4 --counter 1", exitUsage, "version"},
		{"package build acme-edr --version 4.2.1 --counter 42 --to two.oci", exitOK, ""},
		{"package sign two.oci --home acme", exitFailure, "KO-2144"},
		{"package build acme-edr --version 4.3.0 --counter 43", exitOK, ""},
		{verifyLine, exitUsage, "--tag"},
		{verifyLine + " --tag engine-4.2.0", exitOK, "is good"},
		{verifyLine + " --tag engine-4.3.0", exitFailure, "KO-2117"},
		{"package pull nowhere", exitUsage, "want"},
		{"keys init acme --as vendor --no-passphrase", exitFailure, "KO-2141"},
		{"keys init other --as janitor --no-passphrase", exitUsage, "--as"},
		{"keys init other --as vendor", exitUsage, "--no-passphrase"},
		{"keys revoke acme engine-1", exitUsage, "--yes"},
		{"keys revoke acme engine-1 --yes", exitOK, "is revoked"},
		{"keys revoke acme engine-2 --yes", exitFailure, "KO-2143"},
		{"keys rotate acme engine --yes", exitOK, "new keys"},
		{"keys rotate acme nobody --yes", exitFailure, "KO-2143"},
		{"keys sign acme", exitOK, "nothing waits"},
		{verifyLine + " --tag engine-4.2.0 --state state", exitOK, "is good"},
		{"keys vendor ops acme --remove --yes", exitOK, "is removed"},
		{verifyLine + " --tag engine-4.2.0 --state state", exitFailure, "KO-2116"},
	} {
		out, errs, code := keepout(t, c.line)
		if code != c.code || !strings.Contains(out+errs, c.says) {
			t.Errorf("keepout %s: code %d, want %d, and %q in\n%s%s", c.line, code, c.code, c.says, out, errs)
		}
		plain(t, out+errs)
	}
}

// TestPackageJSON: what is printed for programs is one object with stable names.
func TestPackageJSON(t *testing.T) {
	signedPackage(t)
	for line, names := range map[string]string{
		verifyLine:                           "path digest length vendor release",
		"package inspect acme-edr.oci":       "digest length type path release layers files",
		"keys show ops":                      "party name root_version keys metadata vendors",
		"package sign --refresh --home acme": "done what metadata",
		"package build acme-edr --version 5 --counter 50 --to five.oci": "package layout tag",
	} {
		out, errs, code := keepout(t, "-o json "+line)
		var got map[string]any
		if err := json.Unmarshal([]byte(out), &got); err != nil || code != exitOK {
			t.Fatalf("keepout %s: %d %v %s", line, code, err, errs)
		}
		for _, name := range strings.Fields(names) {
			if _, ok := got[name]; !ok {
				t.Errorf("keepout %s: no %q in %s", line, name, out)
			}
		}
	}
}

// TestTamperedPackage: a byte of any blob, after both have signed.
func TestTamperedPackage(t *testing.T) {
	signedPackage(t)
	err := filepath.WalkDir(filepath.Join("acme-edr.oci", "blobs"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		good, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		bad := bytes.Clone(good)
		bad[len(bad)/2] ^= 1
		if err := os.Chmod(path, 0o600); err != nil {
			return err
		}
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			return err
		}
		if out, errs, code := keepout(t, verifyLine); code != exitFailure || !strings.Contains(errs, "KO-2132") {
			t.Errorf("%s was changed: %d %s%s", path, code, out, errs)
		}
		return os.WriteFile(path, good, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, errs, code := keepout(t, verifyLine); code != exitOK {
		t.Errorf("whole again: %s", errs)
	}
}

func TestContentMustFit(t *testing.T) {
	packagesWorld(t)
	if err := os.WriteFile(filepath.Join("lists", "deny.txt"), []byte("no digest\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	line := "package build lists --provider acme-edr --version 78 --counter 78"
	if out, errs, code := keepout(t, line); code != exitFailure || !strings.Contains(errs, "deny.txt") {
		t.Errorf("%d %s%s", code, out, errs)
	}
}

// TestPassphraseFile: the same path with keys that are encrypted.
func TestPassphraseFile(t *testing.T) {
	packagesWorld(t)
	if err := os.WriteFile("secret", []byte("correct horse battery\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		line string
		code int
	}{
		{"keys init acme --as vendor --passphrase-file secret", exitOK},
		{"package build acme-edr --version 4.2.0 --counter 42", exitOK},
		{"package sign acme-edr.oci --home acme", exitFailure},
		{"package sign acme-edr.oci --home acme --passphrase-file secret", exitOK},
		{"package sign --refresh --home acme", exitOK}, // online keys have none
	} {
		if out, errs, code := keepout(t, c.line); code != c.code {
			t.Errorf("keepout %s: %d, want %d: %s%s", c.line, code, c.code, out, errs)
		}
	}
}

func TestSection(t *testing.T) {
	t.Parallel()
	const text = "id: a\n# about\ncontent_schema:   # x\n  files:\n    - a\n\n  others: refuse\nhealth: {}\n"
	if got := string(section([]byte(text), "content_schema")); got !=
		"content_schema:   # x\n  files:\n    - a\n\n  others: refuse\n" {
		t.Errorf("%q", got)
	}
	if got := section([]byte(text), "nothing"); got != nil {
		t.Errorf("%q", got)
	}
}
