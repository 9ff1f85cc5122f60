package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/arbiter"
	"github.com/keepout-security/keepout/internal/control"
	"github.com/keepout-security/keepout/internal/docket"
	"github.com/keepout-security/keepout/internal/health"
	"github.com/keepout-security/keepout/internal/journal"
	"github.com/keepout-security/keepout/internal/roster"
	"github.com/keepout-security/keepout/internal/sensor"
	"github.com/keepout-security/keepout/internal/session"
	"github.com/keepout-security/keepout/internal/supervisor"
)

var updateCommands = flag.Bool("update-commands", false, "write testdata/commands")

// fakeDaemon answers on a real admin socket from fixed data and remembers what it was asked.
type fakeDaemon struct {
	dir     string
	status  control.Status
	records []event.Record

	mu    sync.Mutex
	asked []control.Request
}

// startDaemon serves in a folder with a short name: a socket's path has at most 107 bytes.
func startDaemon(t *testing.T) *fakeDaemon {
	t.Helper()
	dir, err := os.MkdirTemp("", "ko")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	d := &fakeDaemon{dir: dir, status: cannedStatus(), records: cannedRecords(time.UTC)}
	s, err := control.Listen(dir, d.serve)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return d
}

func (d *fakeDaemon) serve(_ context.Context, req control.Request, reply func(control.Reply) error) error {
	d.mu.Lock()
	d.asked = append(d.asked, req)
	d.mu.Unlock()
	switch req.Do {
	case "status":
		return reply(control.Reply{Status: &d.status})
	case "events":
		for i := range d.records {
			if err := reply(control.Reply{Record: &d.records[i]}); err != nil {
				return err
			}
		}
		return nil
	case "explain":
		for i := range d.records {
			if journal.FormatID(d.records[i].Event.ID) == req.Query || d.records[i].Event.File.Path == req.Query {
				return reply(control.Reply{Record: &d.records[i]})
			}
		}
		return health.Problem{
			Code: "KO-2004", Title: fmt.Sprintf("no verdict on %q is kept", req.Query), Severity: health.Failure,
			Fix: "keepout events lists what is",
		}
	case "mode", "allow", "reload":
		return nil
	case "provider":
		if req.Provider == "hashlist" {
			return nil
		}
		return health.Problem{
			Code: "KO-2011", Title: "no such provider", Severity: health.Failure, Fix: "keepout provider list",
		}
	}
	return errors.New("not known")
}

// last is what the daemon was asked most recently.
func (d *fakeDaemon) last() control.Request {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.asked) == 0 {
		return control.Request{}
	}
	return d.asked[len(d.asked)-1]
}

// run runs one command line against the daemon.
func (d *fakeDaemon) run(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	a := &app{out: &out, err: &errs, version: "1.2.3"}
	code = a.run(t.Context(), append([]string{"--run-dir", d.dir}, args...))
	return code, out.String(), errs.String()
}

var digest = strings.Repeat("5eed", 16)

func cannedStatus() control.Status {
	since := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	until := since.Add(2 * time.Second)
	return control.Status{
		Version: "1.2.3", Mode: event.Enforce, Tier: "B", PID: 4711, Since: since, Config: "/etc/keepout/keepout.yaml",
		Problems: []health.Problem{
			{
				Code: "KO-1601", Title: "enforce mode, but no enforcing provider votes", Severity: health.Failure,
				Fix: "enable one",
			},
			{Code: "KO-1501", Title: "for your information", Severity: health.Info},
		},
		Providers: []roster.Status{
			{
				ID: "hashlist", State: supervisor.Running, Mode: event.Enforce, PID: 5001, UID: 60001,
				Engine: "hashlist 1.0", Content: "3 entries", Restarts: 1, Processed: 12,
				Counters: session.Counters{Delivered: 12, Answered: 9, Late: 1, Bypassed: 2, Dropped: 4, Skipped: 3},
				Latency:  docket.Quantiles{P50: 210, P99: 1_300_000},
				Breaker: []docket.BreakerStatus{
					{Type: event.Open, State: arbiter.Open, Since: since, Until: &until, Misses: 5, Bypassed: 6, Openings: 1},
					{Type: event.Exec, Since: since},
				},
				Demoted: &docket.Demotion{
					Why: docket.DenyStorm, Since: since,
					Cause: "hashlist: content denied 14 objects that it had allowed, 9 of them owned by packages, in 3.2s",
				},
			},
			{
				ID: "clamav", State: supervisor.Backoff, Mode: event.Audit, Cause: "signal: killed", RetryMS: 3999,
				Latency: docket.Quantiles{P99: 4200},
			},
		},
		Verdicts: docket.Totals{
			Allowed: 1000, Denied: 2, WouldDeny: 3, Timeout: 4, Unavailable: 5, Unmatched: 6, Notified: 7, InFlight: 8,
		},
		Sensor: sensor.Counters{Unasked: map[event.Reason]uint64{event.ReasonVital: 3, event.ReasonSelf: 1}},
		Watching: []sensor.Filesystem{
			{Path: "/mnt/share", Kind: "nfs", Remote: true, Asks: []event.Type{}},
			{Path: "/srv", Kind: "local", Asks: []event.Type{event.Open, event.Exec}},
		},
		Allowed: []control.Allowance{{SHA256: digest, Until: since.Add(time.Hour), Reason: "needed", Used: 2}},
	}
}

// cannedRecords has one record of each outcome. Text shows local time, JSON shows UTC.
func cannedRecords(zone *time.Location) []event.Record {
	verdicts := []event.Verdict{
		{Outcome: event.Allowed, Allowed: true, Reason: event.ReasonVoted, DecidedBy: "platform"},
		{Outcome: event.Denied, Reason: event.ReasonDenied, DecidedBy: "hashlist", Rule: "deny.txt:3 evil\x1b[2J", Shared: 2},
		{Outcome: event.WouldDeny, Allowed: true, Reason: event.ReasonDenied, DecidedBy: "clamav"},
		{Outcome: event.Timeout, Allowed: true, Reason: event.ReasonDeadline, DecidedBy: "yara"},
		{Outcome: event.Unavailable, Reason: event.ReasonLost, DecidedBy: "yara"},
		{Outcome: event.Allowed, Allowed: true, Reason: event.ReasonAllowance, DecidedBy: "platform", Rule: "needed"},
	}
	var out []event.Record
	for i, v := range verdicts {
		v.Mode, v.Latency = event.Enforce, time.Duration(i*i*i)*1234*time.Microsecond
		v.Ballots = []event.Ballot{
			{
				Provider: "hashlist", Mode: event.Enforce, Counted: true, Reason: event.ReasonVoted,
				Vote:    event.Vote{Action: event.Deny, Confidence: 100, Rule: v.Rule, Content: "3 entries"},
				Latency: 210 * time.Microsecond,
			},
			{Provider: "yara", Mode: event.Audit, Reason: event.ReasonDeadline},
		}
		ev := event.Event{
			ID: 0x19c0ffee00 + uint64(i), Type: event.Types()[i%2], Time: time.Date(2026, 3, 4, 15, 4, 5+i, 678_000_000, zone),
			Actor: event.Process{PID: 100 + int32(i), PPID: 1, UID: 1000, GID: 100, Comm: "sh\n"},
			File:  event.File{Path: fmt.Sprintf("/srv/tool%d\x1b[31m", i), Mode: 0o100755},
		}
		ev.File.Size, ev.File.Ino = 4096, uint64(i)+1
		if v.Outcome == event.Denied {
			ev.File.SHA256 = digest
		}
		out = append(out, event.Record{Event: ev, Verdict: v})
	}
	out[3].Event.File.Path, out[3].Event.Actor.Comm = "", ""
	return out
}

// uptime is the one thing in the output that the clock decides.
var uptime = regexp.MustCompile(` {2}up [0-9hms]+\n`)

// runDirs finds the socket's folder in hints.
var runDirs = regexp.MustCompile(`--run-dir \S+ `)

// golden compares with testdata/commands/name.
func golden(t *testing.T, name, got string) {
	t.Helper()
	got = uptime.ReplaceAllString(got, "  up TIME\n")
	got = runDirs.ReplaceAllString(got, "--run-dir DIR ")
	file := filepath.Join("testdata", "commands", name)
	if *updateCommands {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s is not what is printed; go test ./internal/cli -update-commands writes it.\ngot\n%s\nwant\n%s",
			file, got, want)
	}
}

// plain holds that nothing can move the cursor or change colours of whoever reads it.
func plain(t *testing.T, text string) {
	t.Helper()
	for i, r := range text {
		if r != '\n' && (r < ' ' || r == 0x7f) {
			t.Errorf("control character %#x at byte %d of %q", r, i, text)
		}
	}
}

func TestStatus(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	code, out, errs := d.run(t, "status")
	if code != exitDegraded || errs != "" {
		t.Errorf("code %d, stderr %q", code, errs)
	}
	plain(t, out)
	golden(t, "status.txt", out)

	code, out, errs = d.run(t, "-o", "json", "status")
	if code != exitDegraded || errs != "" {
		t.Errorf("code %d, stderr %q", code, errs)
	}
	golden(t, "status.json", out)
	var got control.Status
	if err := json.Unmarshal([]byte(out), &got); err != nil || !reflect.DeepEqual(got, d.status) {
		t.Errorf("what is printed is not what was sent: %v", err)
	}

	d.status.Problems = d.status.Problems[1:] // information alone is no degradation
	if code, out, _ := d.run(t, "status"); code != exitOK || !strings.HasPrefix(out, "healthy  mode enforce") {
		t.Errorf("code %d, %q", code, out)
	}
	if code, _, _ := d.run(t, "-o", "json", "status"); code != exitOK {
		t.Errorf("code %d", code)
	}
}

func TestEvents(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	d.records = cannedRecords(time.Local)
	code, out, errs := d.run(t, "events", "--denied", "--since", "90s", "-n", "7")
	if code != exitOK || errs != "" {
		t.Errorf("code %d, stderr %q", code, errs)
	}
	plain(t, out)
	golden(t, "events.txt", out)
	if got, want := d.last(), (control.Request{Do: "events", Denied: true, Seconds: 90, Limit: 7}); got != want {
		t.Errorf("asked for %+v, want %+v", got, want)
	}
	d.run(t, "events", "--follow")
	if got, want := d.last(), (control.Request{Do: "events", Follow: true}); got != want {
		t.Errorf("asked for %+v, want %+v", got, want)
	}

	d.records = nil
	if code, out, errs := d.run(t, "events"); code != exitOK || out+errs != "" {
		t.Errorf("no events: code %d, %q, %q", code, out, errs)
	}
}

// TestEventsJSON: one OCSF object a line, and a finding of its own for each denial.
func TestEventsJSON(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	code, out, errs := d.run(t, "events", "-o", "json")
	if code != exitOK || errs != "" {
		t.Errorf("code %d, stderr %q", code, errs)
	}
	plain(t, out)
	classes := map[float64]int{}
	seen := map[string]bool{}
	for line := range strings.Lines(out) {
		var o map[string]any
		if err := json.Unmarshal([]byte(line), &o); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		for _, key := range []string{
			"class_uid", "category_uid", "activity_id", "type_uid", "severity_id", "time", "metadata",
		} {
			if o[key] == nil {
				t.Errorf("no %s in %s", key, line)
			}
		}
		class, _ := o["class_uid"].(float64)
		classes[class]++
		for _, rec := range d.records {
			if id := journal.FormatID(rec.Event.ID); strings.Contains(line, id) {
				seen[id] = true
			}
		}
	}
	if len(seen) != len(d.records) {
		t.Errorf("of %d records, only %v are there", len(d.records), seen)
	}
	if want := map[float64]int{1001: 3, 1007: 3, 2004: 2}; !reflect.DeepEqual(classes, want) {
		t.Errorf("objects by class: %v, want %v", classes, want)
	}
}

func TestExplain(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	for i, want := range []int{exitOK, exitDenied, exitOK, exitOK, exitDenied, exitOK} {
		d.records = cannedRecords(time.Local)
		rec := d.records[i]
		code, out, errs := d.run(t, "explain", journal.FormatID(rec.Event.ID))
		if code != want || errs != "" {
			t.Errorf("%s: code %d, want %d, stderr %q", rec.Verdict.Outcome, code, want, errs)
		}
		plain(t, out)
		golden(t, fmt.Sprintf("explain%d.txt", i), out)

		d.records = cannedRecords(time.UTC)
		code, out, errs = d.run(t, "-o", "json", "explain", journal.FormatID(rec.Event.ID))
		if code != want || errs != "" {
			t.Errorf("%s: code %d, want %d, stderr %q", rec.Verdict.Outcome, code, want, errs)
		}
		plain(t, out)
		if i == 1 {
			golden(t, "explain1.json", out)
		}
	}
	code, out, errs := d.run(t, "explain", "/srv/none")
	if want := "keepout: KO-2004: no verdict on \"/srv/none\" is kept. Next: keepout events lists what is\n"; code !=
		exitFailure || out != "" || errs != want {
		t.Errorf("code %d, %q, %q", code, out, errs)
	}
}

// TestOrders: what is sent, and what is said about it.
func TestOrders(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	for _, c := range []struct {
		args []string
		want control.Request
		said string
	}{
		{
			[]string{"mode", "monitor"},
			control.Request{Do: "mode", Mode: event.Monitor},
			"mode is monitor until the next reload or restart; to keep it, write mode: monitor in the configuration",
		},
		{
			[]string{"allow", digest, "--reason", "needed"},
			control.Request{Do: "allow", SHA256: digest, Seconds: 3600, Reason: "needed"},
			"allowed for 1h0m0s: " + digest,
		},
		{
			[]string{"allow", digest, "--for", "90m", "--reason", "needed"},
			control.Request{Do: "allow", SHA256: digest, Seconds: 5400, Reason: "needed"},
			"allowed for 1h30m0s: " + digest,
		},
		{
			[]string{"provider", "enable", "hashlist"},
			control.Request{Do: "provider", Provider: "hashlist", Enable: true},
			"hashlist is enabled",
		},
		{
			[]string{"provider", "disable", "hashlist"},
			control.Request{Do: "provider", Provider: "hashlist"},
			"hashlist is disabled",
		},
		{[]string{"config", "reload"}, control.Request{Do: "reload"}, "reloaded; the mode is the configuration's " +
			"again; new engines and contents are on trial first: keepout provider versions"},
	} {
		code, out, errs := d.run(t, c.args...)
		if code != exitOK || out != c.said+"\n" || errs != "" {
			t.Errorf("%v: code %d, %q, %q", c.args, code, out, errs)
		}
		if got := d.last(); got != c.want {
			t.Errorf("%v: asked for %+v, want %+v", c.args, got, c.want)
		}
		code, out, errs = d.run(t, append([]string{"-o", "json"}, c.args...)...)
		var got map[string]string
		if err := json.Unmarshal([]byte(out), &got); err != nil || code != exitOK || got["done"] != c.said || errs != "" {
			t.Errorf("%v as JSON: code %d, %q, %q, %v", c.args, code, out, errs, err)
		}
	}
	code, out, errs := d.run(t, "provider", "enable", "none")
	if code != exitFailure || out != "" || errs != "keepout: KO-2011: no such provider. Next: keepout provider list\n" {
		t.Errorf("a refusal: code %d, %q, %q", code, out, errs)
	}
}

func TestProviderList(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	code, out, errs := d.run(t, "provider", "list")
	if code != exitOK || errs != "" {
		t.Errorf("code %d, stderr %q", code, errs)
	}
	plain(t, out)
	golden(t, "providers.txt", out)
	code, out, _ = d.run(t, "-o", "json", "provider", "list")
	var got []roster.Status
	err := json.Unmarshal([]byte(out), &got)
	if err != nil || code != exitOK || !reflect.DeepEqual(got, d.status.Providers) {
		t.Errorf("code %d, %v, %+v", code, err, got)
	}
	d.status.Providers = nil
	if code, out, errs := d.run(t, "provider", "list"); code != exitOK || out+errs != "" {
		t.Errorf("no providers: code %d, %q, %q", code, out, errs)
	}
}

// TestPaint: colour goes around the same words and never shifts columns of the plain output.
func TestPaint(t *testing.T) {
	t.Parallel()
	sgr := regexp.MustCompile("\x1b\\[[0-9;]*m")
	coloured := &app{paint: paint{on: true}}
	bare := &app{}
	for _, rec := range cannedRecords(time.UTC) {
		with, without := coloured.line(&rec), bare.line(&rec)
		if !strings.Contains(with, "\x1b[") || sgr.ReplaceAllString(with, "") != without {
			t.Errorf("with colour %q, without %q", with, without)
		}
	}
	if got := (paint{on: true}).in(red, ""); got != "" {
		t.Errorf("nothing in red is %q", got)
	}
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if paintFor(f).on {
		t.Error("a file gets colours")
	}
}

func TestMicros(t *testing.T) {
	t.Parallel()
	for us, want := range map[int64]string{
		0: "-", 1: "1µs", 999: "999µs", 1000: "1.0ms", 1550: "1.6ms", 999_900: "999.9ms",
		1_000_000: "1.0s", 61_000_000: "61.0s",
	} {
		if got := micros(us); got != want {
			t.Errorf("%d is %q, want %q", us, got, want)
		}
	}
}
