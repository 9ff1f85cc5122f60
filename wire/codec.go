package wire

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	pb "github.com/keepout-security/keepout/wire/keepoutpb"
)

// ErrProtocol marks a packet that breaks the protocol; whoever sent it is disconnected.
var ErrProtocol = errors.New("protocol violation")

func violation(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrProtocol, fmt.Sprintf(format, args...))
}

// Encode appends one packet to dst. It fails only when the packet would exceed MaxPacket.
func Encode(dst []byte, packet proto.Message) ([]byte, error) {
	out, err := proto.MarshalOptions{Deterministic: true}.MarshalAppend(dst, packet)
	if err != nil {
		return dst, fmt.Errorf("encode packet: %w", err)
	}
	if len(out)-len(dst) > MaxPacket {
		return dst, fmt.Errorf("encode packet: %d bytes, limit %d", len(out)-len(dst), MaxPacket)
	}
	return out, nil
}

// DecodeFromProvider parses and checks a packet sent by a provider. Unknown fields are ignored; every error
// wraps ErrProtocol.
func DecodeFromProvider(packet []byte) (*pb.FromProvider, error) {
	if len(packet) > MaxPacket {
		return nil, violation("packet of %d bytes, limit %d", len(packet), MaxPacket)
	}
	var m pb.FromProvider
	if err := proto.Unmarshal(packet, &m); err != nil {
		return nil, violation("not a FromProvider message: %v", err)
	}
	var err error
	switch body := m.Body.(type) {
	case *pb.FromProvider_Hello:
		err = checkHello(body.Hello)
	case *pb.FromProvider_Subscribe:
		err = checkSubscribe(body.Subscribe)
	case *pb.FromProvider_Vote:
		err = checkVote(body.Vote)
	case *pb.FromProvider_Heartbeat:
		err = checkTexts(body.Heartbeat.GetDetail(), body.Heartbeat.GetContent())
	case *pb.FromProvider_Mute:
		if body.Mute.GetActorToken() == 0 {
			err = violation("mute without an actor")
		}
	default:
		err = violation("empty packet, or a body this version does not know")
	}
	if err != nil {
		return nil, err
	}
	return &m, nil
}

// DecodeToProvider parses a packet sent by the platform. Unknown fields are ignored; a body that this version
// does not know leaves Body nil, and the caller ignores it.
func DecodeToProvider(packet []byte) (*pb.ToProvider, error) {
	if len(packet) > MaxPacket {
		return nil, violation("packet of %d bytes, limit %d", len(packet), MaxPacket)
	}
	var m pb.ToProvider
	if err := proto.Unmarshal(packet, &m); err != nil {
		return nil, violation("not a ToProvider message: %v", err)
	}
	return &m, nil
}

func checkHello(h *pb.Hello) error {
	if n := len(h.GetMajor()); n == 0 || n > MaxVersions {
		return violation("hello offers %d versions, want 1 to %d", n, MaxVersions)
	}
	return checkTexts(h.GetSdk(), h.GetEngine())
}

func checkVote(v *pb.Vote) error {
	if v.GetId() == 0 {
		return violation("vote without an id")
	}
	if v.GetConfidence() > 100 {
		return violation("confidence %d %%", v.GetConfidence())
	}
	return checkTexts(v.GetRule(), v.GetContent())
}

func checkSubscribe(s *pb.Subscribe) error {
	for what, prefixes := range map[string][]string{"select": s.GetSelectPrefix(), "mute": s.GetMutePrefix()} {
		if len(prefixes) > MaxPrefixes {
			return violation("%d %s prefixes, limit %d", len(prefixes), what, MaxPrefixes)
		}
		for _, p := range prefixes {
			if len(p) == 0 || len(p) > MaxPath || p[0] != '/' {
				return violation("%s prefix of %d bytes: want an absolute path", what, len(p))
			}
		}
	}
	if len(s.GetMagic()) > MaxMagics {
		return violation("%d magics, limit %d", len(s.GetMagic()), MaxMagics)
	}
	for _, m := range s.GetMagic() {
		if len(m) == 0 || len(m) > MaxMagic {
			return violation("magic of %d bytes, want 1 to %d", len(m), MaxMagic)
		}
	}
	if s.GetMaxSize() != 0 && s.GetMaxSize() < s.GetMinSize() {
		return violation("max_size %d is below min_size %d", s.GetMaxSize(), s.GetMinSize())
	}
	return nil
}

func checkTexts(texts ...string) error {
	for _, t := range texts {
		if len(t) > MaxText {
			return violation("text of %d bytes, limit %d", len(t), MaxText)
		}
	}
	return nil
}
