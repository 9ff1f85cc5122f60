package config

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

const engine = "#!/bin/true\n"

func engineDigest() string {
	sum := sha256.Sum256([]byte(engine))
	return hex.EncodeToString(sum[:])
}

// manifest of the provider "lists"; each key stands on a line of its own, so that a test can replace one.
var manifest = []string{
	"version: 1",
	"id: lists",
	"executable: engine",
	"protocol: [1]",
	"events:",
	"  - {type: open, content: metadata}",
	"settings: [on_miss, depth]",
	"grants: {memory: 64MiB, cpu: 20%, processes: 8, fds: 64}",
	"health: {heartbeat: 1s}",
	"sha256: " + engineDigest(),
}

// install makes a providers' folder with one provider; edit maps a line's number to its new text, and to "-" for
// a line that is left out.
func install(t *testing.T, edit map[int]string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	home := filepath.Join(dir, "lists")
	if err := os.Mkdir(home, 0o755); err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for i, line := range manifest {
		if with, ok := edit[i+1]; ok {
			line = with
		}
		if line != "-" {
			text.WriteString(line + "\n")
		}
	}
	writeFile(t, filepath.Join(home, ManifestFile), text.String())
	writeFile(t, filepath.Join(home, "engine"), engine)
	return dir
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func resolve(t *testing.T, dir, entry string) ([]Installed, error) {
	t.Helper()
	l, err := Parse("k.yaml", []byte("version: 1\nproviders:\n  - "+entry+"\n"))
	if err != nil {
		t.Fatal(err)
	}
	return l.Resolve(dir)
}

func TestResolve(t *testing.T) {
	t.Parallel()
	dir := install(t, nil)
	got, err := resolve(t, dir, "{id: lists, mode: enforce, on_miss: deny, limits: {memory: 32MiB, cpu: 90%}, "+
		"settings: {depth: 3}}")
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 1 {
		t.Fatalf("%d providers", len(got))
	}
	p := got[0]
	want := Limits{Memory: 32 << 20, CPU: 20, Processes: 8, Files: 64, State: defaultState, Log: defaultLog}
	if p.Limits != want {
		t.Errorf("limits %+v, want the smaller of both: %+v", p.Limits, want)
	}
	if want := map[string]string{"on_miss": "deny", "depth": "3"}; !reflect.DeepEqual(p.Values, want) {
		t.Errorf("values %v, want %v", p.Values, want)
	}
	if _, shared := p.Settings["on_miss"]; shared {
		t.Error("resolving changed the configuration's own map")
	}
	f, err := p.Manifest.OpenExecutable()
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}

func TestResolveRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		edit  map[int]string
		entry string
		want  []string // what each line ends with, DIR stands for the providers' folder
	}{
		{"unknown provider", nil, "{id: list}", []string{
			`k.yaml:3:10: KO-1003: provider "list" is not installed in DIR. Next: install it, or choose one of: lists`,
		}},
		{"no executable", map[int]string{3: "executable: gone"}, "{id: lists}", []string{
			"DIR/lists/provider.yaml:3:13: KO-1004: open DIR/lists/gone: no such file or directory. " +
				"Next: build the provider, or correct the name",
			`k.yaml:3:10: KO-1003: provider "lists" cannot be started. Next: see the line above`,
		}},
		{"no digest", map[int]string{10: "-"}, "{id: lists}", []string{
			"DIR/lists/provider.yaml:3:13: KO-1005: the manifest has no sha256. Next: keepout provider seal DIR/lists",
			`k.yaml:3:10: KO-1003: provider "lists" cannot be started. Next: see the line above`,
		}},
		{"wrong digest", map[int]string{10: "sha256: " + strings.Repeat("ab", 32)}, "{id: lists}", []string{
			"DIR/lists/provider.yaml:10:9: KO-1005: DIR/lists/engine has SHA-256 " + engineDigest() +
				", the manifest says " + strings.Repeat("ab", 32) +
				". Next: reinstall the provider, or if you built it: keepout provider seal DIR/lists",
			`k.yaml:3:10: KO-1003: provider "lists" cannot be started. Next: see the line above`,
		}},
		{"unknown setting", nil, "{id: lists, settings: {color: red}}", []string{
			`k.yaml:3:35: KO-1002: provider "lists" has no setting "color". Next: its settings are: on_miss, depth`,
		}},
		{"no on_miss", map[int]string{7: "settings: [depth]"}, "{id: lists, on_miss: deny}", []string{
			`k.yaml:3:26: KO-1002: provider "lists" has no setting "on_miss". Next: its settings are: depth`,
		}},
		{"broken manifest", map[int]string{
			1: "version: 2", 2: "id: other", 3: "executable: ../engine", 4: "protocol: []",
			6: "  - {type: read, content: all}", 9: "health: {heartbeat: 1h}", 10: "sha256: ABC",
		}, "{id: lists}", []string{
			`DIR/lists/provider.yaml:1:10: KO-1006: manifest version 2 is not known. Next: write version: 1`,
			`DIR/lists/provider.yaml:2:5: KO-1006: id "other" in folder "lists". Next: give the folder and the ` +
				`provider one name`,
			`DIR/lists/provider.yaml:3:13: KO-1006: executable "../engine" is not a plain file name. Next: name a ` +
				`file in the manifest's folder`,
			`DIR/lists/provider.yaml:10:9: KO-1006: sha256 is not 64 lower-case hex digits. Next: keepout provider ` +
				`seal DIR/lists`,
			`DIR/lists/provider.yaml:4:11: KO-1006: no protocol version. Next: write protocol: [1]`,
			`DIR/lists/provider.yaml:6:12: KO-1006: unknown event type "read" (known: open, exec, close-write, ` +
				`create, rename, delete). Next: choose one of the known events`,
			`DIR/lists/provider.yaml:6:27: KO-1006: content "all" is not known. Next: write metadata, digest or descriptor`,
			`DIR/lists/provider.yaml:9:21: KO-1006: heartbeat 1h0m0s is out of range. Next: choose 100ms to 10s`,
		}},
		{"unknown key", map[int]string{7: "setting: [depth]"}, "{id: lists}", []string{
			`DIR/lists/provider.yaml:7:1: KO-1006: unknown key "setting". Next: the keys of the file are: version, ` +
				`id, title, roles, executable, sha256, protocol, events, settings, grants, health, content_schema`,
		}},
		{"wrong type", map[int]string{8: "grants: {memory: 64}"}, "{id: lists}", []string{
			`DIR/lists/provider.yaml:8:18: KO-1006: memory: "64" is not a size. Next: write a number and a unit, ` +
				`for example 256MiB`,
		}},
	} {
		dir := install(t, c.edit)
		_, err := resolve(t, dir, c.entry)
		if err == nil {
			t.Errorf("%s: accepted", c.name)
			continue
		}
		want := strings.ReplaceAll(strings.Join(c.want, "\n"), "DIR", dir)
		if err.Error() != want {
			t.Errorf("%s:\ngot  %v\nwant %s", c.name, err, want)
		}
	}
}

func TestResolveTellsEverything(t *testing.T) {
	t.Parallel()
	l, err := Parse("k.yaml", []byte("version: 1\nproviders: [{id: a}, {id: b}]\n"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = l.Resolve(t.TempDir())
	if err == nil || strings.Count(err.Error(), "KO-1003") != 2 ||
		!strings.Contains(err.Error(), "(none; make build builds them)") {
		t.Errorf("want both and the hint, got %v", err)
	}
	var first *Error
	if !errors.As(err, &first) || first.Line != 2 || first.Column != 18 {
		t.Errorf("first error %+v", first)
	}
}

func TestExecutableMustBeAFile(t *testing.T) {
	t.Parallel()
	dir := install(t, map[int]string{3: "executable: folder"})
	if err := os.Mkdir(filepath.Join(dir, "lists", "folder"), 0o755); err != nil {
		t.Fatal(err)
	}
	_, err := resolve(t, dir, "{id: lists}")
	if err == nil || !strings.Contains(err.Error(), "provider.yaml:3:13: KO-1004: ") {
		t.Errorf("got %v", err)
	}
}

func TestSeal(t *testing.T) {
	t.Parallel()
	dir := install(t, map[int]string{
		1: "# who made this\nversion: 1 # one", 4: "sha256: not-a-digest\nprotocol: [1]", 10: "-",
	})
	home := filepath.Join(dir, "lists")
	for round := range 2 {
		digest, err := Seal(home)
		if err != nil || digest != engineDigest() {
			t.Fatalf("round %d: %q, %v", round, digest, err)
		}
		b, err := os.ReadFile(filepath.Join(home, ManifestFile))
		if err != nil {
			t.Fatal(err)
		}
		want := "# who made this\nversion: 1 # one\n" + strings.Join(manifest[1:], "\n") + "\n"
		if string(b) != want {
			t.Errorf("round %d:\ngot\n%s\nwant\n%s", round, b, want)
		}
	}
	if _, err := resolve(t, dir, "{id: lists}"); err != nil {
		t.Errorf("sealed, but refused: %v", err)
	}

	writeFile(t, filepath.Join(home, "engine"), engine+"exit 1\n")
	if _, err := resolve(t, dir, "{id: lists}"); err == nil || !strings.Contains(err.Error(), "KO-1005") {
		t.Errorf("a changed engine: %v", err)
	}
	if _, err := Seal(home); err != nil {
		t.Fatal(err)
	}
	if _, err := resolve(t, dir, "{id: lists}"); err != nil {
		t.Errorf("sealed again, but refused: %v", err)
	}
}

func TestSealRefuses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		edit map[int]string
		want string
	}{
		"no executable":   {map[int]string{3: "executable: gone"}, "provider.yaml:3:13: KO-1004: "},
		"broken manifest": {map[int]string{1: "version: 9"}, "provider.yaml:1:10: KO-1006: "},
	} {
		home := filepath.Join(install(t, c.edit), "lists")
		before, err := os.ReadFile(filepath.Join(home, ManifestFile))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Seal(home); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %s", name, err, c.want)
		}
		after, err := os.ReadFile(filepath.Join(home, ManifestFile))
		if err != nil || !bytes.Equal(after, before) {
			t.Errorf("%s: the manifest was changed (%v)", name, err)
		}
	}
	if _, err := Seal(t.TempDir()); err == nil || !strings.Contains(err.Error(), "provider.yaml:1:1: KO-1006: open: ") {
		t.Errorf("an empty folder: %v", err)
	}
}
