package wire_test

import (
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/wire"
	pb "github.com/keepout-security/keepout/wire/keepoutpb"
)

// TestEnumsAgree holds the numbers of package event to those on the wire.
func TestEnumsAgree(t *testing.T) {
	if got, want := len(pb.EventType_name), len(event.Types())+1; got != want {
		t.Errorf("%d event types on the wire, want %d", got, want)
	}
	for _, typ := range event.Types() {
		name := "EVENT_TYPE_" + strings.ToUpper(strings.ReplaceAll(typ.String(), "-", "_"))
		if got := pb.EventType_value[name]; got != int32(typ) {
			t.Errorf("%s is %d on the wire, %d in package event", name, got, typ)
		}
	}
	for number, name := range pb.Action_name {
		vote, known := wire.VoteFromProto(&pb.Vote{Id: 1, Action: pb.Action(number)})
		if known != (number != 0) {
			t.Errorf("%s: known is %v", name, known)
		}
		if !known {
			continue
		}
		if got := "ACTION_" + strings.ToUpper(vote.Action.String()); got != name {
			t.Errorf("%s became %s", name, got)
		}
		if back := wire.VoteToProto(1, vote); back.GetAction() != pb.Action(number) {
			t.Errorf("%s came back as %s", name, back.GetAction())
		}
	}
	if vote, known := wire.VoteFromProto(&pb.Vote{Id: 1, Action: 42}); known || vote.Action != event.Abstain {
		t.Errorf("unknown action became %s, known %v; want abstain, false", vote.Action, known)
	}
}

// TestLimits holds the numbers that docs/protocol.md states.
func TestLimits(t *testing.T) {
	for name, c := range map[string]struct{ got, want int }{
		"packet": {wire.MaxPacket, 65536}, "text": {wire.MaxText, 256}, "prefixes": {wire.MaxPrefixes, 1024},
		"path": {wire.MaxPath, 4096}, "magics": {wire.MaxMagics, 64}, "magic": {wire.MaxMagic, 16},
		"versions": {wire.MaxVersions, 16}, "auth descriptor": {wire.AuthFD, 3},
		"control descriptor": {wire.ControlFD, 4}, "major": {wire.Major, 1}, "minor": {wire.Minor, 1},
		"rule": {event.MaxRule, wire.MaxText},
	} {
		if c.got != c.want {
			t.Errorf("%s is %d, documented as %d", name, c.got, c.want)
		}
	}
}

func TestChoose(t *testing.T) {
	if majors := wire.Majors(); len(majors) == 0 || len(majors) > 2 || majors[0] != wire.Major ||
		!slices.IsSortedFunc(majors, func(a, b uint32) int { return int(b) - int(a) }) {
		t.Errorf("majors %v: want the current one, then at most the previous", majors)
	}
	for _, c := range []struct {
		offered []uint32
		want    uint32
		ok      bool
	}{
		{[]uint32{1}, 1, true},
		{[]uint32{1, 2, 3}, 1, true},
		{[]uint32{9, 1}, 1, true},
		{[]uint32{2}, 0, false},
		{[]uint32{0}, 0, false},
		{nil, 0, false},
	} {
		if got, ok := wire.Choose(c.offered); got != c.want || ok != c.ok {
			t.Errorf("Choose(%v) = %d, %v; want %d, %v", c.offered, got, ok, c.want, c.ok)
		}
	}
}

func TestEncodeRefusesTooMuch(t *testing.T) {
	prefix := []byte("kept")
	out, err := wire.Encode(prefix, heartbeat(&pb.Heartbeat{Detail: text(wire.MaxPacket)}))
	if err == nil || string(out) != "kept" {
		t.Errorf("Encode gave %d bytes, error %v; want the 4 given and an error", len(out), err)
	}
	out, err = wire.Encode(prefix, heartbeat(&pb.Heartbeat{Processed: 1}))
	if err != nil || string(out) != "kept\x2a\x02\x08\x01" {
		t.Errorf("Encode gave %q, error %v", out, err)
	}
}

func TestEventSurvivesTheWire(t *testing.T) {
	want := event.Event{
		ID: 1 << 60, Type: event.Rename, Time: time.Unix(1_700_000_000, 123),
		Actor: event.Process{PID: 7, Token: 1 << 50, PPID: 1, UID: 2, GID: 3, Comm: "sh"},
		File: event.File{
			Version: event.Version{Dev: 1, Handle: "\xff\x00", Ino: 2, Size: 3, MtimeNS: -4, CtimeNS: 5},
			Path:    "/srv", Mode: 0o40755, UID: 6,
		},
		Name: "a", NewDir: "/b", NewName: "c",
	}
	if got := wire.EventFromProto(wire.EventToProto(&want)); got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	forged := event.Event{ID: 1, Type: event.Create, Name: "a\xffb\n"}
	packet, err := wire.Encode(nil, anEvent(wire.EventToProto(&forged)))
	if err != nil {
		t.Fatalf("a name that is not UTF-8: %v", err)
	}
	if m, err := wire.DecodeToProvider(packet); err != nil || m.GetEvent().GetName() != "a\uFFFDb\n" {
		t.Errorf("name %q, error %v", m.GetEvent().GetName(), err)
	}
	for _, unknown := range []pb.EventType{-1, 0, 7, 256 + 1} {
		if ev := wire.EventFromProto(&pb.Event{Id: 1, Type: unknown}); ev.Type.Valid() {
			t.Errorf("type %d became %s", unknown, ev.Type)
		}
	}
}

var clipSeeds = []string{
	"", "Eicar-Test", text(256), text(257), "a\nb\x1b[31m\x7f", "\xff\xfe", "é" + text(255), text(255) + "é",
	strings.Repeat("\u20ac", 100), "\u202egnp.exe", "\U0001F600" + text(254), text(254) + "\xf0\x9f\x98\x80",
	"a\u00a0b\u200bc", "\uFFFD",
}

func TestClip(t *testing.T) {
	for in, want := range map[string]string{
		"Eicar-Test": "Eicar-Test", "a\nb\x1b[31m\x7f": "a?b?[31m?", "\xff\xfe": "?", "é": "é",
		text(300): text(256), text(255) + "é": text(255), "\u202egnp": "?gnp",
	} {
		if got := wire.Clip(in); got != want {
			t.Errorf("Clip(%q) = %q, want %q", in, got, want)
		}
	}
	for _, s := range clipSeeds {
		checkClip(t, s)
	}
}

func checkClip(t *testing.T, s string) {
	t.Helper()
	got := wire.Clip(s)
	if len(got) > wire.MaxText || !utf8.ValidString(got) {
		t.Errorf("Clip(%q) = %q: %d bytes, valid %v", s, got, len(got), utf8.ValidString(got))
	}
	for _, r := range got {
		if unicode.IsControl(r) || !unicode.IsPrint(r) {
			t.Errorf("Clip(%q) keeps %q", s, r)
		}
	}
	if again := wire.Clip(got); again != got {
		t.Errorf("Clip is not idempotent on %q: %q, then %q", s, got, again)
	}
}

func FuzzClip(f *testing.F) {
	for _, s := range clipSeeds {
		f.Add(s)
	}
	f.Fuzz(checkClip)
}
