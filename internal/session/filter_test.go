package session

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/keepout-security/keepout/event"
	pb "github.com/keepout-security/keepout/wire/keepoutpb"
)

func TestFilterMatches(t *testing.T) {
	t.Parallel()
	opens := []pb.EventType{pb.EventType_EVENT_TYPE_OPEN}
	elf := [][]byte{[]byte("\x7fELF"), []byte("#!")}
	under := func(dir string) *pb.Subscribe { return &pb.Subscribe{Events: opens, SelectPrefix: []string{dir}} }
	programs := &pb.Subscribe{Events: opens, Magic: elf}
	for _, c := range []struct {
		name string
		sub  *pb.Subscribe
		typ  event.Type
		path string
		size int64
		head []byte
		want bool
	}{
		{"selected type", &pb.Subscribe{Events: opens}, event.Open, "/a", 1, nil, true},
		{"other type", &pb.Subscribe{Events: opens}, event.Exec, "/a", 1, nil, false},
		{"nothing selected", &pb.Subscribe{}, event.Open, "/a", 1, nil, false},
		{"under", under("/srv/"), event.Open, "/srv/x/y", 1, nil, true},
		{"itself", under("/srv"), event.Open, "/srv", 1, nil, true},
		{"whole components", under("/srv"), event.Open, "/srvx/y", 1, nil, false},
		{"root selects all", under("/"), event.Open, "/any", 1, nil, true},
		{"no path", under("/srv"), event.Open, "", 1, nil, false},
		{"muted below selected", &pb.Subscribe{
			Events: opens, SelectPrefix: []string{"/srv"}, MutePrefix: []string{"/srv/tmp"},
		}, event.Open, "/srv/tmp/x", 1, nil, false},
		{"too small", &pb.Subscribe{Events: opens, MinSize: 2}, event.Open, "/a", 1, nil, false},
		{"just large enough", &pb.Subscribe{Events: opens, MinSize: 2}, event.Open, "/a", 2, nil, true},
		{"just small enough", &pb.Subscribe{Events: opens, MaxSize: 2}, event.Open, "/a", 2, nil, true},
		{"too large", &pb.Subscribe{Events: opens, MaxSize: 2}, event.Open, "/a", 3, nil, false},
		{"absurd minimum", &pb.Subscribe{Events: opens, MinSize: 1<<64 - 1}, event.Open, "/a", 3, nil, false},
		{"magic", programs, event.Open, "/a", 9, []byte("#!/bin/sh"), true},
		{"other magic", programs, event.Open, "/a", 9, []byte("text"), false},
		{"shorter than the magic", programs, event.Open, "/a", 1, []byte("#"), false},
		{"unreadable is delivered", programs, event.Open, "/a", 9, nil, true},
		{"empty is not unreadable", programs, event.Open, "/a", 0, []byte{}, false},
		{"notify events have no size and magic", &pb.Subscribe{
			Events: []pb.EventType{pb.EventType_EVENT_TYPE_CREATE}, Magic: elf, MinSize: 100,
		}, event.Create, "/a", 0, nil, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ev := &event.Event{File: event.File{Path: c.path, Version: event.Version{Size: c.size}}}
			if got := newFilter(c.sub).Matches(c.typ, ev, c.head); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

// TestPrefixSet compares the set with asking every prefix in turn.
func TestPrefixSet(t *testing.T) {
	t.Parallel()
	path := rapid.Custom(func(t *rapid.T) string {
		parts := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "ab", ""}), 0, 4).Draw(t, "parts")
		return "/" + strings.Join(parts, "/")
	})
	rapid.Check(t, func(t *rapid.T) {
		prefixes := rapid.SliceOfN(path, 0, 4).Draw(t, "prefixes")
		p := path.Draw(t, "path")
		want := false
		for _, prefix := range prefixes {
			prefix = strings.TrimRight(prefix, "/")
			want = want || p == prefix || strings.HasPrefix(p, prefix+"/")
		}
		if got := newPrefixSet(prefixes).covers(p); got != want {
			t.Fatalf("%q covers %q: %v, want %v", prefixes, p, got, want)
		}
	})
}

// TestMatchesWithLess: what is wanted with everything known is wanted while the path and the first bytes are not known
// yet, and while only the latter are not. So whoever finds out things one after the other may stop at the first no.
func TestMatchesWithLess(t *testing.T) {
	t.Parallel()
	dirs := rapid.SliceOfN(rapid.SampledFrom([]string{"/", "/a", "/a/b", "/c"}), 0, 2)
	size := rapid.Uint64Range(0, 4)
	rapid.Check(t, func(t *rapid.T) {
		m := &pb.Subscribe{
			SelectPrefix: dirs.Draw(t, "select"), MutePrefix: dirs.Draw(t, "mute"),
			MinSize: size.Draw(t, "min"), MaxSize: size.Draw(t, "max"),
		}
		for _, typ := range event.Types() {
			if rapid.Bool().Draw(t, typ.String()) {
				m.Events = append(m.Events, pb.EventType(typ))
			}
		}
		if rapid.Bool().Draw(t, "magic") {
			m.Magic = [][]byte{[]byte("#!")}
		}
		f := newFilter(m)
		typ := rapid.SampledFrom(event.Types()).Draw(t, "type")
		head := rapid.SampledFrom([][]byte{nil, {}, []byte("#!"), []byte("text")}).Draw(t, "head")
		full := event.Event{Type: typ}
		full.File.Path = rapid.SampledFrom([]string{"", "/a", "/a/b/x", "/c/x", "/d"}).Draw(t, "path")
		full.File.PathUnsure = rapid.Bool().Draw(t, "unsure")
		full.File.Size = int64(size.Draw(t, "size"))
		unplaced := full
		unplaced.File.Path, unplaced.File.PathUnsure = "", true
		if f.Matches(typ, &full, head) && (!f.Matches(typ, &full, nil) || !f.Matches(typ, &unplaced, nil)) {
			t.Fatalf("%+v wants %+v, and would not with less known", m, full)
		}
	})
}
