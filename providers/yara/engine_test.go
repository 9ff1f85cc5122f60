//go:build cgo && yara

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/testenv"
	"github.com/keepout-security/keepout/provider"
	"github.com/keepout-security/keepout/providers/internal/enginetest"
	pb "github.com/keepout-security/keepout/wire/keepoutpb"
)

const markerRule = `rule Marker { strings: $a = "evil marker" condition: $a }`

// start runs the engine on a folder with the given rule file.
func start(t *testing.T, rule string) (host *enginetest.Host, folder string) {
	t.Helper()
	testenv.Need(t, testenv.YARA)
	folder = t.TempDir()
	enginetest.WriteFile(t, folder, "a.yar", []byte(rule))
	enginetest.WriteFile(t, folder, "README.md", []byte("not a rule"))
	return enginetest.Start(t, newEngine(new(judge)), provider.Settings{Content: folder}), folder
}

// TestScansRunTogether: as many scans as there are workers hold a scanner of their own at one time, all of the same
// compiled rules, and many questions in flight get the right votes.
func TestScansRunTogether(t *testing.T) {
	testenv.Need(t, testenv.YARA)
	j, folder, files := new(judge), t.TempDir(), t.TempDir()
	enginetest.WriteFile(t, folder, "a.yar", []byte(markerRule))
	host := enginetest.Start(t, newEngine(j), provider.Settings{Content: folder})
	set := j.inForce.Load()
	var held []*desk
	for range workers {
		d := <-set.desks // nobody waits for another's scan
		if rule, err := d.scanner.Scan([]byte("an evil marker"), time.Minute); rule != "Marker" || err != nil {
			t.Errorf("scanner %d finds %q (%v)", len(held), rule, err)
		}
		held = append(held, d)
	}
	for _, d := range held {
		set.desks <- d
	}
	good := enginetest.WriteFile(t, files, "good", []byte("harmless"))
	evil := enginetest.WriteFile(t, files, "evil", []byte("an evil marker"))
	var paths []string
	for range 10 * workers {
		paths = append(paths, good, evil)
	}
	for i, v := range host.AskAll(enginetest.Patience, paths...) {
		if want := []event.Action{event.Allow, event.Deny}[i%2]; v.Action != want {
			t.Errorf("vote %d: %+v", i, v)
		}
	}
	if j.inForce.Load() != set {
		t.Error("the rules were compiled again")
	}
}

func TestVotes(t *testing.T) {
	host, _ := start(t, markerRule)
	files := t.TempDir()
	padded := func(size int) []byte {
		return append(bytes.Repeat([]byte("x"), size-len("evil marker")), "evil marker"...)
	}
	for i, tt := range []struct {
		content []byte
		want    event.Vote
	}{
		{[]byte("harmless"), provider.Allow()},
		{nil, provider.Allow()},
		{[]byte("an evil marker here"), provider.Deny("Marker")},
		{padded(maxKept), provider.Deny("Marker")},
		{padded(5 * maxKept), provider.Deny("Marker")},
		{bytes.Repeat([]byte("x"), 5*maxKept), provider.Allow()},
	} {
		got := host.Ask(enginetest.WriteFile(t, files, strconv.Itoa(i), tt.content), enginetest.Patience)
		if !strings.HasPrefix(got.Content, "1 rule, 1 file, ") {
			t.Errorf("content version %q", got.Content)
		}
		if got.Content = ""; got != tt.want {
			t.Errorf("file %d of %d bytes: vote %+v, want %+v", i, len(tt.content), got, tt.want)
		}
	}
	s := host.Subscription()
	if s.GetAccess() != pb.Access_ACCESS_DESCRIPTOR || len(s.GetEvents()) != 2 || s.GetMaxSize() != maxContent {
		t.Errorf("subscription %v", s)
	}
}

func TestTooLarge(t *testing.T) {
	host, _ := start(t, "rule All { condition: true }")
	path := enginetest.WriteFile(t, t.TempDir(), "f", nil)
	if err := os.Truncate(path, maxContent+1); err != nil {
		t.Fatal(err)
	}
	got := host.Ask(path, enginetest.Patience)
	if got.Action != event.Abstain || got.Rule != "larger than 64 MiB" {
		t.Errorf("vote %+v", got)
	}
}

// TestLargeFilesQueue holds that large files take no more memory than the grant has, and small ones pass.
func TestLargeFilesQueue(t *testing.T) {
	testenv.Need(t, testenv.YARA)
	folder, files, j := t.TempDir(), t.TempDir(), new(judge)
	enginetest.WriteFile(t, folder, "a.yar", []byte(markerRule))
	host := enginetest.Start(t, newEngine(j), provider.Settings{Content: folder})
	large := enginetest.WriteFile(t, files, "large", make([]byte, maxKept+1))
	small := enginetest.WriteFile(t, files, "small", make([]byte, maxKept))
	set := j.inForce.Load()
	for range maxLarge {
		set.large <- struct{}{}
	}
	got := host.Ask(large, 50*time.Millisecond)
	if got.Action != event.Abstain || !strings.HasPrefix(got.Rule, "wait for other large files: ") {
		t.Errorf("vote on a large file %+v", got)
	}
	if got := host.Ask(small, enginetest.Patience); got.Action != event.Allow {
		t.Errorf("vote on a small file %+v", got)
	}
	<-set.large
	if got := host.Ask(large, enginetest.Patience); got.Action != event.Allow {
		t.Errorf("vote on a large file with room %+v", got)
	}
}

// TestSlowRule holds that a rule that never ends costs its votes, is seen, and blocks nothing.
func TestSlowRule(t *testing.T) {
	host, _ := start(t, `rule Slow { strings: $s = "slow"
		condition: $s and for all i in (0..1000000000) : (uint8(i % 4) != 0) }`)
	files := t.TempDir()
	slow := enginetest.WriteFile(t, files, "slow", []byte("slow"))
	quick := enginetest.WriteFile(t, files, "quick", []byte("quick"))
	for range maxFailures {
		got := host.Ask(slow, 50*time.Millisecond)
		if got.Action != event.Abstain || got.Rule != "scan took too long" {
			t.Errorf("vote %+v", got)
		}
	}
	host.AwaitHeartbeat("degraded heartbeat", func(b *pb.Heartbeat) bool {
		return b.GetState() == pb.State_STATE_DEGRADED &&
			b.GetDetail() == "3 scans in a row failed: scan took too long"
	})
	if got := host.Ask(quick, enginetest.Patience); got.Action != event.Allow {
		t.Errorf("vote %+v", got)
	}
}

func TestReload(t *testing.T) {
	host, folder := start(t, markerRule)
	path := enginetest.WriteFile(t, t.TempDir(), "f", []byte("an evil marker here"))
	enginetest.WriteFile(t, folder, "b.yara", []byte("rule Broken {\n  condition: nothing\n}"))
	host.Reload()
	beat := host.AwaitHeartbeat("degraded heartbeat", func(b *pb.Heartbeat) bool {
		return b.GetState() == pb.State_STATE_DEGRADED
	})
	if want := `b.yara:2: undefined identifier "nothing"`; !strings.Contains(beat.GetDetail(), want) {
		t.Errorf("detail %q, want it to contain %s", beat.GetDetail(), want)
	}
	if got := host.Ask(path, enginetest.Patience); got.Rule != "Marker" {
		t.Errorf("after bad rules: vote %+v", got)
	}
	enginetest.WriteFile(t, folder, "a.yar", []byte(strings.ReplaceAll(markerRule, "Marker", "Renamed")))
	enginetest.WriteFile(t, folder, "b.yara", []byte("rule Second { condition: false }"))
	host.Reload()
	host.AwaitHeartbeat("ready heartbeat", func(b *pb.Heartbeat) bool {
		return b.GetState() == pb.State_STATE_READY && strings.HasPrefix(b.GetContent(), "2 rules, 2 files, ")
	})
	if got := host.Ask(path, enginetest.Patience); got.Rule != "Renamed" {
		t.Errorf("after good rules: vote %+v", got)
	}
}

// TestReloadUnderLoad holds that rules are not freed under a scan, and that no vote is lost to a reload.
func TestReloadUnderLoad(t *testing.T) {
	testenv.Need(t, testenv.YARA)
	folder := t.TempDir()
	enginetest.WriteFile(t, folder, "a.yar", []byte(markerRule))
	j := new(judge)
	engine := newEngine(j)
	for range 2 { // two platforms share one engine, so that scans run at one time
		host := enginetest.Start(t, engine, provider.Settings{Content: folder})
		path := enginetest.WriteFile(t, t.TempDir(), "f", []byte("an evil marker here"))
		done := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if _, err := j.load(t.Context(), provider.Settings{Content: folder}); err != nil {
					t.Error(err)
					return
				}
			}
		})
		for range 300 {
			if got := host.Ask(path, enginetest.Patience); got.Rule != "Marker" {
				t.Errorf("vote %+v", got)
				break
			}
		}
		close(done)
		wg.Wait()
	}
}

func TestLoadErrors(t *testing.T) {
	testenv.Need(t, testenv.YARA)
	empty, comment := t.TempDir(), t.TempDir()
	enginetest.WriteFile(t, empty, "rules.txt", []byte(markerRule))
	enginetest.WriteFile(t, comment, "a.yar", []byte("// nothing\n"))
	const fix = ": put .yar files there, or set content: to a folder with some"
	for folder, want := range map[string]string{
		"":                                "no folder of YARA rules: set content: to one",
		empty:                             "no YARA rules in " + empty + fix,
		comment:                           "no YARA rules in " + comment + fix,
		filepath.Join(empty, "none"):      "no YARA rules in " + filepath.Join(empty, "none") + fix,
		filepath.Join(empty, "rules.txt"): "not a directory",
	} {
		err := enginetest.LoadError(t, newEngine(new(judge)), provider.Settings{Content: folder})
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want it to contain %q", folder, err, want)
		}
	}
}

// TestSelftest: the object in the provider's folder is denied whatever the rules are, and first.
func TestSelftest(t *testing.T) {
	object, err := os.ReadFile("selftest.txt")
	if err != nil {
		t.Fatal(err)
	}
	host, _ := start(t, "rule All { condition: true }")
	files := t.TempDir()
	got := host.Ask(enginetest.WriteFile(t, files, "object", object), enginetest.Patience)
	if !got.Selftest() {
		t.Errorf("vote %+v", got)
	}
	got = host.Ask(enginetest.WriteFile(t, files, "more", append(object, '!')), enginetest.Patience)
	if got.Rule != "All" {
		t.Errorf("vote on a longer file %+v", got)
	}
}
