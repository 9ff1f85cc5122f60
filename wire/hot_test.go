package wire_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/wire"
	pb "github.com/keepout-security/keepout/wire/keepoutpb"
)

// texts are strings of all kinds: plain, not UTF-8, with control characters, long.
func texts() *rapid.Generator[string] {
	return rapid.OneOf(
		rapid.Just(""), rapid.StringMatching(`/[a-z/ä€]{0,40}`), rapid.String(),
		rapid.Map(rapid.SliceOfN(rapid.Byte(), 0, 300), func(b []byte) string { return string(b) }),
	)
}

func anyEvent(t *rapid.T) event.Event {
	number, text := rapid.Uint64(), texts()
	return event.Event{
		ID: number.Draw(t, "id"), Type: event.Type(rapid.Uint8Range(0, 9).Draw(t, "type")),
		Time: time.Unix(0, rapid.Int64().Draw(t, "time")),
		Actor: event.Process{
			PID: rapid.Int32().Draw(t, "pid"), Token: number.Draw(t, "token"), PPID: rapid.Int32().Draw(t, "ppid"),
			UID: rapid.Uint32().Draw(t, "uid"), GID: rapid.Uint32().Draw(t, "gid"), Comm: text.Draw(t, "comm"),
		},
		File: event.File{
			Version: event.Version{
				Dev: number.Draw(t, "dev"), Handle: text.Draw(t, "handle"), Ino: number.Draw(t, "ino"),
				Size: rapid.Int64().Draw(t, "size"), MtimeNS: rapid.Int64().Draw(t, "mtime"),
				CtimeNS: rapid.Int64().Draw(t, "ctime"),
			},
			Path: text.Draw(t, "path"), Mode: rapid.Uint32().Draw(t, "mode"), UID: rapid.Uint32().Draw(t, "owner"),
			SHA256: rapid.OneOf(rapid.StringMatching(`([0-9a-f]{64})?`), text).Draw(t, "sha256"),
		},
		Name: text.Draw(t, "name"), NewDir: text.Draw(t, "new dir"), NewName: text.Draw(t, "new name"),
	}
}

func anyStamp(t *rapid.T) wire.Stamp {
	return wire.Stamp{
		Type: event.Type(rapid.Uint8Range(0, 9).Draw(t, "asked as")), Seq: rapid.Uint64().Draw(t, "seq"),
		Dropped: rapid.Uint64().Draw(t, "dropped"), Budget: time.Duration(rapid.Int64().Draw(t, "budget")),
		Descriptor: rapid.Bool().Draw(t, "descriptor"), NoDigest: rapid.Bool().Draw(t, "no digest"),
	}
}

func anyVote(t *rapid.T) event.Vote {
	return event.Vote{
		Action:     event.Action(rapid.Uint8Range(0, 4).Draw(t, "action")),
		Confidence: rapid.Uint8().Draw(t, "confidence"),
		Rule:       texts().Draw(t, "rule"), Content: texts().Draw(t, "content"),
	}
}

// stamped is what the generated code makes of an event.
func stamped(ev *event.Event, s wire.Stamp) *pb.ToProvider {
	m := wire.EventToProto(ev)
	m.Type, m.Seq, m.Dropped = pb.EventType(s.Type), s.Seq, s.Dropped
	if s.NoDigest {
		m.File.Sha256 = nil
	}
	m.BudgetNs, m.Descriptor_ = uint64(max(s.Budget, 0)), s.Descriptor
	return anEvent(m)
}

// TestAppend: what is written by hand is what the generated code writes, byte by byte, and a packet that is too long
// is refused by both.
func TestAppend(t *testing.T) {
	t.Parallel()
	prefix := []byte("before")
	rapid.Check(t, func(t *rapid.T) {
		ev, s := anyEvent(t), anyStamp(t)
		if rapid.IntRange(0, 9).Draw(t, "long") == 0 {
			ev.File.Path = strings.Repeat("x", rapid.IntRange(wire.MaxPacket-500, wire.MaxPacket).Draw(t, "length"))
		}
		want, wantErr := wire.Encode(bytes.Clone(prefix), stamped(&ev, s))
		got, err := wire.AppendEvent(bytes.Clone(prefix), &ev, s)
		if !bytes.Equal(got, want) || (err == nil) != (wantErr == nil) {
			t.Fatalf("event %+v %+v\nby hand   %x (%v)\ngenerated %x (%v)", ev, s, got, err, want, wantErr)
		}
		id, v := rapid.Uint64().Draw(t, "vote on"), anyVote(t)
		checkAppended(t, wire.AppendVote(bytes.Clone(prefix), id, v), prefix, aVote(wire.VoteToProto(id, v)))
		want, err = wire.Encode(bytes.Clone(prefix), &pb.ToProvider{Body: &pb.ToProvider_Cancel{Cancel: &pb.Cancel{Id: id}}})
		if got := wire.AppendCancel(bytes.Clone(prefix), id); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("cancel %d\nby hand   %x\ngenerated %x (%v)", id, got, want, err)
		}
	})
}

func checkAppended(t *rapid.T, got, prefix []byte, m *pb.FromProvider) {
	want, err := wire.Encode(bytes.Clone(prefix), m)
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%v\nby hand   %x\ngenerated %x (%v)", m, got, want, err)
	}
}

// TestParse: what the generated code writes is read by hand, and as the generated code reads it.
func TestParse(t *testing.T) {
	t.Parallel()
	var text wire.Text
	rapid.Check(t, func(t *rapid.T) {
		ev, s := anyEvent(t), anyStamp(t)
		packet, err := wire.Encode(nil, stamped(&ev, s))
		if err != nil {
			t.Fatal(err)
		}
		if !sameEvent(t, packet, &text) {
			t.Fatalf("not read by hand: %x", packet)
		}
		v := anyVote(t)
		v.Confidence %= 101
		packet, err = wire.Encode(nil, aVote(wire.VoteToProto(rapid.Uint64Min(1).Draw(t, "id"), v)))
		if err != nil {
			t.Fatal(err)
		}
		if !sameVote(t, packet) {
			t.Fatalf("not read by hand: %x", packet)
		}
	})
}

// failer is what *testing.T and *rapid.T share.
type failer interface {
	Fatalf(format string, args ...any)
}

// sameEvent reports whether the packet was read by hand as an event, and fails if that differs from the generated code.
func sameEvent(t failer, packet []byte, text *wire.Text) bool {
	var ev event.Event
	s, ok := wire.ParseEvent(packet, &ev, text)
	m, err := wire.DecodeToProvider(packet)
	if !ok {
		if err == nil && m.GetEvent() != nil && canonical(packet, m) {
			t.Fatalf("only the generated code reads %x", packet)
		}
		return false
	}
	e := m.GetEvent()
	if err != nil || e == nil {
		t.Fatalf("only by hand an event: %x (%v)", packet, err)
	}
	want, wantStamp := wire.EventFromProto(e), wire.StampFromProto(e)
	if ev != want || s != wantStamp {
		t.Fatalf("%x\nby hand   %+v %+v\ngenerated %+v %+v", packet, ev, s, want, wantStamp)
	}
	return true
}

// sameVote is sameEvent for votes.
func sameVote(t failer, packet []byte) bool {
	var raw wire.RawVote
	ok := wire.ParseVote(packet, &raw)
	m, err := wire.DecodeFromProvider(packet)
	if !ok {
		if err == nil && m.GetVote() != nil && canonical(packet, m) {
			t.Fatalf("only the generated code reads %x", packet)
		}
		return false
	}
	if err != nil || m.GetVote() == nil {
		t.Fatalf("only by hand a vote: %x (%v)", packet, err)
	}
	want, wantKnown := wire.VoteFromProto(m.GetVote())
	got, known := raw.Vote()
	got.Rule, got.Content = wire.Clip(string(raw.Rule)), wire.Clip(string(raw.Content))
	if raw.ID != m.GetVote().GetId() || got != want || known != wantKnown {
		t.Fatalf("%x\nby hand   %d %+v %v\ngenerated %v", packet, raw.ID, got, known, m)
	}
	return true
}

// canonical reports whether the packet is what Encode makes of its known fields.
func canonical(packet []byte, m proto.Message) bool {
	again, err := wire.Encode(nil, forget(m))
	return err == nil && bytes.Equal(again, packet)
}

func aVote(v *pb.Vote) *pb.FromProvider {
	return &pb.FromProvider{Body: &pb.FromProvider_Vote{Vote: v}}
}

// FuzzParse: what is read by hand is what the generated code reads, and everything that our own side writes is read
// by hand.
func FuzzParse(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, packet []byte) {
		var text wire.Text
		sameEvent(t, packet, &text)
		sameVote(t, packet)
	})
}

// TestHotPathDoesNotAllocate: neither the one side nor the other does, as long as texts are fit to be sent.
func TestHotPathDoesNotAllocate(t *testing.T) {
	ev := event.Event{
		ID: 1 << 40, Type: event.Exec, Time: time.Now(),
		Actor: event.Process{PID: 4711, Token: 99, UID: 1000, Comm: "make"},
		File: event.File{
			Version: event.Version{Dev: 7, Handle: "\x01handle", Ino: 5, Size: 4096, MtimeNS: 1, CtimeNS: 2},
			Path:    "/srv/a/file", SHA256: strings.Repeat("ab", 32),
		},
	}
	stamp := wire.Stamp{Type: event.Open, Seq: 3, Budget: time.Second, Descriptor: true}
	vote := event.Vote{Action: event.Deny, Confidence: 100, Rule: "EICAR", Content: "daily 27800"}
	var out, answer []byte
	var text wire.Text
	var got event.Event
	var raw wire.RawVote
	ok := true
	round := func() {
		var err error
		out, err = wire.AppendEvent(out[:0], &ev, stamp)
		_, parsed := wire.ParseEvent(out, &got, &text)
		answer = wire.AppendVote(answer[:0], got.ID, vote)
		ok = ok && err == nil && parsed && wire.ParseVote(answer, &raw)
		answer = wire.AppendCancel(answer[:0], got.ID)
	}
	// A piece of text is good for a hundred events; AllocsPerRun rounds down.
	if n := testing.AllocsPerRun(1000, round); n != 0 || !ok {
		t.Errorf("%v allocations a question, want 0 (%v)", n, ok)
	}
	if !ok || got.File.Path != ev.File.Path || string(raw.Rule) != vote.Rule {
		t.Errorf("read %+v, %+v", got, raw)
	}
}

// TestTextIsKept: a string that was given out stays as it is, whatever is parsed afterwards.
func TestTextIsKept(t *testing.T) {
	t.Parallel()
	var text wire.Text
	var kept []string
	var want []string
	for i := range 2000 {
		path := "/srv/" + strings.Repeat(string(rune('a'+i%26)), i%5000)
		packet, err := wire.AppendEvent(nil, &event.Event{ID: 1, Time: time.Unix(0, 0), File: event.File{Path: path}},
			wire.Stamp{})
		var got event.Event
		_, ok := wire.ParseEvent(packet, &got, &text)
		if err != nil || !ok {
			t.Fatalf("%v, %v", err, ok)
		}
		clear(packet)
		kept, want = append(kept, got.File.Path), append(want, path)
	}
	for i := range kept {
		if kept[i] != want[i] {
			t.Fatalf("string %d is %q, want %q", i, kept[i], want[i])
		}
	}
}

// BenchmarkCodec compares one question and its vote, by hand and with the generated code, both ways.
func BenchmarkCodec(b *testing.B) {
	ev := event.Event{ID: 1 << 40, Type: event.Open, Time: time.Now(), Actor: event.Process{PID: 4711, Token: 99}}
	ev.File.Path, ev.File.Handle, ev.File.Ino = "/srv/some/where/a-file.txt", "handle-of-a-file", 4711
	stamp := wire.Stamp{Type: event.Open, Seq: 3, Budget: time.Second, Descriptor: true}
	vote := event.Vote{Action: event.Allow, Confidence: 100, Content: "deny 3, allow 0, 0123abcd"}
	var out []byte
	var text wire.Text
	start := time.Now()
	for range b.N {
		var got event.Event
		var raw wire.RawVote
		out, _ = wire.AppendEvent(out[:0], &ev, stamp)
		wire.ParseEvent(out, &got, &text)
		out = wire.AppendVote(out[:0], got.ID, vote)
		wire.ParseVote(out, &raw)
	}
	byHand := time.Since(start)
	start = time.Now()
	for range b.N {
		out, _ = wire.Encode(out[:0], stamped(&ev, stamp))
		m, _ := wire.DecodeToProvider(out)
		got := wire.EventFromProto(m.GetEvent())
		out, _ = wire.Encode(out[:0], aVote(wire.VoteToProto(got.ID, vote)))
		v, _ := wire.DecodeFromProvider(out)
		wire.VoteFromProto(v.GetVote())
	}
	b.ReportMetric(float64(time.Since(start))/float64(byHand), "generated-to-hand-ratio")
	b.ReportMetric(float64(byHand.Nanoseconds())/float64(b.N), "hand-ns")
	b.ReportMetric(0, "ns/op")
}
