package wire_test

import (
	"bytes"
	"fmt"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/keepout-security/keepout/wire"
	pb "github.com/keepout-security/keepout/wire/keepoutpb"
)

// vector is the source of one golden file: a message to encode, or raw bytes.
type vector struct {
	name, direction string
	message         proto.Message
	raw             []byte
	valid           bool
	why             string
}

func vectors() []vector {
	all := append(platformVectors(), eventVectors()...)
	all = append(all, providerVectors()...)
	all = append(all, subscribeVectors()...)
	all = append(all, voteVectors()...)
	return append(all, brokenVectors()...)
}

func to(name, why string, m *pb.ToProvider) vector {
	return vector{name: name, direction: toProvider, message: m, valid: true, why: why}
}

func from(name, why string, m *pb.FromProvider) vector {
	return vector{name: name, direction: fromProvider, message: m, valid: true, why: why}
}

func rawTo(name, why string, valid bool, packet []byte) vector {
	return vector{name: name, direction: toProvider, raw: packet, valid: valid, why: why}
}

func rawFrom(name, why string, valid bool, packet []byte) vector {
	return vector{name: name, direction: fromProvider, raw: packet, valid: valid, why: why}
}

// broken turns an encodable message into a vector that the receiver must refuse.
func broken(v vector) vector {
	v.valid = false
	return v
}

func welcome(w *pb.Welcome) *pb.ToProvider {
	return &pb.ToProvider{Body: &pb.ToProvider_Welcome{Welcome: w}}
}

func anEvent(e *pb.Event) *pb.ToProvider {
	return &pb.ToProvider{Body: &pb.ToProvider_Event{Event: e}}
}

func hello(h *pb.Hello) *pb.FromProvider {
	return &pb.FromProvider{Body: &pb.FromProvider_Hello{Hello: h}}
}

func subscribe(s *pb.Subscribe) *pb.FromProvider {
	return &pb.FromProvider{Body: &pb.FromProvider_Subscribe{Subscribe: s}}
}

func vote(v *pb.Vote) *pb.FromProvider {
	return &pb.FromProvider{Body: &pb.FromProvider_Vote{Vote: v}}
}

func heartbeat(h *pb.Heartbeat) *pb.FromProvider {
	return &pb.FromProvider{Body: &pb.FromProvider_Heartbeat{Heartbeat: h}}
}

func platformVectors() []vector {
	return []vector{
		to("welcome", "a usual welcome", welcome(&pb.Welcome{
			Major: 1, Provider: "hashlist", Content: "/content", StateDir: "/state",
			Settings: map[string]string{"on_miss": "allow"}, HeartbeatMs: 1000, MaxPacket: wire.MaxPacket,
			Credit: 1024,
		})),
		to("welcome-minor", "a later minor version, two settings, of which one is empty", welcome(&pb.Welcome{
			Major: 1, Minor: 7, Provider: "x", Settings: map[string]string{"a": "", "b": "2"}, HeartbeatMs: 250,
		})),
		to("subscribed", "acknowledges generation 1", &pb.ToProvider{
			Body: &pb.ToProvider_Subscribed{Subscribed: &pb.Subscribed{Generation: 1}},
		}),
		to("cancel", "the vote on event 7 is not wanted any more", &pb.ToProvider{
			Body: &pb.ToProvider_Cancel{Cancel: &pb.Cancel{Id: 7}},
		}),
		to("reload", "a message without fields is a tag and the length 0", &pb.ToProvider{
			Body: &pb.ToProvider_Reload{Reload: &pb.Reload{}},
		}),
		to("drain", "a message without fields", &pb.ToProvider{
			Body: &pb.ToProvider_Drain{Drain: &pb.Drain{}},
		}),
		to("refused", "no common version", &pb.ToProvider{Body: &pb.ToProvider_Refused{Refused: &pb.Refused{
			Code: "version", Detail: "this platform speaks 1",
		}}}),
	}
}

// fullEvent sets every field of an event.
func fullEvent() *pb.Event {
	return &pb.Event{
		Id: 1<<63 + 5, Seq: 300, Dropped: 2, Type: pb.EventType_EVENT_TYPE_EXEC, BudgetNs: 2_000_000_000,
		TimeNs: 1_700_000_000_123_456_789,
		Actor:  &pb.Process{Pid: 4242, Token: 1 << 40, Ppid: 1, Uid: 1000, Gid: 1000, Comm: "bash"},
		File: &pb.File{
			Dev: 0x803, Handle: []byte{0x81, 0, 0, 0, 0xff, 0xfe, 1}, Ino: 131, Size: 4096,
			MtimeNs: 1_699_999_999_000_000_001, CtimeNs: -1, Path: "/srv/tool", Mode: 0o100755, Uid: 4294967295,
			Sha256: bytes.Repeat([]byte{0xab}, 32),
		},
		Name: "a", NewDir: "/srv/b", NewName: "c", Descriptor_: true,
	}
}

func eventVectors() []vector {
	all := []vector{
		to("event-full", "every field set", anEvent(fullEvent())),
		to("event-unknown-type", "a type of a later version: do not fail, abstain", anEvent(&pb.Event{
			Id: 9, Seq: 1, Type: 99, BudgetNs: 50_000_000,
		})),
		to("event-name-replaced", "a file name that was not UTF-8 (here ff fe) has U+FFFD for the bad bytes",
			anEvent(&pb.Event{Id: 11, Seq: 2, Type: pb.EventType_EVENT_TYPE_CREATE, Name: "a\uFFFD\n\u202e.sh"})),
		to("event-negative-pid", "a negative int32 takes ten bytes", anEvent(&pb.Event{
			Id: 12, Seq: 3, Type: pb.EventType_EVENT_TYPE_OPEN, Actor: &pb.Process{Pid: -1},
		})),
		to("event-path-max", "a path of 4096 bytes", anEvent(&pb.Event{
			Id: 13, Seq: 4, Type: pb.EventType_EVENT_TYPE_OPEN, File: &pb.File{Path: longPath(wire.MaxPath)},
		})),
		rawTo("event-unknown-fields", "fields 1000 to 1003 in the event and 1000 beside it: ignore them", true,
			withUnknown(protowire.AppendBytes(protowire.AppendTag(nil, 3, protowire.BytesType),
				withUnknown(marshal(&pb.Event{Id: 10, Seq: 1, Type: pb.EventType_EVENT_TYPE_OPEN}))))),
		rawTo("event-invalid-utf8", "a string that is not UTF-8: the platform never sends one", false,
			[]byte{0x1a, 5, 0x08, 1, 0x4a, 1, 0xff}),
		rawTo("event-reordered", "fields may come in any order, and the last of two values counts", true,
			[]byte{0x1a, 8, 0x20, 1, 0x10, 9, 0x08, 3, 0x08, 4}),
	}
	for value := pb.EventType_EVENT_TYPE_UNSPECIFIED; value <= pb.EventType_EVENT_TYPE_DELETE; value++ {
		word := strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(value.String(), "EVENT_TYPE_")), "_", "-")
		all = append(all, to("event-type-"+word, "event type "+value.String(),
			anEvent(&pb.Event{Id: 100 + uint64(value), Seq: 1, Type: value})))
	}
	return all
}

func providerVectors() []vector {
	mute := func(token uint64) *pb.FromProvider {
		return &pb.FromProvider{Body: &pb.FromProvider_Mute{Mute: &pb.Mute{ActorToken: token}}}
	}
	all := []vector{
		from("hello", "version 1", hello(&pb.Hello{Major: []uint32{1}, Sdk: "go/1", Engine: "hashlist 1.0"})),
		from("hello-two-versions", "repeated numbers are packed", hello(&pb.Hello{Major: []uint32{300, 1}})),
		rawFrom("hello-unpacked", "numbers one by one instead of packed are the same", true,
			[]byte{0x0a, 4, 0x08, 2, 0x08, 1}),
		from("hello-most-versions", "16 versions, and texts of 256 bytes", hello(&pb.Hello{
			Major: make([]uint32, wire.MaxVersions), Sdk: text(wire.MaxText), Engine: text(wire.MaxText),
		})),
		broken(from("hello-no-version", "offers nothing", hello(&pb.Hello{Sdk: "x"}))),
		broken(from("hello-17-versions", "over the limit", hello(&pb.Hello{Major: make([]uint32, 17)}))),
		broken(from("hello-long-engine", "a text of 257 bytes", hello(&pb.Hello{
			Major: []uint32{1}, Engine: text(wire.MaxText + 1),
		}))),
		from("mute", "no more events of this process", mute(1<<40)),
		broken(from("mute-nobody", "token 0 names no process", mute(0))),
		from("heartbeat-full", "every field set", heartbeat(&pb.Heartbeat{
			Processed: 123456, State: pb.State_STATE_DEGRADED, Detail: "reload: bad line 3", Content: "2026-01-02",
		})),
		from("heartbeat-unknown-state", "a state this version does not know is not a violation",
			heartbeat(&pb.Heartbeat{State: 42})),
		broken(from("heartbeat-long-detail", "a text of 257 bytes",
			heartbeat(&pb.Heartbeat{Detail: text(wire.MaxText + 1)}))),
	}
	for value := pb.State_STATE_UNSPECIFIED; value <= pb.State_STATE_DEGRADED; value++ {
		word := strings.ToLower(strings.TrimPrefix(value.String(), "STATE_"))
		all = append(all, from("heartbeat-"+word, "state "+value.String(),
			heartbeat(&pb.Heartbeat{Processed: 1, State: value})))
	}
	return all
}

func subscribeVectors() []vector {
	every := func(n int, s string) []string { return strings.Split(strings.Repeat(s+"\n", n-1)+s, "\n") }
	bad := func(name, why string, s *pb.Subscribe) vector {
		s.Generation = 1
		return broken(from("subscribe-"+name, why, subscribe(s)))
	}
	return []vector{
		from("subscribe", "opens and execs, with a descriptor", subscribe(&pb.Subscribe{
			Generation: 1, Events: []pb.EventType{pb.EventType_EVENT_TYPE_OPEN, pb.EventType_EVENT_TYPE_EXEC},
			Access: pb.Access_ACCESS_DESCRIPTOR,
		})),
		from("subscribe-full", "every field set, every event type", subscribe(&pb.Subscribe{
			Generation: 2, Events: []pb.EventType{1, 2, 3, 4, 5, 6}, SelectPrefix: []string{"/srv", "/home"},
			MutePrefix: []string{"/srv/cache"}, MinSize: 1, MaxSize: 1 << 32,
			Magic: [][]byte{{0x7f, 'E', 'L', 'F'}, []byte("#!")}, Access: pb.Access_ACCESS_METADATA, ByActor: true,
			Fresh: true, AnyType: true,
		})),
		from("subscribe-digest", "execs, with the digest first (minor 1)", subscribe(&pb.Subscribe{
			Generation: 7, Events: []pb.EventType{pb.EventType_EVENT_TYPE_EXEC}, Access: pb.Access_ACCESS_DIGEST,
		})),
		from("subscribe-unknown-enums", "unknown types and access of a later version are not a violation",
			subscribe(&pb.Subscribe{Generation: 3, Events: []pb.EventType{1, 77}, Access: 9})),
		from("subscribe-no-access", "access 0 means metadata", subscribe(&pb.Subscribe{
			Generation: 4, Events: []pb.EventType{0, 1}, Access: pb.Access_ACCESS_UNSPECIFIED,
		})),
		from("subscribe-most-prefixes", "1024 prefixes each", subscribe(&pb.Subscribe{
			Generation: 5, SelectPrefix: every(wire.MaxPrefixes, "/a"), MutePrefix: every(wire.MaxPrefixes, "/a/b"),
		})),
		from("subscribe-most-magics", "64 magics of 16 bytes and a prefix of 4096", subscribe(&pb.Subscribe{
			Generation: 6, Magic: magics(wire.MaxMagics, wire.MaxMagic),
			SelectPrefix: []string{longPath(wire.MaxPath)},
		})),
		bad("1025-prefixes", "over the limit", &pb.Subscribe{MutePrefix: every(wire.MaxPrefixes+1, "/a")}),
		bad("relative-prefix", "not absolute", &pb.Subscribe{SelectPrefix: []string{"srv"}}),
		bad("empty-prefix", "empty", &pb.Subscribe{SelectPrefix: []string{""}}),
		bad("long-prefix", "4097 bytes", &pb.Subscribe{MutePrefix: []string{longPath(wire.MaxPath + 1)}}),
		bad("65-magics", "over the limit", &pb.Subscribe{Magic: make([][]byte, wire.MaxMagics+1)}),
		bad("empty-magic", "empty", &pb.Subscribe{Magic: [][]byte{{}}}),
		bad("long-magic", "17 bytes", &pb.Subscribe{Magic: [][]byte{make([]byte, wire.MaxMagic+1)}}),
		bad("sizes-crossed", "max_size below min_size", &pb.Subscribe{MinSize: 10, MaxSize: 9}),
	}
}

func voteVectors() []vector {
	all := []vector{
		from("vote-full", "every field set", vote(&pb.Vote{
			Id: 1<<63 + 5, Action: pb.Action_ACTION_DENY, Confidence: 80, Rule: "Eicar-Test", Content: "4.2",
		})),
		from("vote-unknown-action", "counts as abstain, and is counted as a mistake",
			vote(&pb.Vote{Id: 7, Action: 9})),
		from("vote-longest", "texts of 256 bytes, confidence 100", vote(&pb.Vote{
			Id: 7, Action: 1, Confidence: 100, Rule: text(wire.MaxText), Content: text(wire.MaxText),
		})),
		rawFrom("vote-unknown-fields", "fields 1000 to 1003 are ignored", true, protowire.AppendBytes(
			[]byte{0x1a}, withUnknown([]byte{0x08, 7, 0x10, 1}))),
		rawFrom("vote-long-varint", "a varint may be longer than it needs to be", true,
			[]byte{0x1a, 6, 0x08, 0x87, 0x80, 0, 0x10, 1}),
		broken(from("vote-no-id", "no event has id 0", vote(&pb.Vote{Action: 1}))),
		broken(from("vote-confidence-101", "over 100 percent", vote(&pb.Vote{Id: 7, Confidence: 101}))),
		broken(from("vote-long-rule", "a text of 257 bytes", vote(&pb.Vote{Id: 7, Rule: text(wire.MaxText + 1)}))),
		broken(from("vote-long-content", "a text of 257 bytes",
			vote(&pb.Vote{Id: 7, Content: text(wire.MaxText + 1)}))),
		rawFrom("vote-invalid-utf8", "a rule that is not UTF-8", false, []byte{0x1a, 5, 0x08, 7, 0x22, 1, 0xff}),
	}
	for value := pb.Action_ACTION_UNSPECIFIED; value <= pb.Action_ACTION_READ; value++ {
		word := strings.ToLower(strings.TrimPrefix(value.String(), "ACTION_"))
		all = append(all, from("vote-"+word, "action "+value.String(),
			vote(&pb.Vote{Id: 7, Action: value})))
	}
	return all
}

func brokenVectors() []vector {
	beat := heartbeat(&pb.Heartbeat{Processed: 1, State: pb.State_STATE_READY})
	return []vector{
		rawTo("to-unknown-body", "a body of a later minor version: ignore the packet", true,
			[]byte{0xa2, 6, 2, 0x08, 1}),
		rawTo("to-packet-max", "65536 bytes, most of them an unknown field", true,
			padded(marshal(anEvent(&pb.Event{Id: 1, Seq: 1, Type: 1})), wire.MaxPacket)),
		rawTo("to-truncated", "a length that goes beyond the packet", false, []byte{0x1a, 9, 0x08, 1}),
		rawTo("to-garbage", "not protobuf", false, []byte("GET / HTTP/1.1\r\n")),
		rawFrom("from-unknown-body", "a provider must not send what the platform did not announce", false,
			[]byte{0xa2, 6, 2, 0x08, 1}),
		rawFrom("from-empty-body", "only an unknown number beside no body", false, []byte{0xc0, 0x3e, 1}),
		rawFrom("from-packet-max", "65536 bytes, most of them an unknown field", true,
			padded(marshal(beat), wire.MaxPacket)),
		rawFrom("from-packet-over", "65537 bytes", false, padded(marshal(beat), wire.MaxPacket+1)),
		rawFrom("from-truncated", "a length that goes beyond the packet", false, []byte{0x1a, 9, 0x08, 1}),
		rawFrom("from-cut-varint", "a varint that does not end", false, []byte{0x1a, 2, 0x08, 0x80}),
		rawFrom("from-long-varint", "a varint of eleven bytes", false,
			append([]byte{0x1a, 12, 0x08}, bytes.Repeat([]byte{0x80}, 10)...)),
		rawFrom("from-field-0", "field number 0 does not exist", false, []byte{0x00, 1}),
		rawFrom("from-garbage", "not protobuf", false, []byte("vote: allow\n")),
		rawFrom("from-two-bodies", "of two bodies the last counts", true,
			append(marshal(vote(&pb.Vote{Id: 7, Action: 2})), marshal(beat)...)),
	}
}

func marshal(m proto.Message) []byte {
	packet, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		panic(fmt.Sprintf("marshal a vector: %v", err))
	}
	return packet
}

// withUnknown appends one unknown field of each wire type in use.
func withUnknown(b []byte) []byte {
	b = protowire.AppendVarint(protowire.AppendTag(b, 1000, protowire.VarintType), 5)
	b = protowire.AppendBytes(protowire.AppendTag(b, 1001, protowire.BytesType), []byte("later"))
	b = protowire.AppendFixed32(protowire.AppendTag(b, 1002, protowire.Fixed32Type), 1)
	return protowire.AppendFixed64(protowire.AppendTag(b, 1003, protowire.Fixed64Type), 1)
}

// padded appends an unknown bytes field that makes the packet exactly size bytes long.
func padded(b []byte, size int) []byte {
	b = protowire.AppendTag(b, 1001, protowire.BytesType)
	const lengthBytes = 3 // of the varint that gives a length between 16 KiB and 2 MiB
	return protowire.AppendBytes(b, make([]byte, size-len(b)-lengthBytes))
}

func text(n int) string     { return strings.Repeat("x", n) }
func longPath(n int) string { return "/" + strings.Repeat("p", n-1) }

// magics gives n different magics of size bytes each.
func magics(n, size int) [][]byte {
	all := make([][]byte, n)
	for i := range all {
		all[i] = bytes.Repeat([]byte{byte(i)}, size)
	}
	return all
}

// forget drops unknown fields, on every level.
func forget[M proto.Message](m M) M {
	var walk func(protoreflect.Message)
	walk = func(r protoreflect.Message) {
		r.SetUnknown(nil)
		r.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
			if fd.Message() != nil && !fd.IsMap() && !fd.IsList() {
				walk(v.Message())
			}
			return true
		})
	}
	walk(m.ProtoReflect())
	return m
}

// collect notes the full names of the messages, fields and enum values in use.
func collect(m protoreflect.Message, seen map[string]bool) {
	seen[string(m.Descriptor().FullName())] = true
	note := func(fd protoreflect.FieldDescriptor, v protoreflect.Value) {
		switch {
		case fd.Enum() != nil:
			if value := fd.Enum().Values().ByNumber(v.Enum()); value != nil {
				seen[string(value.FullName())] = true
			}
		case fd.Message() != nil && !fd.IsMap():
			collect(v.Message(), seen)
		}
	}
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		seen[string(fd.FullName())] = true
		if fd.IsList() {
			for i := range v.List().Len() {
				note(fd, v.List().Get(i))
			}
			return true
		}
		note(fd, v)
		return true
	})
	fields := m.Descriptor().Fields()
	for i := range fields.Len() { // a zero enum is a value too, though Range leaves it out
		if fd := fields.Get(i); fd.Enum() != nil && !fd.IsList() && !m.Has(fd) {
			note(fd, m.Get(fd))
		}
	}
}

// protocolNames lists every message, field and enum value of the protocol.
func protocolNames() []string {
	var names []string
	file := pb.File_keepout_proto
	for i := range file.Messages().Len() {
		m := file.Messages().Get(i)
		names = append(names, string(m.FullName()))
		for j := range m.Fields().Len() {
			names = append(names, string(m.Fields().Get(j).FullName()))
		}
	}
	for i := range file.Enums().Len() {
		values := file.Enums().Get(i).Values()
		for j := range values.Len() {
			names = append(names, string(values.Get(j).FullName()))
		}
	}
	return names
}
