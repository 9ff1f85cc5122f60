package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	tea "charm.land/bubbletea/v2"
	"charm.land/lipgloss/v2"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/arbiter"
	"github.com/keepout-security/keepout/internal/control"
	"github.com/keepout-security/keepout/internal/docket"
	"github.com/keepout-security/keepout/internal/health"
	"github.com/keepout-security/keepout/internal/roster"
	"github.com/keepout-security/keepout/internal/session"
	"github.com/keepout-security/keepout/internal/supervisor"
)

var updateTop = flag.Bool("update-top", false, "write testdata/top")

// topStart is a local time, so that what the view prints is the same everywhere.
var topStart = time.Date(2026, 3, 4, 15, 4, 5, 0, time.Local)

func topStatus() *control.Status {
	return &control.Status{
		Mode: event.Enforce, Tier: "B", PID: 4711, Since: topStart,
		Verdicts: docket.Totals{Allowed: 1234567, Denied: 12, Unavailable: 3, InFlight: 2},
		Problems: []health.Problem{{
			Code: "KO-1301", Title: "clamav does not vote: signal: killed", Severity: health.Warning,
			Fix: "wait, or keepout provider list",
		}},
		Providers: []roster.Status{
			{
				ID: "hashlist", State: supervisor.Running, Mode: event.Enforce, PID: 5001,
				Counters: session.Counters{Delivered: 1234570, Answered: 1234569, Late: 1},
				Latency:  docket.Quantiles{P50: 210, P99: 1300},
				Breaker:  []docket.BreakerStatus{{Type: event.Open, Misses: 1}, {Type: event.Exec}},
			},
			{
				ID: "clamav", State: supervisor.Backoff, Mode: event.Enforce, Cause: "signal: killed",
				Counters: session.Counters{Delivered: 99, Answered: 90, Bypassed: 9},
				Latency:  docket.Quantiles{P50: 1500, P99: 999_900},
			},
			{ID: "a-provider-with-a-long-name", State: supervisor.Loading, Mode: event.Audit},
		},
	}
}

func topRecord(id uint64, outcome event.Outcome, path string) event.Record {
	r := event.Record{
		Event: event.Event{
			ID: id, Type: event.Open, Time: topStart.Add(time.Duration(id) * time.Second),
			Actor: event.Process{PID: 100 + int32(id), Comm: "cat"}, File: event.File{Path: path},
		},
		Verdict: event.Verdict{
			Outcome: outcome, Allowed: outcome == event.Allowed, Reason: event.ReasonVoted, DecidedBy: "hashlist",
			Mode: event.Enforce, Latency: 700 * time.Microsecond,
			Ballots: []event.Ballot{
				{
					Provider: "hashlist", Mode: event.Enforce, Counted: true, Reason: event.ReasonVoted,
					Vote: event.Vote{Action: event.Allow}, Latency: 400 * time.Microsecond,
				},
				{Provider: "clamav", Mode: event.Enforce, Reason: event.ReasonCancelled, Latency: time.Millisecond},
			},
		},
	}
	if outcome == event.Denied {
		r.Verdict.Reason, r.Verdict.Rule = event.ReasonDenied, "Eicar-Test-File"
		r.Verdict.Ballots[0].Vote = event.Vote{Action: event.Deny, Rule: "Eicar-Test-File"}
	}
	return r
}

func topRecords() recordsMsg {
	return recordsMsg{fresh: true, records: []event.Record{
		topRecord(1, event.Allowed, "/srv/notes/one.txt"),
		topRecord(2, event.Denied, "/srv/incoming/a/rather/long/way/down/to/eicar.com"),
		topRecord(3, event.Unavailable, "/srv/x"),
		topRecord(4, event.Allowed, "/srv/notes/with\x1b[31mcolour\n"),
	}}
}

// topAfter applies messages to a new view without colour.
func topAfter(msgs ...tea.Msg) topModel {
	var m tea.Model = newTopModel(paint{})
	for _, msg := range msgs {
		m, _ = m.Update(msg)
	}
	return m.(topModel)
}

func key(text string) tea.Msg {
	switch text {
	case "down":
		return tea.KeyPressMsg{Code: tea.KeyDown}
	case "up":
		return tea.KeyPressMsg{Code: tea.KeyUp}
	case "esc":
		return tea.KeyPressMsg{Code: tea.KeyEscape}
	}
	code, _ := utf8.DecodeRuneInString(text)
	return tea.KeyPressMsg{Code: code, Text: text}
}

func TestTopView(t *testing.T) {
	status := statusMsg{status: topStatus(), at: topStart.Add(90 * time.Second)}
	small, large := tea.WindowSizeMsg{Width: 80, Height: 24}, tea.WindowSizeMsg{Width: 120, Height: 30}
	for name, msgs := range map[string][]tea.Msg{
		"connecting": {small},
		"80x24":      {small, status, topRecords()},
		"120x30":     {large, status, topRecords()},
		"explain":    {small, status, topRecords(), key("d"), key("down"), key("e")},
		"away":       {small, status, topRecords(), statusMsg{err: errors.New("gone"), at: topStart}},
	} {
		t.Run(name, func(t *testing.T) {
			got := topAfter(msgs...).render() + "\n"
			file := filepath.Join("testdata", "top", name+".golden")
			if *updateTop {
				if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil || got != string(want) {
				t.Errorf("%v; go test ./internal/cli -run TestTopView -update-top; got\n%s", err, got)
			}
		})
	}
}

// TestTopFits: whatever the terminal's size, the view fills it exactly and nothing wraps.
func TestTopFits(t *testing.T) {
	t.Parallel()
	for _, ink := range []paint{{}, {on: true}} {
		for width := 1; width <= 130; width += 3 {
			for height := 1; height <= 40; height += 3 {
				m := topAfter(statusMsg{status: topStatus(), at: topStart}, topRecords(), key("down"), key("e"),
					tea.WindowSizeMsg{Width: width, Height: height})
				m.paint = ink
				lines := strings.Split(m.render(), "\n")
				if len(lines) != height {
					t.Fatalf("%dx%d: %d lines", width, height, len(lines))
				}
				for _, line := range lines {
					if w := lipgloss.Width(line); w > width {
						t.Fatalf("%dx%d: a line of %d columns: %q", width, height, w, line)
					}
				}
			}
		}
	}
}

func TestTopColour(t *testing.T) {
	t.Parallel()
	m := topAfter(statusMsg{status: topStatus(), at: topStart}, topRecords())
	if plain := m.render(); strings.Contains(plain, "\x1b") {
		t.Errorf("an escape sequence without colour: %q", plain)
	}
	m.paint.on = true
	for _, want := range []string{
		"\x1b[31;1mDENIED", "\x1b[32mALLOWED", "\x1b[31;1mbackoff", "\x1b[32mrunning", "\x1b[33mdegraded",
	} {
		if !strings.Contains(m.render(), want) {
			t.Errorf("no %q", want)
		}
	}
	if strings.Contains(m.render(), "\x1b[31mcolour") {
		t.Error("a path's own escape sequence reaches the terminal")
	}
}

func TestTopKeys(t *testing.T) {
	t.Parallel()
	later := recordsMsg{records: []event.Record{topRecord(9, event.Denied, "/srv/late")}}
	for _, c := range []struct {
		name      string
		msgs      []tea.Msg
		want, not string
	}{
		{"all", nil, "one.txt", "only"},
		{"denied", []tea.Msg{key("d")}, "eicar.com", "one.txt"},
		{"denied twice", []tea.Msg{key("d"), key("d")}, "one.txt", "d all"},
		{"later", []tea.Msg{later}, "/srv/late", "paused"},
		{"paused", []tea.Msg{key("p"), later}, "paused", "/srv/late"},
		{"goes on", []tea.Msg{key("p"), later, key("p")}, "/srv/late", "paused"},
		{"selection stays", []tea.Msg{key("down"), key("down"), later}, "> 15:04:08", "> 15:04:14"},
		{"not below the last", []tea.Msg{key("d"), key("down"), key("down"), key("down")}, "> 15:04:07", "zzz"},
		{"explains the newest", []tea.Msg{key("e")}, "reason voted", "e explain"},
		{"escape closes", []tea.Msg{key("e"), key("esc")}, "e explain", "reason voted"},
		{"skipped", []tea.Msg{recordsMsg{skipped: 7}}, "7 came too fast", "zzz"},
	} {
		msgs := append([]tea.Msg{
			tea.WindowSizeMsg{Width: 100, Height: 30}, statusMsg{status: topStatus(), at: topStart}, topRecords(),
		}, c.msgs...)
		if c.name == "all" {
			c.not = "paused"
		}
		got := topAfter(msgs...).render()
		if !strings.Contains(got, c.want) || strings.Contains(got, c.not) {
			t.Errorf("%s: want %q and no %q in\n%s", c.name, c.want, c.not, got)
		}
	}
	for _, quit := range []tea.Msg{key("q"), tea.KeyPressMsg{Code: 'c', Mod: tea.ModCtrl}} {
		if _, cmd := newTopModel(paint{}).Update(quit); cmd == nil {
			t.Errorf("%v does not quit", quit)
		}
	}
}

func TestTopRate(t *testing.T) {
	t.Parallel()
	at := func(pid int, allowed uint64, second int) tea.Msg {
		return statusMsg{
			status: &control.Status{PID: pid, Verdicts: docket.Totals{Allowed: allowed}},
			at:     topStart.Add(time.Duration(second) * time.Second),
		}
	}
	for want, msgs := range map[string][]tea.Msg{
		"0/s":  {at(1, 1000, 0)},
		"50/s": {at(1, 1000, 0), at(1, 1100, 2)},
		"-":    {at(1, 1000, 0), at(2, 1100, 2)}, // another daemon, whose numbers begin anew
	} {
		if want == "-" {
			want = "0/s"
		}
		if got := topAfter(msgs...).totals(); !strings.HasPrefix(got, want+" ") {
			t.Errorf("%q, want %s", got, want)
		}
	}
}

func TestTopRemembersSoMany(t *testing.T) {
	t.Parallel()
	m := topAfter()
	for i := range 3 * topKeep {
		m = m.take(recordsMsg{records: []event.Record{topRecord(uint64(i+1), event.Allowed, "/srv/x")}})
	}
	if len(m.records) != topKeep || m.records[0].Event.ID != 3*topKeep {
		t.Errorf("%d records, newest %d", len(m.records), m.records[0].Event.ID)
	}
	m = m.take(topRecords())
	if len(m.records) != 4 {
		t.Errorf("%d records after a new connection, which brings what is to be known", len(m.records))
	}
}

func TestTopBatch(t *testing.T) {
	t.Parallel()
	b := topBatch{fresh: true}
	if _, some := b.take(); some {
		t.Error("an empty batch is delivered")
	}
	for i := range topBacklog + 5 {
		r := topRecord(uint64(i+1), event.Allowed, "/srv/x")
		b.add(control.Reply{Record: &r, Lost: 1})
	}
	msg, some := b.take()
	if !some || !msg.fresh || len(msg.records) != topBacklog || msg.skipped != topBacklog+10 ||
		msg.records[0].Event.ID != 6 {
		t.Errorf("%d records, %d skipped, fresh %v", len(msg.records), msg.skipped, msg.fresh)
	}
	r := topRecord(1, event.Allowed, "/srv/x")
	b.add(control.Reply{Record: &r})
	if msg, _ := b.take(); msg.fresh || len(msg.records) != 1 || msg.skipped != 0 {
		t.Errorf("second delivery: %+v", msg)
	}
}

// TestTopReconnects: the daemon goes away and comes back; the view hears of both.
func TestTopReconnects(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	serve := func(ctx context.Context, req control.Request, reply func(control.Reply) error) error {
		if req.Do == "status" {
			return reply(control.Reply{Status: topStatus()})
		}
		r := topRecord(1, event.Denied, "/srv/x")
		if err := reply(control.Reply{Record: &r}); err != nil {
			return err
		}
		<-ctx.Done()
		return nil
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	heard := make(chan tea.Msg)
	feed := topFeed{app: app{runDir: dir}, send: func(msg tea.Msg) {
		select {
		case heard <- msg:
		case <-ctx.Done():
		}
	}}
	over := make(chan struct{}, 2)
	go func() { feed.poll(ctx); over <- struct{}{} }()
	go func() { feed.follow(ctx); over <- struct{}{} }()
	wait := func(what string, is func(tea.Msg) bool) {
		t.Helper()
		for {
			select {
			case msg := <-heard:
				if is(msg) {
					return
				}
			case <-ctx.Done():
				t.Fatalf("never heard of %s", what)
			}
		}
	}
	fresh := func(msg tea.Msg) bool { m, ok := msg.(recordsMsg); return ok && m.fresh && len(m.records) == 1 }
	away := func(msg tea.Msg) bool { m, ok := msg.(statusMsg); return ok && m.err != nil }
	there := func(msg tea.Msg) bool { m, ok := msg.(statusMsg); return ok && m.status != nil }
	for round := range 2 {
		wait(fmt.Sprintf("no daemon, round %d", round), away)
		server, err := control.Listen(dir, serve)
		if err != nil {
			t.Fatal(err)
		}
		wait("the first events", fresh)
		wait("a status", there)
		if err := server.Close(); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	<-over
	<-over
}

func TestCount(t *testing.T) {
	t.Parallel()
	for n, want := range map[uint64]string{
		0: "0", 999_999: "999999", 1_234_567: "1.235M", 12_345_678_901: "12.35G", 1 << 63: "9223P",
	} {
		if got := count(n); got != want || len(got) > 6 {
			t.Errorf("count(%d) = %q, want %q", n, got, want)
		}
	}
}

// TestStanding: the one word for a provider says first what keeps its votes from counting.
func TestStanding(t *testing.T) {
	t.Parallel()
	demoted := &docket.Demotion{Why: docket.Slow}
	half := []docket.BreakerStatus{{Type: event.Open}, {Type: event.Exec, State: arbiter.HalfOpen}}
	for want, p := range map[string]roster.Status{
		"running":  {State: supervisor.Running, Breaker: half[:1]},
		"degraded": {State: supervisor.Degraded},
		"demoted":  {State: supervisor.Running, Demoted: demoted},
		"bypassed": {State: supervisor.Degraded, Demoted: demoted, Breaker: half},
		"backoff":  {State: supervisor.Backoff, Demoted: demoted, Breaker: half},
	} {
		if got := standing(&p); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
