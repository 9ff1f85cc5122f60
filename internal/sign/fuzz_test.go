package sign

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/secure-systems-lab/go-securesystemslib/cjson"
)

// FuzzCanonical compares with the canonical form that go-tuf signs.
func FuzzCanonical(f *testing.F) {
	for _, s := range []string{
		`{"b":1,"a":[true,null,"x\"y\\"]}`, `"<&>"`, `-0`, `1.5`, `1e3`, `9223372036854775808`, `"\u0007"`, `"\ud800"`,
		`{"a":1,"a":2}`, `[] []`, ``, `{"é":"\u00e9"}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := canonical(data)
		if err != nil {
			return
		}
		want, err := cjson.EncodeCanonical(json.RawMessage(data))
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%q: %q, others sign %q (%v)", data, got, want, err)
		}
		if again, err := canonical(got); err != nil || !bytes.Equal(again, got) {
			t.Fatalf("%q: not a form of its own: %q, %v", data, again, err)
		}
	})
}

// FuzzMetadata reads whatever claims to be a metadata file of each kind.
func FuzzMetadata(f *testing.F) {
	header := `"spec_version":"1.0.31","version":1,"expires":"2030-01-01T00:00:00Z"`
	for _, kind := range []string{"root", "timestamp", "snapshot", "targets"} {
		f.Add([]byte(`{"signatures":[{"keyid":"a","sig":"00"}],"signed":{"_type":"` + kind + `",` + header + `}}`))
	}
	f.Add([]byte(`{"signed":{"_type":"targets",` + header + `,"targets":{"a":{"length":1,"custom":{}}}}}`))
	f.Add([]byte(`{`))
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := openFile(data)
		if err != nil {
			return
		}
		for kind, into := range map[string]any{
			"root": &rootFile{}, "timestamp": &timestampFile{}, "snapshot": &snapshotFile{}, "targets": &targetsFile{},
		} {
			if file.read(kind, into) != nil {
				continue
			}
			if targets, ok := into.(*targetsFile); ok {
				_ = targets.delegated("engine", "a/engine/b")
				for _, target := range targets.Targets {
					_, _ = decodeRelease(target.Custom)
				}
			}
			if (Role{Threshold: 1}).enough(nil) {
				t.Fatal("nobody is enough")
			}
		}
	})
}

func FuzzRelease(f *testing.F) {
	f.Add([]byte(`{"provider":"a","kind":"engine","class":"engine","version":"1","counter":1,` +
		`"hardware":["any"],"size":0}`))
	f.Add([]byte(`{"provider":"../../etc"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := decodeRelease(data)
		if err != nil {
			return
		}
		if class, err := classOf(r.TargetPath()); err != nil || class != r.Class {
			t.Fatalf("%q is no path of its own: %v", r.TargetPath(), err)
		}
		raw, err := r.Custom()
		if err != nil {
			t.Fatal(err)
		}
		if again, err := decodeRelease(raw); err != nil || again.difference(r) != "" {
			t.Fatalf("%s: %v", raw, err)
		}
	})
}

func FuzzState(f *testing.F) {
	f.Add([]byte(`{"version":1,"time_floor":"2026-01-01T00:00:00Z","operator":{"files":{"a":1}},` +
		`"lines":{"a/engine":{"floor":1}}}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := DecodeState(data)
		if err != nil {
			if CodeOf(err) != CodeState {
				t.Fatalf("an error without its code: %v", err)
			}
			return
		}
		raw, err := s.Encode()
		if err != nil {
			return // a time beyond what JSON can hold
		}
		if _, err := DecodeState(raw); err != nil {
			t.Fatalf("%s: %v", raw, err)
		}
	})
}
