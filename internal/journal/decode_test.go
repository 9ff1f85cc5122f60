package journal

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/keepout-security/keepout/event"
)

// random makes records as the platform may: names of any bytes, the fields that an event type has.
type random struct{ *rand.Rand }

func (r random) bytes(limit int) string {
	b := make([]byte, r.IntN(limit+1))
	for i := range b {
		if b[i] = byte(r.Uint32()); r.IntN(2) == 0 {
			b[i] = "ab/.\"\\\n\x00\x7f<"[r.IntN(10)]
		}
	}
	return string(b)
}

func (r random) text(limit int) string { return strings.ToValidUTF8(r.bytes(limit), "ü") }

func (r random) latency() time.Duration { return time.Duration(r.IntN(10_000_000)) * time.Microsecond }

func (r random) record() event.Record {
	types := event.Types()
	ev := event.Event{
		ID: r.Uint64(), Type: types[r.IntN(len(types))],
		Actor: event.Process{
			PID: r.Int32(), Token: r.Uint64() >> r.IntN(64), PPID: r.Int32N(2), UID: r.Uint32(), GID: r.Uint32(),
			Comm: r.bytes(15),
		},
		File: event.File{
			Version: event.Version{
				Dev: r.Uint64(), Handle: r.bytes(132), Ino: r.Uint64(), Size: r.Int64(),
				MtimeNS: r.Int64() - r.Int64(), CtimeNS: r.Int64(),
			},
			Path: r.bytes(80), Mode: r.Uint32(), UID: r.Uint32(),
		},
	}
	if r.IntN(5) > 0 {
		ev.Time = time.Unix(0, r.Int64()+1).UTC()
	}
	switch ev.Type {
	case event.Rename:
		ev.NewDir, ev.NewName = r.bytes(40), r.bytes(20)
		fallthrough
	case event.Create, event.Delete:
		ev.Name = r.bytes(20)
	default:
	}
	outcomes := []event.Outcome{
		"", event.Allowed, event.Denied, event.WouldDeny, event.Timeout, event.Unavailable,
	}
	v := event.Verdict{
		Outcome: outcomes[r.IntN(len(outcomes))], Allowed: r.IntN(2) == 0, Reason: event.Reason(r.text(9)),
		DecidedBy: r.text(9), Rule: r.text(50), Mode: event.Mode(r.text(5)),
		Latency: r.latency(), Shared: r.Uint32(),
	}
	for range r.IntN(4) {
		v.Ballots = append(v.Ballots, event.Ballot{
			Provider: r.text(9), Mode: event.Mode(r.text(5)), Counted: r.IntN(2) == 0, Reason: event.Reason(r.text(9)),
			Vote: event.Vote{
				Action: event.Action(r.IntN(3)), Confidence: uint8(r.Uint32()), Rule: r.text(50), Content: r.text(9),
			},
			Latency: r.latency(),
		})
	}
	return event.Record{Event: ev, Verdict: v}
}

func TestRoundTrip(t *testing.T) {
	r := random{rand.New(rand.NewPCG(1, 2))}
	for range 5000 {
		roundTrip(t, r.record())
		if t.Failed() {
			return
		}
	}
}

func TestRoundTripSamples(t *testing.T) {
	for _, rec := range sample() {
		roundTrip(t, rec)
	}
}

func roundTrip(t *testing.T, rec event.Record) {
	t.Helper()
	lines, err := Encode(rec, testOrigin)
	if err != nil {
		t.Fatal(err)
	}
	denied := rec.Verdict.Outcome == event.Denied || rec.Verdict.Outcome == event.WouldDeny
	if want := map[bool]int{false: 1, true: 2}[denied]; len(lines) != want {
		t.Fatalf("%d lines for %s, want %d", len(lines), rec.Verdict.Outcome, want)
	}
	for _, line := range lines {
		wantClean(t, line)
	}
	got, err := Decode(lines[0])
	if err != nil {
		t.Fatalf("%v\n%s", err, lines[0])
	}
	if got.Kind != KindEvent || !reflect.DeepEqual(got.Record, rec) {
		t.Errorf("decoded %v\n%#v\nwant\n%#v\nline %s", got.Kind, got.Record, rec, lines[0])
	}
	if !denied {
		return
	}
	finding, err := Decode(lines[1])
	if err != nil {
		t.Fatalf("%v\n%s", err, lines[1])
	}
	rec.Verdict.Ballots, rec.Event.File = nil, event.File{Path: rec.Event.File.Path}
	if finding.Kind != KindFinding || !reflect.DeepEqual(finding.Record, rec) {
		t.Errorf("decoded %v\n%#v\nwant\n%#v\nline %s", finding.Kind, finding.Record, rec, lines[1])
	}
}

// wantClean holds for every line that the journal writes.
func wantClean(t *testing.T, line []byte) {
	t.Helper()
	if !json.Valid(line) || !utf8.Valid(line) {
		t.Errorf("not valid JSON: %q", line)
	}
	for _, r := range string(line) {
		if unicode.Is(unicode.C, r) {
			t.Errorf("%U in %q", r, line)
		}
	}
}

func TestNoteRoundTrip(t *testing.T) {
	for _, n := range []Note{
		{Time: testTime, Code: "core.gap", Title: "Core gap", Severity: High, Detail: "a\nb\u202e"},
		{Time: testTime, Code: "provider.crashed", Title: "Crashed", Severity: Fatal, Provider: "clamav"},
		{Severity: Informational},
	} {
		o := n.OCSF(testOrigin)
		line, err := newEncoder(testOrigin).appendLine(nil, &o)
		if err != nil {
			t.Fatal(err)
		}
		wantClean(t, bytes.TrimSuffix(line, []byte("\n")))
		got, err := Decode(line)
		if err != nil || got.Kind != KindNote || got.Note != n || !got.Time().Equal(n.Time) {
			t.Errorf("decoded %+v, %v, want %+v", got, err, n)
		}
	}
}

func TestEncodeRefusesAnInvalidType(t *testing.T) {
	for _, typ := range []event.Type{0, event.Delete + 1, 255} {
		lines, err := Encode(event.Record{Event: event.Event{Type: typ}}, Origin{})
		if len(lines) != 0 || err != nil {
			t.Errorf("type %d gives %d lines, %v", typ, len(lines), err)
		}
	}
}

// The worst that a file system and providers can do stays below MaxLine, and can be read again.
func TestLongestLine(t *testing.T) {
	worst := strings.Repeat("\x01", 1<<20)
	bad := strings.Repeat("\xff", 1<<20)
	for _, s := range []string{worst, bad, strings.Repeat("\U000e0041", 1<<18)} {
		rec := event.Record{
			Event: event.Event{
				ID: 1<<64 - 1, Type: event.Rename, Actor: event.Process{Comm: s}, File: event.File{Path: s},
				Name: s, NewDir: s, NewName: s,
			},
			Verdict: event.Verdict{
				Outcome: event.Denied, Reason: event.Reason(s), DecidedBy: s, Rule: s, Mode: event.Mode(s),
			},
		}
		rec.Event.File.Handle = s
		for range 10 * maxBallots {
			rec.Verdict.Ballots = append(rec.Verdict.Ballots, event.Ballot{
				Provider: s, Mode: event.Mode(s), Reason: event.Reason(s), Vote: event.Vote{Rule: s, Content: s},
			})
		}
		lines, err := Encode(rec, Origin{Host: clip(s, 64), Version: clip(s, 64)})
		if err != nil {
			t.Fatal(err)
		}
		n := Note{Code: s, Title: s, Provider: s, Detail: s}
		o := n.OCSF(testOrigin)
		line, err := newEncoder(testOrigin).appendLine(nil, &o)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range append(lines, line) {
			if len(line) > MaxLine {
				t.Errorf("%d bytes are more than MaxLine", len(line))
			}
			if _, err := Decode(line); err != nil {
				t.Error(err)
			}
		}
		t.Logf("%.4q: %d, %d and %d bytes", s, len(lines[0]), len(lines[1]), len(line))
	}
}

func TestDecodeErrors(t *testing.T) {
	good, err := Encode(sample()[1], testOrigin)
	if err != nil {
		t.Fatal(err)
	}
	change := func(old, forged string) string {
		s := strings.Replace(string(good[0]), old, forged, 1)
		if s == string(good[0]) {
			t.Fatalf("%q is not in the line", old)
		}
		return s
	}
	for line, want := range map[string]string{
		"":                     "unexpected end",
		"null":                 "class_uid 0",
		"{}":                   "class_uid 0",
		`{"class_uid":1001}`:   "event id",
		`{"class_uid":2004}`:   "event id",
		`{"class_uid":6002}`:   "note without its body",
		string(good[0]) + "{}": "after top-level",
		change(`"class_uid":1007`, `"class_uid":1001`):                 "does not fit event exec",
		change(`"event":"exec"`, `"event":"type(0)"`):                  "unknown event type",
		change(`"event_id":"beef"`, `"event_id":"-1"`):                 "event id",
		change(`"actor":`, `"actors":`):                                "without an actor",
		change(`"uid":"1152921504606846976"`, `"uid":"x"`):             "process uid",
		change(`"user":{"uid":"1000"}`, `"user":{"uid":"4294967296"}`): "user uid",
		change(`"action":"deny"`, `"action":"explode"`):                `unknown action "explode"`,
		strings.Repeat(" ", MaxLine+1):                                 "are more than",
	} {
		if _, err := Decode([]byte(line)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q gives %v, want %q", line, err, want)
		}
	}
	// A later version may add fields anywhere.
	if _, err := Decode([]byte(change(`"unmapped":{`, `"later":[1],"unmapped":{"other":{},`))); err != nil {
		t.Errorf("unknown fields: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	golden, err := os.ReadFile(filepath.Join("testdata", "golden.jsonl"))
	if err != nil {
		f.Fatal(err)
	}
	for line := range bytes.Lines(golden) {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		e, err := Decode(line)
		if err != nil || e.Kind != KindEvent {
			return
		}
		// What was decoded can be encoded, cleanly and within bounds, and then means the same for good.
		first := reencode(t, e.Record)
		again, err := Decode(first)
		if err != nil {
			t.Fatalf("%v\n%s", err, first)
		}
		if second := reencode(t, again.Record); !bytes.Equal(first, second) {
			t.Errorf("encoded\n%s\nthen\n%s", first, second)
		}
	})
}

func reencode(t *testing.T, rec event.Record) []byte {
	t.Helper()
	lines, err := Encode(rec, testOrigin)
	if err != nil || len(lines) == 0 {
		t.Fatalf("encode what was decoded: %d lines, %v", len(lines), err)
	}
	wantClean(t, lines[0])
	if len(lines[0]) > MaxLine {
		t.Errorf("%d bytes are more than MaxLine", len(lines[0]))
	}
	return lines[0]
}
