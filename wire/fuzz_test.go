package wire_test

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/keepout-security/keepout/wire"
	pb "github.com/keepout-security/keepout/wire/keepoutpb"
)

// seed gives every vector to a fuzz target, of both directions: what is right for one decoder is hostile to
// the other.
func seed(f *testing.F) {
	f.Helper()
	files, err := filepath.Glob(filepath.Join(vectorsDir, "*.json"))
	if err != nil || len(files) == 0 {
		f.Fatalf("no vectors: %v", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		var g golden
		if err := json.Unmarshal(text, &g); err != nil {
			f.Fatalf("%s: %v", file, err)
		}
		packet, err := hex.DecodeString(g.Hex)
		if err != nil {
			f.Fatalf("%s: %v", file, err)
		}
		f.Add(packet)
	}
}

func FuzzDecodeFromProvider(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, packet []byte) {
		m, err := wire.DecodeFromProvider(packet)
		if err != nil {
			if !errors.Is(err, wire.ErrProtocol) || m != nil {
				t.Fatalf("error %v with message %v, want ErrProtocol and none", err, m)
			}
			return
		}
		// Go writes numbers and lengths as short as they can be, so that what came in fits again.
		again, err := wire.Encode(nil, m)
		if err != nil {
			t.Fatalf("accepted, but cannot be encoded: %v", err)
		}
		second, err := wire.DecodeFromProvider(again)
		if err != nil {
			t.Fatalf("accepted, but not after encoding: %v", err)
		}
		if !proto.Equal(m, second) {
			t.Fatalf("changed by encoding: %v, then %v", m, second)
		}
		checkLimits(t, m)
	})
}

// checkLimits states the limits a second time, in words of its own.
func checkLimits(t *testing.T, m *pb.FromProvider) {
	t.Helper()
	s, v, h := m.GetSubscribe(), m.GetVote(), m.GetHello()
	for _, s := range []string{
		h.GetSdk(), h.GetEngine(), v.GetRule(), v.GetContent(),
		m.GetHeartbeat().GetDetail(), m.GetHeartbeat().GetContent(),
	} {
		if len(s) > 256 {
			t.Errorf("accepted a text of %d bytes", len(s))
		}
	}
	if m.Body == nil || h != nil && (len(h.GetMajor()) == 0 || len(h.GetMajor()) > 16) ||
		v != nil && (v.GetId() == 0 || v.GetConfidence() > 100) ||
		m.GetMute() != nil && m.GetMute().GetActorToken() == 0 ||
		len(s.GetSelectPrefix()) > 1024 || len(s.GetMutePrefix()) > 1024 || len(s.GetMagic()) > 64 {
		t.Errorf("accepted %v", m)
	}
	for _, p := range append(s.GetSelectPrefix(), s.GetMutePrefix()...) {
		if len(p) > 4096 || p[0] != '/' {
			t.Errorf("accepted prefix %q", p)
		}
	}
}

func FuzzDecodeToProvider(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, packet []byte) {
		m, err := wire.DecodeToProvider(packet)
		if err != nil {
			if !errors.Is(err, wire.ErrProtocol) || m != nil {
				t.Fatalf("error %v with message %v, want ErrProtocol and none", err, m)
			}
			return
		}
		// Not wire.Encode: an empty entry of the settings map grows, because Go writes its key and value.
		again, err := proto.Marshal(m)
		if err != nil {
			t.Fatalf("accepted, but cannot be encoded: %v", err)
		}
		if m.GetWelcome() == nil && len(again) > wire.MaxPacket {
			t.Fatalf("grew from %d to %d bytes", len(packet), len(again))
		}
		var second pb.ToProvider
		if err := proto.Unmarshal(again, &second); err != nil || !proto.Equal(m, &second) {
			t.Fatalf("changed by encoding: %v, then %v (%v)", m, &second, err)
		}
		if e := m.GetEvent(); e != nil {
			if ev := wire.EventFromProto(e); ev.ID != e.GetId() {
				t.Fatalf("event %d became %d", e.GetId(), ev.ID)
			}
		}
	})
}
