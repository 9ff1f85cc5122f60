package wire_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/keepout-security/keepout/wire"
	pb "github.com/keepout-security/keepout/wire/keepoutpb"
)

var update = flag.Bool("update", false, "write the golden vectors again")

const (
	toProvider   = "to_provider"
	fromProvider = "from_provider"
	vectorsDir   = "testdata/vectors"
)

// golden is one vector file; docs/protocol.md describes it.
type golden struct {
	Name      string `json:"name"`
	Direction string `json:"direction"`
	Hex       string `json:"hex"`
	// Message holds the known fields by their names in keepout.proto: 64-bit integers are strings, bytes are
	// base64, enums are names, or numbers where this version has no name. It is null for an invalid packet.
	Message   json.RawMessage `json:"message"`
	Valid     bool            `json:"valid"`
	Canonical bool            `json:"canonical"` // encoding Message gives exactly Hex
	Why       string          `json:"why"`
}

// decodeAs applies the decoder for the direction and drops what the decoder does not know.
func decodeAs(direction string, packet []byte) (proto.Message, error) {
	if direction == toProvider {
		m, err := wire.DecodeToProvider(packet)
		if err != nil {
			return nil, err
		}
		return forget(m), nil
	}
	m, err := wire.DecodeFromProvider(packet)
	if err != nil {
		return nil, err
	}
	return forget(m), nil
}

func emptyMessage(direction string) proto.Message {
	if direction == toProvider {
		return &pb.ToProvider{}
	}
	return &pb.FromProvider{}
}

func packetOf(t *testing.T, v vector) []byte {
	t.Helper()
	if v.message == nil {
		return v.raw
	}
	packet, err := wire.Encode(nil, v.message)
	if err != nil {
		t.Fatalf("encode %s: %v", v.name, err)
	}
	return packet
}

// render makes the file of one vector.
func render(t *testing.T, v vector) []byte {
	t.Helper()
	packet := packetOf(t, v)
	g := golden{
		Name: v.name, Direction: v.direction, Hex: hex.EncodeToString(packet), Message: json.RawMessage("null"),
		Valid: v.valid, Why: v.why,
	}
	if m, err := decodeAs(v.direction, packet); err == nil {
		text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
		if err != nil {
			t.Fatalf("render %s: %v", v.name, err)
		}
		g.Message = text
		again, err := wire.Encode(nil, m)
		g.Canonical = err == nil && bytes.Equal(again, packet)
	}
	text, err := json.Marshal(g) // also makes the spacing of protojson, which varies on purpose, stable
	if err != nil {
		t.Fatalf("render %s: %v", v.name, err)
	}
	var out bytes.Buffer
	if err := json.Indent(&out, text, "", "  "); err != nil {
		t.Fatalf("render %s: %v", v.name, err)
	}
	return append(out.Bytes(), '\n')
}

// TestVectorsAreCurrent holds the files to the table, both ways; -update writes them.
func TestVectorsAreCurrent(t *testing.T) {
	want := map[string][]byte{}
	for _, v := range vectors() {
		file := filepath.Join(vectorsDir, v.name+".json")
		if want[file] != nil {
			t.Fatalf("two vectors are named %s", v.name)
		}
		want[file] = render(t, v)
	}
	have, err := filepath.Glob(filepath.Join(vectorsDir, "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		for _, file := range have {
			if want[file] == nil {
				if err := os.Remove(file); err != nil {
					t.Fatal(err)
				}
			}
		}
		for file, text := range want {
			if err := os.WriteFile(file, text, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		return
	}
	for _, file := range have {
		if want[file] == nil {
			t.Errorf("%s is in no table", file)
		}
	}
	for file, text := range want {
		got, err := os.ReadFile(file)
		if err != nil {
			t.Errorf("read vector: %v (go test ./wire -update)", err)
		} else if !bytes.Equal(got, text) {
			t.Errorf("%s differs from the table (go test ./wire -update)", file)
		}
	}
}

// TestVectors reads the files as somebody else would, without the table.
func TestVectors(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(vectorsDir, "*.json"))
	if err != nil || len(files) < 50 {
		t.Fatalf("%d vectors: %v", len(files), err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) { checkVector(t, file) })
	}
}

func checkVector(t *testing.T, file string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var g golden
	if err := json.Unmarshal(text, &g); err != nil {
		t.Fatal(err)
	}
	packet, err := hex.DecodeString(g.Hex)
	if err != nil {
		t.Fatal(err)
	}
	got, err := decodeAs(g.Direction, packet)
	if !g.Valid {
		if !errors.Is(err, wire.ErrProtocol) {
			t.Fatalf("decoded with error %v, want ErrProtocol: %s", err, g.Why)
		}
		return
	}
	if err != nil {
		t.Fatalf("refused: %v", err)
	}
	want := emptyMessage(g.Direction)
	if err := protojson.Unmarshal(g.Message, want); err != nil {
		t.Fatalf("message: %v", err)
	}
	if !proto.Equal(got, want) {
		t.Errorf("decoded %v, want %v", got, want)
	}
	again, err := wire.Encode(nil, want)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(again, packet) != g.Canonical {
		t.Errorf("encoded %x, canonical is %v for %x", again, g.Canonical, packet)
	}
}

// TestVectorsCoverTheProtocol fails when a message, a field or an enum value has no valid vector.
func TestVectorsCoverTheProtocol(t *testing.T) {
	seen := map[string]bool{}
	for _, v := range vectors() {
		if m, err := decodeAs(v.direction, packetOf(t, v)); err == nil {
			collect(m.ProtoReflect(), seen)
		}
	}
	var missing []string
	for _, name := range protocolNames() {
		if !seen[name] {
			missing = append(missing, name)
		}
	}
	slices.Sort(missing)
	if len(missing) > 0 {
		t.Errorf("no valid vector has: %q", missing)
	}
}
