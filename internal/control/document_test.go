package control

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/keepout-security/keepout/internal/roster"
)

// blocks returns the fenced blocks of docs/control.md in one language.
func blocks(t *testing.T, language string) (list []string) {
	t.Helper()
	b, err := os.ReadFile("../../docs/control.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range strings.Split(string(b), "```"+language+"\n")[1:] {
		block, _, ok := strings.Cut(part, "```")
		if !ok {
			t.Fatalf("a block without an end: %q", part)
		}
		list = append(list, block)
	}
	return list
}

// exactly decodes one object and allows no field that the type does not have.
func exactly(t *testing.T, text string, v any) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		t.Errorf("%v: %s", err, text)
	}
	if _, err := d.Token(); err != io.EOF {
		t.Errorf("more than one object: %s", text)
	}
}

// TestDocumentedLines: every line that docs/control.md shows is exactly what goes over the socket.
func TestDocumentedLines(t *testing.T) {
	t.Parallel()
	shown := map[string]bool{}
	for _, block := range blocks(t, "text") {
		for line := range strings.Lines(block) {
			arrow, text, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
			var again []byte
			var err error
			switch arrow {
			case ">":
				var r Request
				exactly(t, text, &r)
				shown[r.Do] = true
				again, err = json.Marshal(r)
			case "<":
				var r Reply
				exactly(t, text, &r)
				again, err = json.Marshal(r)
			default:
				t.Errorf("neither sent nor received: %q", line)
				continue
			}
			if err != nil || string(again) != text {
				t.Errorf("shown   %s\non wire %s (%v)", text, again, err)
			}
		}
	}
	for _, do := range []string{
		"status", "events", "explain", "mode", "allow", "provider", "version", "logs", "reload", "checkup",
	} {
		if !shown[do] {
			t.Errorf("no example of %q", do)
		}
	}
}

// keys lists a struct's JSON names, but for those that are left out when empty.
func keys(typ reflect.Type) (names []string) {
	for f := range typ.Fields() {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if options != "omitempty" && name != "-" {
			names = append(names, name)
		}
	}
	return names
}

// TestDocumentedStatus: the example has the fields that a status has, and no others.
func TestDocumentedStatus(t *testing.T) {
	t.Parallel()
	all := blocks(t, "json")
	if len(all) != 1 {
		t.Fatalf("%d blocks of JSON, want one", len(all))
	}
	var r Reply
	exactly(t, all[0], &r)
	if r.Status == nil || len(r.Status.Providers) == 0 {
		t.Fatalf("no status with a provider: %s", all[0])
	}
	var raw struct {
		Status map[string]json.RawMessage `json:"status"`
	}
	exactly(t, all[0], &raw)
	var providers []map[string]json.RawMessage
	if err := json.NewDecoder(bytes.NewReader(raw.Status["providers"])).Decode(&providers); err != nil {
		t.Fatal(err)
	}
	for _, key := range keys(reflect.TypeFor[Status]()) {
		if raw.Status[key] == nil {
			t.Errorf("status without %q", key)
		}
	}
	for _, key := range keys(reflect.TypeFor[roster.Status]()) {
		if providers[0][key] == nil {
			t.Errorf("provider without %q", key)
		}
	}
}
