package openapi

import (
	"encoding/json"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/keepout-security/keepout/internal/fleet/fleetpb"
)

// TestDocument: every call of the API is in the committed document, and what is generated from the descriptors of the
// generated code, which have no comments, is the same apart from those.
func TestDocument(t *testing.T) {
	t.Parallel()
	compiled, err := proto.Marshal(&descriptorpb.FileDescriptorSet{
		File: []*descriptorpb.FileDescriptorProto{protodesc.ToFileDescriptorProto(fleetpb.File_fleet_proto)},
	})
	if err != nil {
		t.Fatal(err)
	}
	text, err := Generate(compiled)
	if err != nil {
		t.Fatal(err)
	}
	var fresh, committed map[string]any
	if err := json.Unmarshal(text, &fresh); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(fleetpb.OpenAPI(), &committed); err != nil {
		t.Fatal(err)
	}
	bare, bare2 := mustJSON(t, uncommented(fresh)), mustJSON(t, uncommented(committed))
	if bare != bare2 {
		t.Errorf("openapi.json is not what the .proto file says: make generate")
	}
	if !strings.Contains(string(fleetpb.OpenAPI()), "HaltRollout ends a rollout for good") {
		t.Error("the comments are missing")
	}
	if _, err := Generate([]byte("no descriptor")); err == nil {
		t.Error("something else is taken for a compiled file")
	}
}

func mustJSON(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// uncommented takes descriptions of text away, whatever is called so in a schema stays.
func uncommented(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			if _, text := e.(string); text && (k == "description" || k == "summary") {
				delete(v, k)
				continue
			}
			v[k] = uncommented(e)
		}
	case []any:
		for i := range v {
			v[i] = uncommented(v[i])
		}
	}
	return v
}
