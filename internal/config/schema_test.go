package config

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keepout-security/keepout/internal/content"
)

// withSchema is the manifest of resolve_test.go with a schema behind it.
func withSchema(schema string) []byte {
	return []byte(strings.Join(manifest, "\n") + "\ncontent_schema:\n" + schema)
}

func TestSchemaRefused(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ schema, want string }{
		{"  total: 1GiB\n", ":12:3: KO-1006: 0 entries under files. Next: write 1 to 32 entries"},
		{
			"  files: [{names: [a], format: opaque}]\n",
			":12:11: KO-1006: size is not bounded. Next: write for example size: 64MiB",
		},
		{
			"  others: keep\n  files: [{names: [a], size: 1KiB, format: opaque}]\n",
			`:12:11: KO-1006: others "keep" is not known. Next: write refuse or ignore`,
		},
		{
			"  files:\n    - names: [a]\n      size: 1KiB\n      format: xml\n",
			`:15:15: KO-1006: format "xml" is not known. Next: write lines, text or opaque`,
		},
		{
			"  files:\n    - {names: [\"[\"], size: 1KiB, format: opaque}\n",
			`:13:16: KO-1006: name "[" is no pattern. Next: write a name, or a pattern such as "*.txt"`,
		},
		{
			"  files: [{names: [a], size: 1KiB, format: opaque, comment: \"#\"}]\n",
			":12:44: KO-1006: opaque content has no lines. Next: write format: lines or text, or remove them",
		},
		{
			"  files: [{names: [a], size: 1KiB, format: lines}]\n",
			":12:11: KO-1006: 0 fields. Next: write 1 to 256",
		},
		{
			"  files:\n    - names: [a]\n      size: 1KiB\n      format: lines\n      fields:\n" +
				"        - {name: a, type: int, optional: true}\n        - {name: b, type: regex, pattern: \"(\"}\n",
			":18:18: KO-1006: field \"b\" comes after an optional one. Next: write optional: true, or move it\n" +
				":18:43: KO-1006: pattern: error parsing regexp: missing closing ): `\\A(?:()\\z`. " +
				"Next: write a regular expression in RE2 syntax",
		},
		{
			"  files: [{names: [a], size: 1KiB, format: lines, fields: [{name: a, type: hex, range: 1..2}]}]\n",
			`:12:88: KO-1006: range does not belong to type "hex". Next: remove it`,
		},
		{
			"  files: [{names: [a], size: 1KiB, format: lines, fields: [{name: a, type: hex, length: 2..1}]}]\n",
			`:12:89: KO-1006: length: "2..1" is not a range. Next: write a number, or for example 1..7, 1.. or ..7`,
		},
		{
			"  files: [{names: [a], size: 1KiB, format: lines, fields: [{name: a, type: hex, optional: 1}]}]\n",
			`:12:91: KO-1006: optional is the number 1, want true or false. Next: docs/write-a-provider.md explains every key`,
		},
	} {
		m := &Manifest{dir: "lists"}
		var err error
		if m.doc, err = decode("p.yaml", CodeManifest, withSchema(c.schema), m); err == nil {
			err = m.check()
		}
		if err == nil {
			t.Errorf("accepted:\n%s", c.schema)
			continue
		}
		if got := strings.ReplaceAll(err.Error(), "p.yaml", ""); got != c.want {
			t.Errorf("for\n%sgot  %s\nwant %s", c.schema, got, c.want)
		}
	}
}

// shipped loads the manifest of a shipped provider as it is in the tree.
func shipped(t *testing.T, id string) *Installed {
	t.Helper()
	m, err := LoadManifest(filepath.Join("..", "..", "providers", id))
	if err != nil {
		t.Fatal(err)
	}
	if !m.Schema.Declared() {
		t.Fatalf("%s declares no schema", id)
	}
	return &Installed{Provider: Provider{ID: id}, Manifest: m}
}

// TestShippedSchemas: what the shipped engines accept passes, and what they refuse does not reach them.
func TestShippedSchemas(t *testing.T) {
	t.Parallel()
	digest := strings.Repeat("0aF9", 16)
	long := strings.Repeat("x", 201)
	for _, c := range []struct {
		id, file, text string
		refused        string // what the error contains; "": accepted
	}{
		{
			"hashlist", "deny.txt",
			"# list\n\n" + digest + "\n" + digest + " \tEvil thing 7  \r\n" + digest + " # note " + long, "",
		},
		{"hashlist", "allow.txt", digest[1:], "allow.txt:1:1: KO-1007: found 63 hex digits: field 1, sha256, has 64."},
		{
			"hashlist", "deny.txt", "\n" + digest[1:] + "g",
			"deny.txt:2:64: KO-1007: found 'g': field 1, sha256, consists of hex digits.",
		},
		{"hashlist", "deny.txt", digest + " " + long, "deny.txt:1:66: KO-1007: found 201 bytes: field 2, name, has 1..200."},
		{"hashlist", "deny.txt", "\uFEFF" + digest, "deny.txt:1:1: KO-1007: found a byte order mark"},
		{
			"hashlist", "deny.txt", digest + " a\x1b[2J",
			"deny.txt:1:67: KO-1007: found '\\x1b': field 2, name, is printable UTF-8.",
		},
		{"hashlist", "deny.txt", strings.Repeat("#", 1025), "deny.txt:1:1025: KO-1007: line longer than 1024 bytes"},
		{"hashlist", "README", "anything\x00", ""},
		{"yara", "a.yar", "rule a {\n\tcondition: true // äöü\n}\n", ""},
		{
			"yara", "a.yar", "rule a { condition: false } // \xe4\n",
			"a.yar:1:32: KO-1007: found byte 0xe4: the format is text in UTF-8.",
		},
		{"yara", "README", "", "KO-1007: 0 files named *.yar, *.yara: the schema wants 1..4096."},
		{"clamav", "daily.cvd", "ClamAV-VDB:\x00\xff", ""},
		{"clamav", "a.hdb", "0:0:x", ""},
		{"hostile/channel291", "c-00000291-1.channel", "open,*/evil" + strings.Repeat(",*", 18) + ",*\n", ""},
		{"hostile/channel291", "c-00000291-1.channel", "open,*/evil" + strings.Repeat(",*", 18) + "\n", ""},
		{
			"hostile/channel291", "c-00000291-2.channel", "open,*/evil" + strings.Repeat(",*", 18) + ",evil\n",
			`c-00000291-2.channel:1:49: KO-1007: found "evil": field 21, pipe, is one of [*]. Next: `,
		},
		{"hostile/faulty", "plan.txt", "fault hang\n", ""},
	} {
		in := shipped(t, c.id)
		in.Content = t.TempDir()
		if err := os.WriteFile(filepath.Join(in.Content, c.file), []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		err := in.CheckContent(t.Context())
		var refused *content.Refused
		switch {
		case c.refused == "" && err != nil:
			t.Errorf("%s, %q: %v", c.id, c.text, err)
		case c.refused != "" && (!errors.As(err, &refused) || !strings.Contains(err.Error(), c.refused)):
			t.Errorf("%s, %q:\ngot  %v\nwant %s", c.id, c.text, err, c.refused)
		}
	}
}

func TestNothingToCheck(t *testing.T) {
	t.Parallel()
	in := shipped(t, "hashlist")
	if err := in.CheckContent(context.Background()); err != nil {
		t.Errorf("no content: %v", err)
	}
	in.Manifest.Schema, in.Content = content.Schema{}, "/nowhere/at/all"
	if err := in.CheckContent(context.Background()); err != nil {
		t.Errorf("no schema: %v", err)
	}
}
