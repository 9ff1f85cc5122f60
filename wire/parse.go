package wire

import (
	"encoding/hex"
	"time"
	"unsafe"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/keepout-security/keepout/event"
	pb "github.com/keepout-security/keepout/wire/keepoutpb"
)

// ParseVote reads a packet that consists of one vote, into v, whose texts are slices of the packet. It reports false
// for every other packet, wrong ones included: DecodeFromProvider says what it is. It does not allocate.
func ParseVote(packet []byte, v *RawVote) bool {
	body, ok := onlyField(packet, 3) // FromProvider.vote
	if !ok {
		return false
	}
	*v = RawVote{}
	for len(body) > 0 {
		f, rest, ok := nextField(body)
		if !ok {
			return false
		}
		body = rest
		switch f.key {
		case 1<<3 | varint:
			v.ID = f.number
		case 2<<3 | varint:
			v.action = pb.Action(f.number)
		case 3<<3 | varint:
			v.confidence = uint32(f.number)
		case 4<<3 | length:
			v.Rule, ok = f.bytes, isText(f.bytes)
		case 5<<3 | length:
			v.Content, ok = f.bytes, isText(f.bytes)
		}
		if !ok {
			return false
		}
	}
	return v.ID != 0 && v.confidence <= 100 && len(v.Rule) <= MaxText && len(v.Content) <= MaxText
}

// RawVote is a vote as it came: checked, but with its texts still in the packet.
type RawVote struct {
	ID            uint64
	Rule, Content []byte // to be clipped
	action        pb.Action
	confidence    uint32
}

// Vote returns the vote without its texts. known is false when the action is not one of this version: such a vote
// counts as abstain, and the caller counts the mistake.
func (v *RawVote) Vote() (vote event.Vote, known bool) {
	vote.Action, known = actionFromProto(v.action)
	vote.Confidence = confidenceOf(v.confidence)
	return vote, known
}

func actionFromProto(a pb.Action) (action event.Action, known bool) {
	switch a {
	case pb.Action_ACTION_ALLOW:
		return event.Allow, true
	case pb.Action_ACTION_DENY:
		return event.Deny, true
	case pb.Action_ACTION_ABSTAIN:
		return event.Abstain, true
	case pb.Action_ACTION_READ:
		return event.Read, true
	case pb.Action_ACTION_UNSPECIFIED:
	}
	return event.Abstain, false
}

func confidenceOf(percent uint32) uint8 {
	if percent == 0 {
		return event.Certain
	}
	return uint8(percent)
}

// ParseEvent reads a packet that consists of one event into ev and returns what it says beside that. Strings are copied
// into text. It reports false for every other packet, wrong ones included: DecodeToProvider says what it is.
func ParseEvent(packet []byte, ev *event.Event, text *Text) (s Stamp, ok bool) {
	body, ok := onlyField(packet, 3) // ToProvider.event
	if !ok {
		return s, false
	}
	*ev = event.Event{Time: time.Unix(0, 0)}
	var actor, file []byte
	for len(body) > 0 {
		f, rest, ok := nextField(body)
		if !ok {
			return s, false
		}
		body = rest
		switch f.key {
		case 1<<3 | varint:
			ev.ID = f.number
		case 2<<3 | varint:
			s.Seq = f.number
		case 3<<3 | varint:
			s.Dropped = f.number
		case 4<<3 | varint:
			ev.Type = typeFromProto(pb.EventType(f.number))
		case 5<<3 | varint:
			s.Budget = budgetOf(f.number)
		case 6<<3 | varint:
			ev.Time = time.Unix(0, int64(f.number))
		case 7<<3 | length:
			actor, ok = f.bytes, actor == nil // a second one would have to be merged, which nobody sends
		case 8<<3 | length:
			file, ok = f.bytes, file == nil
		case 9<<3 | length:
			ev.Name, ok = text.hold(f.bytes)
		case 10<<3 | length:
			ev.NewDir, ok = text.hold(f.bytes)
		case 11<<3 | length:
			ev.NewName, ok = text.hold(f.bytes)
		case 12<<3 | varint:
			s.Descriptor = f.number != 0
		}
		if !ok {
			return s, false
		}
	}
	s.Type = ev.Type
	return s, parseActor(actor, &ev.Actor, text) && parseFile(file, &ev.File, text)
}

// StampFromProto returns what an event says beside the event itself.
func StampFromProto(m *pb.Event) Stamp {
	return Stamp{
		Type: typeFromProto(m.GetType()), Seq: m.GetSeq(), Dropped: m.GetDropped(), Budget: budgetOf(m.GetBudgetNs()),
		Descriptor: m.GetDescriptor_(),
	}
}

// maxBudget keeps arithmetic on deadlines from overflowing.
const maxBudget = time.Hour

func budgetOf(ns uint64) time.Duration { return time.Duration(min(ns, uint64(maxBudget))) }

func typeFromProto(t pb.EventType) event.Type {
	if t > 0 && t <= pb.EventType_EVENT_TYPE_DELETE {
		return event.Type(t)
	}
	return 0
}

func parseActor(body []byte, p *event.Process, text *Text) bool {
	for len(body) > 0 {
		f, rest, ok := nextField(body)
		if !ok {
			return false
		}
		body = rest
		switch f.key {
		case 1<<3 | varint:
			p.PID = int32(f.number)
		case 2<<3 | varint:
			p.Token = f.number
		case 3<<3 | varint:
			p.PPID = int32(f.number)
		case 4<<3 | varint:
			p.UID = uint32(f.number)
		case 5<<3 | varint:
			p.GID = uint32(f.number)
		case 6<<3 | length:
			p.Comm, ok = text.hold(f.bytes)
		}
		if !ok {
			return false
		}
	}
	return true
}

func parseFile(body []byte, v *event.File, text *Text) bool {
	for len(body) > 0 {
		f, rest, ok := nextField(body)
		if !ok {
			return false
		}
		body = rest
		switch f.key {
		case 1<<3 | varint:
			v.Dev = f.number
		case 2<<3 | length:
			v.Handle = text.copy(f.bytes)
		case 3<<3 | varint:
			v.Ino = f.number
		case 4<<3 | varint:
			v.Size = int64(f.number)
		case 5<<3 | varint:
			v.MtimeNS = int64(f.number)
		case 6<<3 | varint:
			v.CtimeNS = int64(f.number)
		case 7<<3 | length:
			v.Path, ok = text.hold(f.bytes)
		case 8<<3 | varint:
			v.Mode = uint32(f.number)
		case 9<<3 | varint:
			v.UID = uint32(f.number)
		case 10<<3 | length:
			v.SHA256 = text.digest(f.bytes)
		}
		if !ok {
			return false
		}
	}
	return true
}

// Text holds the strings of many events in few pieces of memory. A string that it gave out is never changed and may be
// kept, which keeps the piece of up to textPiece bytes that it lies in. The zero value is ready; it is not safe for
// concurrent use.
type Text struct{ free []byte }

// textPiece is the size of one piece, in bytes: about a hundred events.
const textPiece = 16 << 10

// hold copies b if it is UTF-8, as protobuf demands of a string.
func (t *Text) hold(b []byte) (string, bool) {
	if !isText(b) {
		return "", false
	}
	return t.copy(b), true
}

func (t *Text) copy(b []byte) string {
	n := len(b)
	if n == 0 {
		return ""
	}
	at := t.take(n)
	copy(at, b)
	return unsafe.String(&at[0], n) // nobody writes there again
}

// digest renders a SHA-256 as package event does; whatever else it is, is no digest.
func (t *Text) digest(b []byte) string {
	if len(b) != digestSize {
		return ""
	}
	at := t.take(2 * digestSize)
	hex.Encode(at, b)
	return unsafe.String(&at[0], len(at)) // nobody writes there again
}

// take gives out n bytes, which is at least one, that nobody else has.
func (t *Text) take(n int) []byte {
	if n > textPiece/4 {
		return make([]byte, n)
	}
	if n > len(t.free) {
		t.free = make([]byte, textPiece)
	}
	at := t.free[:n:n]
	t.free = t.free[n:]
	return at
}

// Wire types, as they are in a tag.
const (
	varint = uint64(protowire.VarintType)
	length = uint64(protowire.BytesType)
)

// field is one field of a message. Where its wire type is another than these two, it has no value.
type field struct {
	key    uint64 // number and wire type, as on the wire
	number uint64
	bytes  []byte
}

// nextField cuts the first field off b. It reports false where protobuf would refuse b.
func nextField(b []byte) (f field, rest []byte, ok bool) {
	number, typ, n := protowire.ConsumeTag(b)
	if n < 0 {
		return f, nil, false
	}
	b = b[n:]
	f.key = protowire.EncodeTag(number, typ)
	switch typ {
	case protowire.VarintType:
		f.number, n = protowire.ConsumeVarint(b)
	case protowire.BytesType:
		f.bytes, n = protowire.ConsumeBytes(b)
	default:
		n = protowire.ConsumeFieldValue(number, typ, b)
	}
	if n < 0 {
		return f, nil, false
	}
	return f, b[n:], true
}

// onlyField returns the one field of number that the packet consists of.
func onlyField(packet []byte, number protowire.Number) ([]byte, bool) {
	if len(packet) > MaxPacket {
		return nil, false
	}
	f, rest, ok := nextField(packet)
	if !ok || len(rest) > 0 || f.key != protowire.EncodeTag(number, protowire.BytesType) {
		return nil, false
	}
	return f.bytes, true
}
