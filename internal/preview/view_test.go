package preview

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/keepout-security/keepout/internal/fleet/fleetpb"
)

// fleetOf is a view of ten hosts, the first two in ring 0, the last two in the control group.
func fleetOf(status string, granted uint32, releases ...int) *view {
	v := &view{rollout: &fleetpb.Rollout{Status: status, Reason: "crash: seen twice", Rings: []*fleetpb.Ring{
		{Ring: 0, Role: "ring", Members: 2, Window: 2, Granted: granted},
		{Ring: 1, Role: "ring", Members: 6},
		{Ring: 2, Role: "control", Members: 2},
	}}}
	for i := range 10 {
		h := hostView{name: fmt.Sprintf("host%02d", i+1), release: 2}
		switch {
		case i >= 8:
			h.ring = 2
		case i >= 2:
			h.ring = 1
		}
		if i < len(releases) {
			h.release = releases[i]
		}
		v.hosts = append(v.hosts, h)
	}
	return v
}

func TestRemarks(t *testing.T) {
	t.Parallel()
	with := func(v *view, change func(*view)) *view { change(v); return v }
	quiet := fleetOf("running", 0)
	for name, c := range map[string]struct {
		was, now *view
		want     []string
	}{
		"nothing":   {was: quiet, now: fleetOf("running", 0)},
		"no answer": {was: quiet, now: with(fleetOf("", 0), func(v *view) { v.rollout = quiet.rollout })},
		"not begun": {
			was: with(fleetOf("", 0), func(v *view) { v.rollout = nil }), now: quiet,
			want: []string{"ring 0 opens: 2 hosts"},
		},
		"activated": {
			was: quiet, now: fleetOf("running", 2, 3, 3), want: []string{"ring 0: host01, host02 are on release 3"},
		},
		"one of them": {was: quiet, now: fleetOf("running", 2, 2, 3), want: []string{"ring 0: host02 is on release 3"}},
		"went down": {
			was: fleetOf("running", 2, 3, 3),
			now: with(fleetOf("running", 2, 0, 3), func(v *view) {
				v.hosts[0].restarts, v.hosts[0].cause = 1, "exit status 2"
			}),
			want: []string{"host01: the engine ended: exit status 2"},
		},
		"halted": {
			was: fleetOf("running", 2, 0, 0), now: fleetOf(halted, 2, 0, 0),
			want: []string{"HALTED: crash: seen twice"},
		},
		"back": {
			was: fleetOf(halted, 2, 0, 3), now: fleetOf(halted, 2), want: []string{"host01, host02 are back on release 2"},
		},
		"confirmed": {
			was:  fleetOf("running", 2, 3, 3),
			now:  with(fleetOf("running", 2, 3, 3), func(v *view) { v.rollout.Rings[0].Confirmed = 2 }),
			want: []string{"ring 0: 2 of 2 confirmed"},
		},
		"silent": {
			was:  fleetOf("running", 2, 3, 3),
			now:  with(fleetOf("running", 2, 3, 3), func(v *view) { v.rollout.Rings[0].Silent = 1 }),
			want: []string{"ring 0: 1 silent"},
		},
		"many": {
			was: quiet, now: fleetOf("running", 10, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3),
			want: []string{
				"ring 0: host01, host02 are on release 3",
				"ring 1: host03, host04, host05, host06, host07, host08 are on release 3",
				"control group: host09, host10 are on release 3",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got []string
			for _, r := range remarks(c.was, c.now, 3) {
				got = append(got, r.text)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
		})
	}
}

func TestRows(t *testing.T) {
	t.Parallel()
	mark := func(_, text string) string { return text }
	got := strings.Join(rows(fleetOf("running", 2, 0, 3), 3, true, mark), "\n")
	want := `
   RING           HOSTS  GRANTED  SOAKING  CONFIRMED  SILENT  BACK
   ring 0             2        2        0          0       0     0
   ring 1             6        0        0          0       0     0
   control group      2        0        0          0       0     0
   hosts  ✗322222222
          8 on release 2, 1 on release 3, 1 without an engine`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for _, l := range strings.Split(got, "\n") {
		if n := len([]rune(l)); n >= minWidth {
			t.Errorf("%d columns in %q: it would wrap on a terminal of %d", n, l, minWidth)
		}
	}
}

// TestScreen: on a terminal the table is replaced, once for all lines; elsewhere it is written when it stays, and no
// control character is.
func TestScreen(t *testing.T) {
	t.Parallel()
	for _, width := range []int{0, 100} {
		var b bytes.Buffer
		s := &screen{out: &b, width: width, paint: func(_, text string) string { return text }}
		s.show([]string{"first"}, []string{"a", "b"})
		s.show(nil, []string{"a", "b"})
		s.show([]string{"second"}, []string{"a", "c"})
		s.leave([]string{"a", "d"})
		s.line("end")
		want := "first\nsecond\na\nd\nend\n"
		if width > 0 {
			const up = "\x1b[2A\x1b[J"
			want = "first\na\nb\n" + up + "second\na\nc\n" + up + "a\nd\nend\n"
		}
		if b.String() != want {
			t.Errorf("width %d: got %q, want %q", width, b.String(), want)
		}
	}
}

func TestCommandsAreShort(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	s := &screen{out: &b, paint: func(_, text string) string { return text }}
	s.command("keepout rollout create --digest sha256:" + strings.Repeat("ab", 32) + " --counter 2")
	if want := "   $ keepout rollout create --digest sha256:abababababab… --counter 2\n"; b.String() != want {
		t.Errorf("%q, want %q", b.String(), want)
	}
}

func TestWithoutSchema(t *testing.T) {
	t.Parallel()
	before := "id: x\nhealth: {heartbeat: 1s}\ncontent_schema:   # fields\n  files:\n    - a\n# a note\n      - b\n" +
		"executable_sha256: c\n"
	want := "id: x\nhealth: {heartbeat: 1s}\nexecutable_sha256: c\n"
	if got := string(withoutSchema([]byte(before))); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestShowCheck(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		scenario string
		hosts    int
		ok       bool
	}{
		{ChannelFile, DefaultHosts, true},
		{Silent, MinHosts, true},
		{Healthy, MaxHosts, true},
		{"deny-storm", DefaultHosts, false},
		{"", DefaultHosts, false},
		{Healthy, MinHosts - 1, false},
		{Healthy, MaxHosts + 1, false},
	} {
		o := Show{Scenario: c.scenario, Hosts: c.hosts}
		if err := o.Check(); (err == nil) != c.ok {
			t.Errorf("%q with %d hosts: %v", c.scenario, c.hosts, err)
		}
	}
}
