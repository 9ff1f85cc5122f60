package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/provider"
	"github.com/keepout-security/keepout/providers/internal/enginetest"
	pb "github.com/keepout-security/keepout/wire/keepoutpb"
)

func hexOf(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}

// TestVotes drives the engine over its sockets.
func TestVotes(t *testing.T) {
	files, content := t.TempDir(), t.TempDir()
	small, large := []byte("small"), bytes.Repeat([]byte("0123456789abcdef"), 3*chunk/16+1)
	write := func(name string, data []byte) string { return enginetest.WriteFile(t, files, name, data) }
	unknown, named := write("unknown", []byte("unknown")), write("named", small)
	empty, big := write("empty", nil), write("big", large)
	exact, both := write("exact", large[:chunk]), write("both", []byte("both"))
	allowed := write("allowed", []byte("allowed"))
	enginetest.WriteFile(t, content, "deny.txt", []byte(strings.Join([]string{
		hexOf(small) + " Test.Small", hexOf(nil) + " Test.Empty", hexOf(large),
		hexOf(large[:chunk]) + " Test.Exact", hexOf([]byte("both")) + " Test.Both",
	}, "\n")))
	enginetest.WriteFile(t, content, "allow.txt", []byte(hexOf([]byte("allowed"))+"\n"+hexOf([]byte("both"))))

	for _, miss := range []string{"", "allow", "deny"} {
		values := map[string]string{}
		if miss != "" {
			values["on_miss"] = miss
		}
		onMiss := provider.Allow()
		if miss == "deny" {
			onMiss = provider.Deny("not on the allow list")
		}
		host := enginetest.Start(t, newEngine(), provider.Settings{Content: content, Values: values})
		for _, tt := range []struct {
			path string
			want event.Vote
		}{
			{unknown, onMiss},
			{named, provider.Deny("Test.Small")},
			{empty, provider.Deny("Test.Empty")},
			{big, provider.Deny("sha256:" + hexOf(large)[:12])},
			{exact, provider.Deny("Test.Exact")},
			{both, provider.Deny("Test.Both")},
			{allowed, provider.Allow()},
		} {
			got := host.Ask(tt.path, time.Minute)
			if !strings.HasPrefix(got.Content, "deny 5, allow 2, ") {
				t.Errorf("content version %q", got.Content)
			}
			if got.Content = ""; got != tt.want {
				t.Errorf("on_miss %q: vote on %s = %+v, want %+v", miss, filepath.Base(tt.path), got, tt.want)
			}
		}
	}
}

func TestSubscribesToDescriptors(t *testing.T) {
	s := enginetest.Start(t, newEngine(), provider.Settings{}).Subscription()
	if s.GetAccess() != pb.Access_ACCESS_DESCRIPTOR || len(s.GetEvents()) != 2 || s.GetByActor() {
		t.Errorf("subscription %v", s)
	}
}

func TestWithoutContentEverythingIsAllowed(t *testing.T) {
	path := enginetest.WriteFile(t, t.TempDir(), "f", []byte("x"))
	vote := enginetest.Start(t, newEngine(), provider.Settings{}).Ask(path, time.Minute)
	if vote.Action != event.Allow || !strings.HasPrefix(vote.Content, "deny 0, allow 0, ") {
		t.Errorf("vote %+v", vote)
	}
}

// TestReload holds that a bad list is refused as a whole and named, and that a good one then takes
// the place of the old.
func TestReload(t *testing.T) {
	content := t.TempDir()
	path := enginetest.WriteFile(t, t.TempDir(), "f", []byte("x"))
	enginetest.WriteFile(t, content, "deny.txt", []byte(hexOf([]byte("x"))+" Old\n"))
	host := enginetest.Start(t, newEngine(), provider.Settings{Content: content})

	enginetest.WriteFile(t, content, "deny.txt", []byte("# new\noops\n"))
	host.Reload()
	beat := host.AwaitHeartbeat("degraded heartbeat", func(b *pb.Heartbeat) bool {
		return b.GetState() == pb.State_STATE_DEGRADED
	})
	if want := "deny.txt:2:1: found 'o'"; !strings.Contains(beat.GetDetail(), want) {
		t.Errorf("detail %q, want it to contain %q", beat.GetDetail(), want)
	}
	if vote := host.Ask(path, time.Minute); vote.Rule != "Old" || vote.Content != beat.GetContent() {
		t.Errorf("after a bad list: vote %+v, content %q", vote, beat.GetContent())
	}

	enginetest.WriteFile(t, content, "deny.txt", []byte(hexOf([]byte("x"))+" New\n"+hashA))
	host.Reload()
	host.AwaitHeartbeat("ready heartbeat", func(b *pb.Heartbeat) bool {
		return b.GetState() == pb.State_STATE_READY && strings.HasPrefix(b.GetContent(), "deny 2, ")
	})
	if vote := host.Ask(path, time.Minute); vote.Rule != "New" {
		t.Errorf("after a good list: vote %+v", vote)
	}
}

// TestReloadUnderLoad holds that lists are not freed under a vote, and that no vote is lost to a reload.
func TestReloadUnderLoad(t *testing.T) {
	content := t.TempDir()
	path := enginetest.WriteFile(t, t.TempDir(), "f", []byte("x"))
	enginetest.WriteFile(t, content, "deny.txt", []byte(hexOf([]byte("x"))+" Listed\n"))
	j := &judge{}
	engine := newEngine()
	engine.Load, engine.Vote = j.load, j.vote
	host := enginetest.Start(t, engine, provider.Settings{Content: content})
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			if _, err := j.load(t.Context(), provider.Settings{Content: content}); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for range 500 {
		if vote := host.Ask(path, time.Minute); vote.Rule != "Listed" {
			t.Errorf("vote %+v", vote)
			break
		}
	}
	close(done)
	wg.Wait()
}

func TestLoadErrors(t *testing.T) {
	bad, pipe, ask := t.TempDir(), t.TempDir(), map[string]string{"on_miss": "ask"}
	file := enginetest.WriteFile(t, bad, "allow.txt", []byte("oops"))
	if err := syscall.Mkfifo(filepath.Join(pipe, "deny.txt"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name     string
		settings provider.Settings
		want     string
	}{
		{"on_miss", provider.Settings{Values: ask}, `on_miss is "ask": want allow or deny`},
		{"list", provider.Settings{Content: bad}, "allow.txt:1:1: found 'o': "},
		{"no folder", provider.Settings{Content: bad + "/none"}, "no such file or directory: create it"},
		{"not a folder", provider.Settings{Content: file}, "is not a folder"},
		{"named pipe", provider.Settings{Content: pipe}, "is not a regular file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := enginetest.LoadError(t, newEngine(), tt.settings)
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want it to contain %q", err, tt.want)
			}
		})
	}
}

// TestSameSizeAndTimes holds that bytes decide, even where the file looks unchanged.
func TestSameSizeAndTimes(t *testing.T) {
	content, when := t.TempDir(), time.Unix(1_700_000_000, 0)
	enginetest.WriteFile(t, content, "deny.txt", []byte(hexOf([]byte("bad!"))+" Bad\n"))
	path := enginetest.WriteFile(t, t.TempDir(), "f", []byte("good"))
	host := enginetest.Start(t, newEngine(), provider.Settings{Content: content})
	for _, tt := range []struct {
		bytes string
		want  event.Action
	}{{"good", event.Allow}, {"bad!", event.Deny}, {"good", event.Allow}} {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString(tt.bytes); err != nil {
			t.Fatal(err)
		}
		f.Close()
		if err := os.Chtimes(path, when, when); err != nil {
			t.Fatal(err)
		}
		if vote := host.Ask(path, time.Minute); vote.Action != tt.want {
			t.Errorf("%s: vote %+v", tt.bytes, vote)
		}
	}
}

func TestHashRestStops(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	reads := 0
	endless := readerFunc(func(p []byte) (int, error) { reads++; return len(p), nil })
	if _, err := hashRest(ctx, endless, new([chunk]byte)); err == nil || reads > 1 {
		t.Errorf("error %v after %d reads, want an error at once", err, reads)
	}
	broken := iotest.ErrReader(io.ErrNoProgress)
	if _, err := hashRest(context.Background(), broken, new([chunk]byte)); err == nil {
		t.Error("a read error gave a digest")
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// BenchmarkMillion loads a list of a million hashes, as the platform would have it loaded, and searches it.
func BenchmarkMillion(b *testing.B) {
	const entries = 1_000_000
	folder := b.TempDir()
	f, err := os.Create(filepath.Join(folder, "deny.txt"))
	if err != nil {
		b.Fatal(err)
	}
	sum := func(i int) [sha256.Size]byte { return sha256.Sum256(fmt.Appendf(nil, "entry %d", i)) }
	var line []byte
	for i := range entries {
		s := sum(i)
		line = fmt.Appendf(line, "%x Test.Family.%d\n", s, i)
		if len(line) > 1<<20 || i == entries-1 {
			if _, err := f.Write(line); err != nil {
				b.Fatal(err)
			}
			line = line[:0]
		}
	}
	if err := f.Close(); err != nil {
		b.Fatal(err)
	}
	before := resident(b)
	j := &judge{}
	start := time.Now()
	if _, err := j.load(context.Background(), provider.Settings{Content: folder}); err != nil {
		b.Fatal(err)
	}
	loaded := time.Since(start)
	after := resident(b)
	in := j.inForce.Load()
	sums := make([][sha256.Size]byte, 1<<16)
	for i := range sums {
		sums[i] = sum(i * 31) // half of them are not listed
	}
	i := 0
	for b.Loop() {
		in.deny.find(&sums[i&(len(sums)-1)])
		i++
	}
	b.ReportMetric(loaded.Seconds(), "load-s")
	b.ReportMetric(after, "resident-MB")
	b.ReportMetric(after-before, "added-MB")
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N), "lookup-ns")
}

// resident returns the resident memory of this process in MB.
func resident(b *testing.B) float64 {
	b.Helper()
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		b.Fatal(err)
	}
	var size, pages int
	if _, err := fmt.Sscan(string(text), &size, &pages); err != nil {
		b.Fatal(err)
	}
	return float64(pages*os.Getpagesize()) / 1e6
}

// TestSelftest: the object in the provider's folder is denied with empty lists, and also when it is on the allow list.
func TestSelftest(t *testing.T) {
	object, err := os.ReadFile("selftest.txt")
	if err != nil {
		t.Fatal(err)
	}
	for name, allow := range map[string]string{"no lists": "", "allowed": hexOf(object)} {
		content := t.TempDir()
		enginetest.WriteFile(t, content, "allow.txt", []byte(allow))
		host := enginetest.Start(t, newEngine(), provider.Settings{Content: content})
		files := t.TempDir()
		got := host.Ask(enginetest.WriteFile(t, files, "object", object), enginetest.Patience)
		if !got.Selftest() {
			t.Errorf("%s: vote %+v", name, got)
		}
		object[0]++ // of the same size, and not it
		got = host.Ask(enginetest.WriteFile(t, files, "other", object), enginetest.Patience)
		if got.Action != event.Allow {
			t.Errorf("%s: vote on another object %+v", name, got)
		}
		object[0]--
	}
}

// TestKnownDigest: what the platform has hashed is not hashed again, and what it says badly is.
func TestKnownDigest(t *testing.T) {
	t.Parallel()
	j := &judge{}
	want := sha256.Sum256([]byte("something"))
	ev := &provider.Event{}
	ev.File.SHA256 = hex.EncodeToString(want[:])
	if got, err := j.digest(ev); err != nil || got != want { // there is no descriptor to read
		t.Errorf("%x, %v, want %x", got, err, want)
	}
	for _, bad := range []string{"", "00", ev.File.SHA256[2:], "x" + ev.File.SHA256[1:], ev.File.SHA256 + "00"} {
		ev.File.SHA256 = bad
		if got, err := j.digest(ev); err == nil && got != sha256.Sum256(nil) { // there is nothing to hash
			t.Errorf("%q is taken for the digest %x", bad, got)
		}
	}
}
