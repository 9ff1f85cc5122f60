package journal

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/keepout-security/keepout/event"
)

// asOCSF is the line of rec's activity as encoding/json writes its object.
func asOCSF(t *testing.T, e *encoder, rec event.Record, origin Origin, before link) []byte {
	t.Helper()
	o := OCSF(rec, origin)[0]
	if before.known() {
		o.Metadata.Sequence = before.seq + 1
		o.Unmapped.Keepout.Seq, o.Unmapped.Keepout.Prev = before.seq+1, string(before.hash[:])
	}
	line, err := e.appendLine(nil, &o)
	if err != nil {
		t.Fatal(err)
	}
	return line
}

// TestAppendIsOCSF: what is written by hand is, byte for byte, what OCSF and encoding/json say, whatever a name holds.
func TestAppendIsOCSF(t *testing.T) {
	t.Parallel()
	r := random{rand.New(rand.NewPCG(3, 4))}
	links := []link{{}, Head{Hash: noHash}.link(), Head{Seq: 1<<63 - 1, Hash: strings.Repeat("ab", 32)}.link()}
	origins := []Origin{{}, testOrigin, {Host: "h\xff\u202e\"", Version: "(devel)"}}
	records := sample()
	for range 5000 {
		records = append(records, r.record())
	}
	for i := range 300 { // with what the random ones leave out
		rec := r.record()
		rec.Event.File.SHA256 = strings.Repeat("c", 64)
		if i%2 == 0 {
			rec.Event.File.Path = "/srv/" + event.SelftestName + "1"
			rec.Verdict.Ballots = []event.Ballot{{Vote: event.Vote{Action: event.Deny, Rule: event.SelftestRule}}}
		}
		rec.Verdict.Ballots = append(rec.Verdict.Ballots, make([]event.Ballot, i)...)
		records = append(records, rec)
	}
	for _, text := range []string{
		"", "/", "/ü/€/\U0001f600", "\u2028", "\u2029", "\u202e", "\u009b", "\x7f", "\xc3", "<&>", "\ufffd", `\`, "//",
		strings.Repeat("ü", maxPath), strings.Repeat("x", maxPath+1) + "\xff",
	} {
		for _, rec := range sample() {
			rec.Event.File.Path, rec.Event.Name, rec.Event.NewDir, rec.Event.NewName = text, text, text, text
			rec.Event.Actor.Comm, rec.Event.File.Handle, rec.Event.File.SHA256 = text, text, text
			rec.Verdict.Rule, rec.Verdict.DecidedBy, rec.Verdict.Outcome = text, text, event.Outcome(text)
			records = append(records, rec)
		}
	}
	for i, rec := range records {
		before, origin := links[i%len(links)], origins[i%len(origins)]
		e := newEncoder(origin)
		got, want := e.appendActivity([]byte("kept"), &rec, before), asOCSF(t, e, rec, origin, before)
		if !bytes.Equal(got, append([]byte("kept"), want...)) {
			t.Fatalf("by hand\n%s\nnot\n%s\nof %+v", got, want, rec)
		}
	}
}

// TestAppendAllocatesNothing: a line costs no memory, unless there is something in it to escape.
func TestAppendAllocatesNothing(t *testing.T) {
	e, buf, end := newEncoder(testOrigin), make([]byte, 0, 1<<14), Head{Seq: 9, Hash: noHash}.link()
	rec := sample()[1]
	rec.Event.File.Path = "/srv/uploads/größe/eicar.com"
	if n := testing.AllocsPerRun(100, func() {
		buf = e.appendActivity(buf[:0], &rec, end)
		end = end.next(buf)
	}); n != 0 {
		t.Errorf("%v allocations a line", n)
	}
}

// TestOneWriteForManyRecords: what is given in one call takes one write, and one wake-up of the drain.
func TestOneWriteForManyRecords(t *testing.T) {
	var d counted
	j, err := open(t.TempDir(), Limits{}, environment{disk: &d, origin: testOrigin, now: time.Now, every: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	recs := make([]event.Record, 30)
	for i := range recs {
		recs[i] = plain(uint64(i + 1))
	}
	j.Append(recs...)
	stop(t, j)
	if n := d.writes.Load(); n != 1 || j.Head().Seq != uint64(len(recs)) {
		t.Errorf("%d writes for %d lines", n, j.Head().Seq)
	}
}
