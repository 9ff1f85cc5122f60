package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSelftest(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, text, want, problem string }{
		{"object.txt", "harmless\n", "harmless\n", ""},
		{"object.b64", "aGFybWxlc3M=\n", "harmless", ""},
		{"object.b64", "not base64!", "", "illegal base64"},
		{"object.txt", "", "", "is empty"},
		{"object.txt", strings.Repeat("x", MaxSelftest+1), "", "more than 64 KiB"},
		{"object.txt", "#!/bin/sh\n", "", "could be executed"},
		{"object.b64", "f0VMRgI=", "", "could be executed"},
		{"object.txt", "MZ and more", "", "could be executed"},
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, c.name), []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := (&Manifest{dir: dir, Health: Health{Selftest: c.name}}).Selftest()
		told := err == nil && c.problem == "" || err != nil && c.problem != "" && strings.Contains(err.Error(), c.problem)
		if string(got) != c.want || !told {
			t.Errorf("%s with %.20q: %.20q, %v; want %q, %q", c.name, c.text, got, err, c.want, c.problem)
		}
	}
	if _, err := (&Manifest{}).Selftest(); !errors.Is(err, ErrNoSelftest) {
		t.Errorf("none: %v", err)
	}
	if _, err := (&Manifest{dir: t.TempDir(), Health: Health{Selftest: "x"}}).Selftest(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("not there: %v", err)
	}
}

// TestSelftestName: a manifest cannot name a file elsewhere.
func TestSelftestName(t *testing.T) {
	t.Parallel()
	for name, ok := range map[string]bool{
		"": true, "object.txt": true, "../object": false, "/etc/shadow": false, "a/b": false, ".hidden": false, "/": false,
		"..": false,
	} {
		dir := filepath.Join(t.TempDir(), "a")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		text := "version: 1\nid: a\nexecutable: x\nprotocol: [1]\nevents: [{type: open, content: metadata}]\n" +
			"health: {selftest: \"" + name + "\"}\n"
		if err := os.WriteFile(filepath.Join(dir, ManifestFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadManifest(dir); (err == nil) != ok {
			t.Errorf("%q: %v, want accepted: %v", name, err, ok)
		}
	}
}
