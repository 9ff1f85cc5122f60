package docket_test

import (
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/docket"
	"github.com/keepout-security/keepout/internal/sensor"
	pb "github.com/keepout-security/keepout/wire/keepoutpb"
)

// wants is what a peer's subscription means, with everything known.
func (p *peer) wants(t event.Type, path string, unsure bool, content string, readable bool) bool {
	size := uint64(len(content))
	below := p.prefix == "" || unsure || path == p.prefix || strings.HasPrefix(path, p.prefix+"/")
	begins := len(p.magic) == 0 || !readable || slices.ContainsFunc(p.magic, func(m []byte) bool {
		return strings.HasPrefix(content, string(m))
	})
	return slices.Contains(p.types, pb.EventType(t)) && size >= p.minSize && (p.maxSize == 0 || size <= p.maxSize) &&
		below && begins
}

// TestCould: finding out about an object step by step, and asking Could before each, comes to the same question as
// finding out everything at once: whoever would be asked is asked, and nobody else.
func TestCould(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	opens := []pb.EventType{pb.EventType_EVENT_TYPE_OPEN}
	execs := []pb.EventType{pb.EventType_EVENT_TYPE_EXEC}
	all := []*peer{
		{types: opens},
		{types: execs},
		{prefix: "/a"},
		{types: opens, prefix: "/b"},
		{minSize: 1},
		{maxSize: 3},
		{types: execs, minSize: 2, prefix: "/a"},
		{magic: [][]byte{[]byte("#!")}},
		{magic: [][]byte{[]byte("#!")}, maxSize: 3},
		{types: []pb.EventType{pb.EventType_EVENT_TYPE_CREATE}},
	}
	for i, p := range all {
		p.script = answering(allow)
		p.join(r, string(rune('a'+i)))
	}
	rapid.Check(t, func(t *rapid.T) {
		var members []*peer
		for _, p := range all {
			if rapid.IntRange(0, 3).Draw(t, "member") == 0 {
				members = append(members, p)
			}
		}
		r.members(members...)
		typ := rapid.SampledFrom([]event.Type{event.Open, event.Exec}).Draw(t, "type")
		path := rapid.SampledFrom([]string{"/a/x", "/b", "/bc", ""}).Draw(t, "path")
		unsure := path == "" || rapid.Bool().Draw(t, "unsure")
		withOpen := typ == event.Exec && rapid.Bool().Draw(t, "with open")
		content := rapid.SampledFrom([]string{"", "x", "#!/bin/sh", "#!", "long enough"}).Draw(t, "content")
		q := r.holding(content)
		readable := cached(q.File)
		want := slices.ContainsFunc(members, func(p *peer) bool {
			return p.wants(typ, path, unsure, content, readable) ||
				withOpen && p.wants(event.Open, path, unsure, content, readable)
		})
		if got := r.stepwise(q, typ, path, unsure, withOpen); got != want {
			t.Fatalf("%v of %q with %q: asked %v, want %v", typ, path, content, got, want)
		}
	})
}

// holding makes a question about an object with a content.
func (r *rig) holding(content string) *sensor.Question {
	r.t.Helper()
	q := r.object("object")
	if _, err := unix.Write(q.File, []byte(content)); err != nil {
		r.t.Fatal(err)
	}
	q.Event.File.Version = q.Version()
	return q
}

// cached reports whether the beginning of a file can be had at once, which depends on its file system.
func cached(file int) bool {
	_, err := unix.Preadv2(file, [][]byte{make([]byte, 1)}, 0, unix.RWF_NOWAIT)
	return err == nil
}

// stepwise does as the sensor does, and reports whether anybody was asked.
func (r *rig) stepwise(q *sensor.Question, typ event.Type, path string, unsure, withOpen bool) bool {
	r.t.Helper()
	ev := &q.Event
	ev.Type, ev.File.Path, ev.File.PathUnsure = typ, "", true
	could := r.d.Wants(typ) && r.d.Could(ev, typ == event.Exec)
	ev.File.Path, ev.File.PathUnsure, q.WithOpen = path, unsure, withOpen
	if !could || !r.d.Could(ev, withOpen) {
		_ = unix.Close(q.File)
		return false
	}
	before := r.d.Totals().Unmatched
	if !r.judge(q) {
		r.t.Error("denied")
	}
	return r.d.Totals().Unmatched == before
}

// TestCouldAbsent: who is down and fails closed is asked about what its manifest names, whatever else is known.
func TestCouldAbsent(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.d.SetMembers([]*docket.Member{{ID: "down", Absent: map[event.Type]bool{event.Open: true}}})
	ev := event.Event{Type: event.Open}
	if !r.d.Could(&ev, false) {
		t.Error("an open could pass it by")
	}
	ev.Type = event.Exec
	if r.d.Could(&ev, false) || !r.d.Could(&ev, true) {
		t.Error("an exec is its business exactly if the open half is judged with it")
	}
}
