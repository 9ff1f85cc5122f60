package main

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/provider"
	"github.com/keepout-security/keepout/providers/internal/enginetest"
	pb "github.com/keepout-security/keepout/wire/keepoutpb"
)

// folder is a directory with a short path, because a socket's is bounded.
func folder(t *testing.T) string {
	t.Helper()
	path, err := os.MkdirTemp("", "ko")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(path); err != nil {
			t.Error(err)
		}
	})
	return path
}

// malformed is what becomes of the last words of fakeClamd.
const malformed = "clamd ended while loading: Malformed database (exit status 1)"

// fakeSettings is a content folder with the signature Bad, for fakeClamd.
func fakeSettings(t *testing.T) provider.Settings {
	t.Helper()
	s := provider.Settings{Content: folder(t), StateDir: folder(t)}
	enginetest.WriteFile(t, s.Content, "a.hdb", []byte("Bad"))
	return s
}

// withFake returns an engine whose clamd is this test binary.
func withFake(t *testing.T) *antivirus {
	t.Helper()
	a := &antivirus{find: os.Executable}
	t.Cleanup(a.close)
	return a
}

// asker returns a function that asks about a file with the given content.
func asker(t *testing.T, host *enginetest.Host) func(content string) event.Vote {
	t.Helper()
	files := t.TempDir()
	return func(content string) event.Vote {
		t.Helper()
		v := host.Ask(enginetest.WriteFile(t, files, "f", []byte(content)), enginetest.Patience)
		v.Content = ""
		return v
	}
}

func ready(content string) func(*pb.Heartbeat) bool {
	return func(b *pb.Heartbeat) bool {
		return b.GetState() == pb.State_STATE_READY && strings.Contains(b.GetContent(), content)
	}
}

func degraded(detail string) func(*pb.Heartbeat) bool {
	return func(b *pb.Heartbeat) bool {
		return b.GetState() == pb.State_STATE_DEGRADED && strings.Contains(b.GetDetail(), detail)
	}
}

func TestVotes(t *testing.T) {
	host := enginetest.Start(t, newEngine(withFake(t)), fakeSettings(t))
	ask := asker(t, host)
	without := func(reason string) event.Vote {
		return event.Vote{Action: event.Abstain, Confidence: event.Certain, Rule: reason}
	}
	for content, want := range map[string]event.Vote{
		"good":        provider.Allow(),
		"Bad":         provider.Deny("Bad"),
		"fail":        without("Can't allocate memory"),
		"limit":       without("Heuristics.Limits.Exceeded.MaxScanTime"),
		"garbage":     without("clamd gave an unknown answer: more than 4096 bytes"),
		"misnumbered": without(`clamd gave an unknown answer: to question 1: "91: fd[7]: OK"`),
	} {
		if got := ask(content); got != want {
			t.Errorf("vote on %s = %+v, want %+v", content, got, want)
		}
	}
	s := host.Subscription()
	if s.GetAccess() != pb.Access_ACCESS_DESCRIPTOR || len(s.GetEvents()) != 2 || s.GetMaxSize() != maxContent {
		t.Errorf("subscription %v", s)
	}
	host.AwaitHeartbeat("content version", ready("ClamAV 9.9.9/27800, 1 file, "))
}

// TestScansRunTogether: as many files are with clamd at one time as there are workers. None of these is answered before
// all of them are there.
func TestScansRunTogether(t *testing.T) {
	host := enginetest.Start(t, newEngine(withFake(t)), fakeSettings(t))
	path := enginetest.WriteFile(t, t.TempDir(), "f", []byte("together"))
	for i, v := range host.AskAll(enginetest.Patience, slices.Repeat([]string{path}, workers)...) {
		if v.Action != event.Allow {
			t.Errorf("vote %d: %+v", i, v)
		}
	}
}

// TestSessions: one session serves many files, and one that clamd has ended or that has been idle for long is replaced
// without anybody noticing.
func TestSessions(t *testing.T) {
	a := withFake(t)
	host := enginetest.Start(t, newEngine(a), fakeSettings(t))
	ask := asker(t, host)
	for i := range 20 {
		if ask("good") != provider.Allow() || ask("Bad") != provider.Deny("Bad") {
			t.Fatalf("round %d: wrong vote", i)
		}
		if i%5 == 4 && ask("last") != provider.Allow() {
			t.Fatalf("round %d: wrong last vote", i)
		}
		if i == 10 {
			l := a.current.Load().lines.take()
			if l == nil || l.asked < 2 {
				t.Fatalf("the session is not used again: %+v", l)
			}
			l.idle = time.Now().Add(-maxIdle)
			a.current.Load().lines <- l
		}
	}
}

func TestDeadline(t *testing.T) {
	host := enginetest.Start(t, newEngine(withFake(t)), fakeSettings(t))
	path := enginetest.WriteFile(t, t.TempDir(), "f", []byte("hang"))
	start := time.Now()
	if got := host.Ask(path, 100*time.Millisecond); got.Action != event.Abstain {
		t.Errorf("vote %+v", got)
	}
	if took := time.Since(start); took < 100*time.Millisecond || took > enginetest.Patience/2 {
		t.Errorf("a hanging scan with a budget of 100 ms took %v", took)
	}
}

func TestFailedScansDegrade(t *testing.T) {
	host := enginetest.Start(t, newEngine(withFake(t)), fakeSettings(t))
	ask := asker(t, host)
	for range maxFailures {
		ask("fail")
	}
	host.AwaitHeartbeat("degraded heartbeat", degraded("3 scans in a row failed: Can't allocate memory"))
	ask("good")
	host.AwaitHeartbeat("ready heartbeat", ready(""))
}

// TestRestart holds that the death of clamd costs the votes until it is back, and nothing else.
func TestRestart(t *testing.T) {
	a := withFake(t)
	host := enginetest.Start(t, newEngine(a), fakeSettings(t))
	ask := asker(t, host)
	if got := ask("die"); got.Action != event.Abstain {
		t.Errorf("vote during the death of clamd: %+v", got)
	}
	host.AwaitHeartbeat("degraded heartbeat", degraded("clamd is restarting: it ended: (exit status 3)"))
	host.AwaitHeartbeat("ready heartbeat", ready(""))
	if got := ask("Bad"); got != provider.Deny("Bad") {
		t.Errorf("vote after the restart: %+v", got)
	}
}

// TestReload holds that a refused database leaves the old clamd at work, that a good one replaces it, and
// that no clamd is left over.
func TestReload(t *testing.T) {
	s := fakeSettings(t)
	a := withFake(t)
	host := enginetest.Start(t, newEngine(a), s)
	ask := asker(t, host)
	first := a.current.Load()
	for range 3 { // more often than there are names for sockets
		enginetest.WriteFile(t, s.Content, "b.hdb", []byte("broken"))
		host.Reload()
		host.AwaitHeartbeat("degraded heartbeat", degraded(malformed))
		if a.current.Load() != first || ask("Bad") != provider.Deny("Bad") || ask("Worse") != provider.Allow() {
			t.Fatal("a refused database changed the votes")
		}
		enginetest.WriteFile(t, s.Content, "b.hdb", []byte("Worse"))
		host.Reload()
		host.AwaitHeartbeat("ready heartbeat", ready("2 files"))
		if second := a.current.Load(); second == first || ask("Worse") != provider.Deny("Worse") {
			t.Fatal("a good database was not taken up")
		}
		select {
		case <-first.done:
		default:
			t.Error("the old clamd still runs")
		}
		if err := os.Remove(filepath.Join(s.Content, "b.hdb")); err != nil {
			t.Fatal(err)
		}
		host.Reload()
		host.AwaitHeartbeat("ready heartbeat", ready("1 file"))
		first = a.current.Load()
	}
}

// TestReloadWithoutRoomForTwo holds that a large database is loaded after the old clamd has ended, and that
// the provider says so for as long as nothing answers.
func TestReloadWithoutRoomForTwo(t *testing.T) {
	s := fakeSettings(t)
	if err := os.Truncate(filepath.Join(s.Content, "a.hdb"), overlapLimit+1); err != nil {
		t.Fatal(err)
	}
	a := withFake(t)
	host := enginetest.Start(t, newEngine(a), s)
	ask := asker(t, host)
	old := a.current.Load()
	enginetest.WriteFile(t, s.Content, "b.hdb", []byte("broken"))
	host.Reload()
	host.AwaitHeartbeat("degraded heartbeat", degraded(malformed))
	<-old.done
	if got := ask("Bad"); got.Action != event.Abstain {
		t.Errorf("vote without a clamd: %+v", got)
	}
	enginetest.WriteFile(t, s.Content, "b.hdb", []byte("Worse"))
	host.Reload()
	host.AwaitHeartbeat("ready heartbeat", ready("2 files"))
	if got := ask("Worse"); got != provider.Deny("Worse") {
		t.Errorf("vote after a good database: %+v", got)
	}
}

func TestStopLeavesNothing(t *testing.T) {
	s := fakeSettings(t)
	a := withFake(t)
	enginetest.Start(t, newEngine(a), s)
	d := a.current.Load()
	a.close()
	<-d.done
	left, err := os.ReadDir(s.StateDir)
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestLoadErrors(t *testing.T) {
	empty, state := folder(t), folder(t)
	tuned, broken := folder(t), folder(t)
	enginetest.WriteFile(t, tuned, "allowed.fp", []byte("x"))
	enginetest.WriteFile(t, tuned, "freshclam.dat", []byte("x"))
	enginetest.WriteFile(t, broken, "a.hdb", []byte("broken"))
	const (
		none = "no ClamAV signature database in "
		hint = ": run freshclam, or set content: to a folder with signatures"
	)
	notThere := func() (string, error) { return "", errors.New("clamd is not installed") }
	in := func(content string) provider.Settings { return provider.Settings{Content: content, StateDir: state} }
	deep := "/" + strings.Repeat("d", 100)
	for _, tt := range []struct {
		name     string
		settings provider.Settings
		find     func() (string, error)
		want     string
	}{
		{"empty folder", in(empty), nil, none + empty + hint},
		{"only tuning", in(tuned), nil, none + tuned + hint},
		{"no folder", in("/nowhere"), nil, none + "/nowhere" + hint},
		{"not a folder", in(tuned + "/allowed.fp"), nil, none + tuned + "/allowed.fp (not a directory)" + hint},
		{"no state folder", provider.Settings{Content: broken}, nil, "no state folder"},
		{"broken", in(broken), nil, malformed},
		{
			name: "long path", settings: provider.Settings{Content: broken, StateDir: deep},
			want: "path of clamd's socket has 113 bytes, limit 107: shorten the state folder: " + deep,
		},
		{"not installed", in(empty), notThere, "clamd is not installed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := withFake(t)
			if tt.find != nil {
				a.find = tt.find
			}
			err := enginetest.LoadError(t, newEngine(a), tt.settings)
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v\nwant it to contain %s", err, tt.want)
			}
		})
	}
}

func TestBackoff(t *testing.T) {
	a := &antivirus{}
	a.closed = true // the timers do nothing
	var got []string
	for range 7 {
		a.reviveLater()
		got = append(got, a.backoff.String())
	}
	a.revival.Stop()
	if want := "1s 2s 4s 8s 16s 30s 30s"; strings.Join(got, " ") != want {
		t.Errorf("pauses %v, want %s", got, want)
	}
}
