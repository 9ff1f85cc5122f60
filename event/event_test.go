package event_test

import (
	"encoding/json"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/keepout-security/keepout/event"
)

func TestTypes(t *testing.T) {
	t.Parallel()
	words := map[event.Type]string{
		event.Open: "open", event.Exec: "exec", event.CloseWrite: "close-write", event.Create: "create",
		event.Rename: "rename", event.Delete: "delete",
	}
	auth := map[event.Type]bool{event.Open: true, event.Exec: true}
	if len(event.Types()) != len(words) {
		t.Errorf("Types lists %v", event.Types())
	}
	for i, typ := range event.Types() {
		if int(typ) != i+1 || !typ.Valid() || typ.Auth() != auth[typ] || typ.String() != words[typ] {
			t.Errorf("%d: valid %v, auth %v, %q", typ, typ.Valid(), typ.Auth(), typ)
		}
		if got, err := event.ParseType(words[typ]); err != nil || got != typ {
			t.Errorf("ParseType(%q) = %v, %v", words[typ], got, err)
		}
	}
	for _, typ := range []event.Type{0, event.Delete + 1, math.MaxUint8} {
		if typ.Valid() || typ.Auth() || !strings.HasPrefix(typ.String(), "type(") {
			t.Errorf("%d counts as a type: %q", uint8(typ), typ)
		}
	}
	for _, word := range []string{"", "Open", " open", "open ", "close_write", "type(0)", "openx"} {
		if got, err := event.ParseType(word); err == nil || got != 0 {
			t.Errorf("ParseType(%q) = %v, %v", word, got, err)
		}
	}
}

// FuzzParseType: a word is a type or an error, and only its own String is read back.
func FuzzParseType(f *testing.F) {
	for _, typ := range event.Types() {
		f.Add(typ.String())
	}
	f.Add("")
	f.Add("type(7)")
	f.Fuzz(func(t *testing.T, word string) {
		typ, err := event.ParseType(word)
		if (err == nil) != typ.Valid() || err == nil && typ.String() != word {
			t.Errorf("ParseType(%q) = %v, %v", word, typ, err)
		}
		var u event.Type
		if again := u.UnmarshalText([]byte(word)); (again == nil) != (err == nil) || u != typ {
			t.Errorf("UnmarshalText(%q) gives %v, %v", word, u, again)
		}
	})
}

func TestActions(t *testing.T) {
	t.Parallel()
	for action, word := range map[event.Action]string{
		event.Abstain: "abstain", event.Allow: "allow", event.Deny: "deny",
	} {
		var got event.Action
		if err := got.UnmarshalText([]byte(word)); err != nil || got != action || action.String() != word {
			t.Errorf("%q is read as %v, written as %q (%v)", word, got, action, err)
		}
	}
	for _, word := range []string{"", "DENY", "quarantine"} {
		got := event.Deny
		if err := got.UnmarshalText([]byte(word)); err != nil || got != event.Abstain {
			t.Errorf("the unknown word %q is %v, %v: want abstain", word, got, err)
		}
	}
	if event.Action(9).String() != "abstain" {
		t.Error("an unknown action is not neutral")
	}
}

// TestRecordJSON: what the admin socket sends is what arrives, but for the handle, which is for the core only.
func TestRecordJSON(t *testing.T) {
	t.Parallel()
	texts := rapid.StringMatching(`[ -~äß€]{0,20}`)
	modes := rapid.SampledFrom([]event.Mode{event.Monitor, event.Enforce, event.Audit})
	rapid.Check(t, func(t *rapid.T) {
		want := event.Record{
			Event: event.Event{
				ID:   rapid.Uint64().Draw(t, "id"),
				Type: rapid.SampledFrom(event.Types()).Draw(t, "type"),
				Time: time.Unix(rapid.Int64Range(0, 1<<33).Draw(t, "s"), rapid.Int64Range(0, 999_999_999).Draw(t, "ns")).UTC(),
				Actor: event.Process{
					PID: rapid.Int32().Draw(t, "pid"), Token: rapid.Uint64().Draw(t, "token"),
					PPID: rapid.Int32().Draw(t, "ppid"), UID: rapid.Uint32().Draw(t, "uid"),
					GID: rapid.Uint32().Draw(t, "gid"), Comm: texts.Draw(t, "comm"),
				},
				File: event.File{
					Version: event.Version{
						Dev: rapid.Uint64().Draw(t, "dev"), Ino: rapid.Uint64().Draw(t, "ino"),
						Size:    rapid.Int64().Draw(t, "size"),
						MtimeNS: rapid.Int64().Draw(t, "mtime"), CtimeNS: rapid.Int64().Draw(t, "ctime"),
					},
					Path: texts.Draw(t, "path"), SHA256: texts.Draw(t, "sha256"),
					Mode: rapid.Uint32().Draw(t, "mode"), UID: rapid.Uint32().Draw(t, "owner"),
				},
				Name: texts.Draw(t, "name"), NewDir: texts.Draw(t, "new dir"), NewName: texts.Draw(t, "new name"),
			},
			Verdict: event.Verdict{
				Outcome: rapid.SampledFrom([]event.Outcome{
					event.Allowed, event.Denied, event.WouldDeny, event.Timeout, event.Unavailable,
				}).Draw(t, "outcome"),
				Allowed: rapid.Bool().Draw(t, "allowed"), Reason: event.ReasonVoted, DecidedBy: texts.Draw(t, "by"),
				Rule: texts.Draw(t, "rule"), Mode: modes.Draw(t, "host mode"),
				Latency: time.Duration(rapid.Int64().Draw(t, "latency")), Shared: rapid.Uint32().Draw(t, "shared"),
				Ballots: []event.Ballot{{
					Provider: texts.Draw(t, "provider"), Mode: modes.Draw(t, "its mode"),
					Vote: event.Vote{
						Action:     rapid.SampledFrom([]event.Action{event.Abstain, event.Allow, event.Deny}).Draw(t, "action"),
						Confidence: rapid.Uint8().Draw(t, "confidence"),
						Rule:       texts.Draw(t, "its rule"), Content: texts.Draw(t, "content"),
					},
					Counted: rapid.Bool().Draw(t, "counted"), Reason: event.ReasonDeadline,
					Latency: time.Duration(rapid.Int64().Draw(t, "its latency")),
				}},
			},
		}
		sent := want
		sent.Event.File.Handle = "\x00opaque"
		b, err := json.Marshal(sent)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(b), "opaque") {
			t.Fatalf("the handle leaves the core: %s", b)
		}
		var got event.Record
		if err := json.Unmarshal(b, &got); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("got  %+v\nwant %+v", got, want)
		}
	})
}

func TestRecordJSONRefusesUnknownTypes(t *testing.T) {
	t.Parallel()
	var rec event.Record
	if err := json.Unmarshal([]byte(`{"event": {"type": "read"}}`), &rec); err == nil {
		t.Errorf("accepted: %+v", rec.Event)
	}
}

// TestVersionKeysAMap: equal versions are one key, and each part tells two apart.
func TestVersionKeysAMap(t *testing.T) {
	t.Parallel()
	base := event.Version{Dev: 1, Handle: "h", Ino: 2, Size: 3, MtimeNS: 4, CtimeNS: 5}
	seen := map[event.Version]bool{base: true}
	for i := range reflect.TypeFor[event.Version]().NumField() {
		v := base
		switch f := reflect.ValueOf(&v).Elem().Field(i); f.Kind() {
		case reflect.String:
			f.SetString("other")
		case reflect.Int64:
			f.SetInt(99)
		default:
			f.SetUint(99)
		}
		if seen[v] {
			t.Errorf("field %d does not tell versions apart", i)
		}
		seen[v] = true
	}
	if !seen[event.Version{Dev: 1, Handle: "h", Ino: 2, Size: 3, MtimeNS: 4, CtimeNS: 5}] {
		t.Error("an equal version is another key")
	}
}
