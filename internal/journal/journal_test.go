package journal

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/testenv"
)

var update = flag.Bool("update", false, "write testdata anew")

func TestMain(m *testing.M) { os.Exit(testenv.PrivateMounts(m)) }

// testTime is when everything happens in tests with a fixed clock.
var testTime = time.Date(2026, 3, 14, 15, 9, 26, 535897932, time.UTC)

var testOrigin = Origin{Host: "host.example", Version: "v1.2.3"}

// sample returns records of every type and outcome, with the strings that people try.
func sample() []event.Record {
	actor := event.Process{PID: 4711, Token: 1 << 60, PPID: 1, UID: 1000, GID: 100, Comm: "bash"}
	file := event.File{
		Version: event.Version{
			Dev: 2049, Handle: "\x01\x00\x00\x00\xff\x80", Ino: 99, Size: 68,
			MtimeNS: 1700000000123456789, CtimeNS: 1700000000987654321,
		},
		Path: "/srv/up\tload/eicar.com", Mode: 0o100755, UID: 33,
	}
	folder := event.File{Version: event.Version{Dev: 2049, Ino: 7}, Path: "/srv", Mode: 0o040755}
	ballots := []event.Ballot{
		{
			Provider: "clamav", Mode: event.Enforce, Counted: true, Reason: event.ReasonVoted,
			Vote:    event.Vote{Action: event.Deny, Confidence: 100, Rule: "Eicar-Test-Signature", Content: "27201"},
			Latency: 1250 * time.Microsecond,
		},
		{Provider: "yara", Mode: event.Audit, Reason: event.ReasonDeadline, Latency: 40 * time.Millisecond},
	}
	denied := event.Verdict{
		Outcome: event.Denied, Reason: event.ReasonDenied, DecidedBy: "clamav", Rule: "Eicar-Test-Signature",
		Mode: event.Enforce, Ballots: ballots, Latency: 1400 * time.Microsecond, Shared: 2,
	}
	would := denied
	would.Outcome, would.Allowed, would.Mode = event.WouldDeny, true, event.Monitor
	allowed := event.Verdict{
		Outcome: event.Allowed, Allowed: true, Reason: event.ReasonVoted, DecidedBy: "platform",
		Mode: event.Enforce,
	}
	timeout := event.Verdict{
		Outcome: event.Timeout, Reason: event.ReasonDeadline, DecidedBy: "platform", Mode: event.Enforce,
	}
	strange := file
	strange.Path = "/srv/\xff\xfe\n\"}{\u202e\u009b[31m\U000e0041\x7f"
	return []event.Record{
		{Event: event.Event{ID: 1, Type: event.Open, Time: testTime, Actor: actor, File: file}, Verdict: allowed},
		{
			Event:   event.Event{ID: 0xbeef, Type: event.Exec, Time: testTime, Actor: actor, File: file},
			Verdict: denied,
		},
		{Event: event.Event{ID: 3, Type: event.Open, Time: testTime, Actor: actor, File: strange}, Verdict: would},
		{Event: event.Event{ID: 4, Type: event.Open, Time: testTime, Actor: actor, File: file}, Verdict: timeout},
		{Event: event.Event{ID: 5, Type: event.CloseWrite, Time: testTime, Actor: actor, File: file}},
		{Event: event.Event{ID: 6, Type: event.Create, Time: testTime, Actor: actor, File: folder, Name: "a b"}},
		{Event: event.Event{
			ID: 7, Type: event.Rename, Time: testTime, Actor: actor, File: folder, Name: "a b",
			NewDir: "/srv/x", NewName: "\xc3",
		}},
		{Event: event.Event{ID: 1<<64 - 1, Type: event.Delete, Time: testTime, File: folder}},
	}
}

// moody is a disk that can refuse to write, to cut and to sync.
type moody struct {
	full, stuck, unsync atomic.Bool
	short               atomic.Bool // a refused write leaves half of its bytes
	syncs               atomic.Int64
	hold                chan struct{} // when set, each write takes one element first
	held                atomic.Int64  // writes that have come so far as to take it
}

type moodyFile struct {
	file
	m *moody
}

func (m *moody) wrap(f file, err error) (file, error) {
	if err != nil {
		return nil, err
	}
	return moodyFile{f, m}, nil
}

func (m *moody) create(path string) (file, error) {
	if m.full.Load() {
		return nil, syscall.ENOSPC
	}
	return m.wrap(osDisk{}.create(path))
}
func (m *moody) open(path string) (file, error) { return m.wrap(osDisk{}.open(path)) }

func (f moodyFile) Write(data []byte) (int, error) {
	if f.m.hold != nil {
		f.m.held.Add(1)
		<-f.m.hold
	}
	if !f.m.full.Load() {
		return f.file.Write(data)
	}
	n := 0
	if f.m.short.Load() {
		n, _ = f.file.Write(data[:len(data)/2])
	}
	return n, syscall.ENOSPC
}

func (f moodyFile) Truncate(size int64) error {
	if f.m.stuck.Load() {
		return syscall.EIO
	}
	return f.file.Truncate(size)
}

func (f moodyFile) Sync() error {
	f.m.syncs.Add(1)
	if f.m.unsync.Load() {
		return syscall.EIO
	}
	return f.file.Sync()
}

// start opens a journal with a short housekeeping pause.
func start(t testing.TB, dir string, limits Limits, d disk) *Journal {
	t.Helper()
	j, err := open(dir, limits, environment{
		disk: d, origin: testOrigin, now: time.Now, every: 5 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() })
	return j
}

func stop(t testing.TB, j *Journal) {
	t.Helper()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
}

// eventually waits for a condition that a goroutine brings about.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

// all reads every entry; the lines are copied.
func all(t testing.TB, dir string) []Entry {
	t.Helper()
	var out []Entry
	err := Read(dir, time.Time{}, func(e *Entry) bool {
		kept := *e
		kept.Line = bytes.Clone(e.Line)
		out = append(out, kept)
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func notes(entries []Entry, code string) []Note {
	var out []Note
	for _, e := range entries {
		if e.Kind == KindNote && e.Note.Code == code {
			out = append(out, e.Note)
		}
	}
	return out
}

func events(entries []Entry) (ids []uint64) {
	for _, e := range entries {
		if e.Kind == KindEvent {
			ids = append(ids, e.Record.Event.ID)
		}
	}
	return ids
}

func intact(t testing.TB, dir string) Report {
	t.Helper()
	r, err := Verify(dir)
	if err != nil {
		t.Fatal(err)
	}
	if !r.Intact() || r.TornBytes != 0 {
		t.Fatalf("journal is not intact: %v, %d torn bytes", r.Breaks, r.TornBytes)
	}
	return r
}

// plain is a small record.
func plain(id uint64) event.Record {
	rec := sample()[0]
	rec.Event.ID = id
	return rec
}

func TestGolden(t *testing.T) {
	dir := t.TempDir()
	j, err := open(dir, Limits{}, environment{
		disk: osDisk{}, origin: testOrigin, now: func() time.Time { return testTime }, every: time.Hour,
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, rec := range sample() {
		j.Append(rec)
	}
	j.Note(Note{
		Code: "provider.crashed", Title: "Provider clamav crashed", Severity: Medium, Provider: "clamav",
		Detail: "signal 11, third time in 10 minutes",
	})
	j.Note(Note{Code: "config.reloaded", Title: "Configuration reloaded"})
	stop(t, j)
	got, err := os.ReadFile(filepath.Join(dir, fileName(1)))
	if err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("testdata", "golden.jsonl")
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	gotLines, wantLines := strings.Split(string(got), "\n"), strings.Split(string(want), "\n")
	if len(gotLines) != len(wantLines) {
		t.Errorf("%d lines, want %d", len(gotLines), len(wantLines))
	}
	for i := range min(len(gotLines), len(wantLines)) {
		if gotLines[i] != wantLines[i] {
			t.Errorf("line %d is\n%s\nwant\n%s", i+1, gotLines[i], wantLines[i])
		}
	}
}

func TestChainContinuesOverRestarts(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "journal")
	var head Head
	for i := range 3 {
		j := start(t, dir, Limits{}, osDisk{})
		if i > 0 && j.Head() != head {
			t.Fatalf("head is %v after a restart, was %v", j.Head(), head)
		}
		j.Append(sample()[1]) // two lines
		j.Note(Note{Code: "x", Title: "y"})
		stop(t, j)
		head = j.Head()
	}
	r := intact(t, dir)
	if r.Lines != 9 || r.First != 1 || !r.Start || r.Head != head || r.Files != 1 {
		t.Fatalf("report is %+v, want 9 lines from 1 to %v in one file", r, head)
	}
}

func TestRotationAndBound(t *testing.T) {
	dir := t.TempDir()
	limits := Limits{FileBytes: 8 << 10, Files: 3}
	j := start(t, dir, limits, osDisk{})
	const records = 100
	for id := range uint64(records) {
		j.Append(plain(id + 1))
	}
	stop(t, j)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != limits.Files {
		t.Errorf("%d files, want %d", len(entries), limits.Files)
	}
	for _, e := range entries {
		if info, err := e.Info(); err != nil || info.Size() > limits.FileBytes || info.Mode().Perm() != fileMode {
			t.Errorf("%s: %v, %v", e.Name(), info, err)
		}
	}
	r := intact(t, dir)
	if r.Start || r.First <= 1 || r.Head.Seq != records || r.Lines != records-r.First+1 {
		t.Errorf("report is %+v, want lines up to %d and the first ones gone", r, records)
	}
	ids := events(all(t, dir))
	if ids[0] != r.First || ids[len(ids)-1] != records {
		t.Errorf("events %d to %d, want %d to %d", ids[0], ids[len(ids)-1], r.First, records)
	}
}

func TestALineLongerThanAFile(t *testing.T) {
	dir := t.TempDir()
	j := start(t, dir, Limits{FileBytes: 100, Files: 20}, osDisk{})
	for _, rec := range sample() {
		j.Append(rec)
	}
	stop(t, j)
	if r := intact(t, dir); r.Files != len(sample()) || !r.Start {
		t.Errorf("report is %+v, want one file for each record and its finding", r)
	}
}

func TestFewerFilesAfterARestart(t *testing.T) {
	dir := t.TempDir()
	j := start(t, dir, Limits{FileBytes: 100, Files: 6}, osDisk{})
	for id := range uint64(6) {
		j.Append(plain(id + 1))
	}
	stop(t, j)
	stop(t, start(t, dir, Limits{FileBytes: 100, Files: 2}, osDisk{}))
	if r := intact(t, dir); r.Files != 2 || r.First != 5 {
		t.Errorf("report is %+v, want two files from line 5", r)
	}
}

func TestTornTail(t *testing.T) {
	for _, torn := range []string{"{", "no newline", strings.Repeat("\x00", 4096), `{"class_uid":1001}`} {
		dir := t.TempDir()
		j := start(t, dir, Limits{}, osDisk{})
		j.Append(plain(1))
		j.Append(plain(2))
		stop(t, j)
		path := filepath.Join(dir, fileName(1))
		appendTo(t, path, torn)
		if r, err := Verify(dir); err != nil || !r.Intact() || r.TornBytes != int64(len(torn)) {
			t.Errorf("torn %.20q: Verify says %+v, %v", torn, r, err)
		}
		if ids := events(all(t, dir)); len(ids) != 2 {
			t.Errorf("torn %.20q: Read gives %d events, want 2", torn, len(ids))
		}

		j = start(t, dir, Limits{}, osDisk{})
		eventually(t, "the note without any new record", func() bool { return j.Head().Seq == 3 })
		j.Append(plain(4))
		stop(t, j)
		intact(t, dir)
		entries := all(t, dir)
		found := notes(entries, CodeRecovered)
		want := fmt.Sprintf("%d bytes lost after line 2 ", len(torn))
		if len(found) != 1 || !strings.HasPrefix(found[0].Detail, want) {
			t.Errorf("torn %.20q: notes are %+v", torn, found)
		}
		if len(entries) != 4 {
			t.Errorf("torn %.20q: %d entries, want 4", torn, len(entries))
		}
	}
}

func TestPowerCutJustAfterRotation(t *testing.T) {
	for _, begun := range []string{"", "{\"torn"} {
		dir := t.TempDir()
		j := start(t, dir, Limits{}, osDisk{})
		j.Append(plain(1))
		stop(t, j)
		if err := os.WriteFile(filepath.Join(dir, fileName(2)), []byte(begun), 0o600); err != nil {
			t.Fatal(err)
		}
		j = start(t, dir, Limits{}, osDisk{})
		j.Append(plain(2))
		stop(t, j)
		intact(t, dir)
		if found := notes(all(t, dir), CodeRecovered); (len(found) == 1) != (begun != "") {
			t.Errorf("begun %q: notes are %+v", begun, found)
		}
	}
}

func TestOpenSurvivesAnyLastLine(t *testing.T) {
	for _, last := range []string{
		"", "garbage", strings.Repeat("x", MaxLine+100),
		`{"class_uid":6002,"unmapped":{"keepout":{"seq":18446744073709551615,"note":{"title":""}}}}`,
	} {
		dir := t.TempDir()
		j := start(t, dir, Limits{}, osDisk{})
		j.Append(plain(1))
		stop(t, j)
		appendTo(t, filepath.Join(dir, fileName(1)), last+"\n")
		j = start(t, dir, Limits{}, osDisk{})
		j.Append(plain(2))
		stop(t, j)
		r, err := Verify(dir)
		if err != nil || len(r.Breaks) == 0 || r.Breaks[0].Line != 2 {
			t.Errorf("last line %.30q: Verify says %+v, %v, want a break at line 2", last, r, err)
		}
		if j.Head().Seq != 3 {
			t.Errorf("last line %.30q: head is %v, want line 3", last, j.Head())
		}
	}
}

func TestOpenFails(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if j, err := Open(path, Limits{}); err == nil || j != nil {
		t.Fatal("a file was opened as a journal's folder")
	}
	for _, err := range []error{Read(path, time.Time{}, nil), second(Verify(path))} {
		if !errors.Is(err, syscall.ENOTDIR) {
			t.Errorf("error is %v, want ENOTDIR", err)
		}
	}
	if _, err := Verify(path + "none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error is %v, want not exist", err)
	}
}

func second(_ Report, err error) error { return err }

func appendTo(t testing.TB, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}
