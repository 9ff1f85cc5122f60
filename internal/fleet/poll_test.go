package fleet

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/keepout-security/keepout/internal/fleet/client"
	"github.com/keepout-security/keepout/internal/fleet/fleetpb"
	"github.com/keepout-security/keepout/internal/fleet/store"
)

// waitFor waits until a condition holds.
func waitFor(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// TestHaltReachesEverybodyByLongPoll: hosts that run the release go back as soon as somebody halts it, without
// another word from them.
func TestHaltReachesEverybodyByLongPoll(t *testing.T) {
	t.Parallel()
	p := start(t, nil)
	machines := p.enrolled(16)
	id := p.create(newContent()).GetId()
	for range 6 {
		p.round(machines)
	}
	ran := 0
	for _, m := range machines {
		if m.runs == digest("new") {
			ran++
		}
	}
	if ran == 0 {
		t.Fatal("nobody runs it")
	}
	var polls sync.WaitGroup
	for _, m := range machines {
		polls.Go(func() {
			for m.runs == digest("new") {
				if _, err := m.try(t.Context(), 30); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	waitFor(t, "long-polls", func() bool { return int(p.waiting.Load()) == ran })
	_, err := p.admin.HaltRollout(t.Context(), connect.NewRequest(&fleetpb.HaltRolloutRequest{Id: id, Reason: "test"}))
	if err != nil {
		t.Fatal(err)
	}
	polls.Wait()
	for i, m := range machines {
		if m.runs != digest("old") {
			t.Errorf("host %d still runs it", i)
		}
		m.checkIn(0)
		if m.runs != digest("old") {
			t.Errorf("host %d was told to run it again", i)
		}
	}
}

// TestLongPollEnds: after its time, when a newer one comes, and when the server stops; never with an error.
func TestLongPollEnds(t *testing.T) {
	t.Parallel()
	p := start(t, nil)
	m := p.enrolled(1)[0]
	if out := m.checkIn(1); out.GetRevision() == 0 {
		t.Errorf("after its time: %v", out)
	}
	ends := make(chan error, 2)
	poll := func() {
		_, err := m.CheckIn(t.Context(), &fleetpb.CheckInRequest{
			Instance: "i-" + m.Identity().HostID, Revision: m.revision, WaitSeconds: 300,
		})
		ends <- err
	}
	go poll()
	waitFor(t, "the first", func() bool { return p.waiting.Load() == 1 })
	m.checkIn(0)
	go poll()
	if err := <-ends; err != nil {
		t.Errorf("replaced: %v", err)
	}
	waitFor(t, "the second", func() bool { return p.waiting.Load() == 1 })
	p.stop()
	if err := <-ends; err != nil {
		t.Errorf("the server stops: %v", err)
	}
}

// TestOverload: more requests at once than the server takes are told when to come back, each another time.
func TestOverload(t *testing.T) {
	t.Parallel()
	p := start(t, func(c *Config) { c.MaxBusy = 1 })
	p.busy.Add(1)
	defer p.busy.Add(-1)
	res, err := p.browserWith(nil).Get(p.URL() + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("Retry-After") == "" ||
		!strings.Contains(string(body), "KO-2207") {
		t.Errorf("%d %v %s %v", res.StatusCode, res.Header, body, err)
	}
}

// TestBadRequests: what is too large, too long or no request is refused with words, and harms nobody.
func TestBadRequests(t *testing.T) {
	t.Parallel()
	p := start(t, nil)
	m := p.enrolled(1)[0]
	id := m.Identity()
	browser := p.browserOf(&id)
	url := p.URL() + "/keepout.fleet.v1.HostService/CheckIn"
	long := strings.Repeat("x", 4096)
	for name, body := range map[string]string{
		"no JSON":          "{",
		"another type":     `{"installed": 7}`,
		"long instance":    `{"instance": "` + long + `"}`,
		"endless":          `{"instance": "` + strings.Repeat("x", maxBody) + `"}`,
		"no channel":       `{"installed": [{"provider": "a", "digest": "d"}]}`,
		"short nonce":      `{"asks": [{"nonce": "AAAA"}]}`,
		"bucket of a kind": `{"buckets": [{"signature": "s", "kind": "none"}]}`,
		"large sample":     `{"buckets": [{"signature": "s", "kind": "crash", "sample": "` + long + `"}]}`,
		"many labels":      `{"labels": {` + strings.TrimSuffix(strings.Repeat(`"%d":"",`, 40), ",") + `}}`,
	} {
		for i := range 40 {
			body = strings.Replace(body, "%d", strconv.Itoa(i), 1)
		}
		res, err := browser.Post(url, "application/json", bytes.NewReader([]byte(body)))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		text, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if res.StatusCode < 400 || res.StatusCode >= 500 {
			t.Errorf("%s: %d %.200s", name, res.StatusCode, text)
		}
	}
	m.checkIn(0)
	if p.state(id.HostID) != store.Active {
		t.Errorf("the host is %s", p.state(id.HostID))
	}
}

// TestLongPollOutlivesARequest: the time that a request may take does not end a long-poll, over HTTP/1.1 neither,
// where it is the connection's.
func TestLongPollOutlivesARequest(t *testing.T) {
	t.Parallel()
	p := start(t, func(c *Config) { c.RequestTime = 2 * time.Second })
	id := p.enrolled(1)[0].Identity()
	for name, dial := range map[string]func(*client.Identity) (*client.Host, error){
		"HTTP/1.1": client.NewHostHTTP1, "HTTP/2": client.NewHost,
	} {
		h, err := dial(&id)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(h.Close)
		m := &machine{Host: h, t: t, key: id.DirectorKey, runs: digest("old")}
		m.checkIn(0)
		if _, err := m.try(t.Context(), 4); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestSlowBody: who sends its request a byte at a time is cut off, and others are served meanwhile.
func TestSlowBody(t *testing.T) {
	t.Parallel()
	p := start(t, func(c *Config) { c.RequestTime = 2 * time.Second })
	m := p.enrolled(1)[0]
	id := m.Identity()
	read, write := io.Pipe()
	var ended atomic.Bool
	go func() {
		for !ended.Load() {
			if _, err := write.Write([]byte(" ")); err != nil {
				break
			}
			time.Sleep(100 * time.Millisecond)
		}
	}()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost,
		p.URL()+"/keepout.fleet.v1.HostService/CheckIn", read)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	begun := time.Now()
	res, err := p.browserOf(&id).Do(req)
	ended.Store(true)
	if err == nil {
		_ = res.Body.Close()
		if res.StatusCode < 400 {
			t.Errorf("an endless request got %d after %v", res.StatusCode, time.Since(begun))
		}
	}
	m.checkIn(0)
}

// TestPackages: ranges, conditions, and nothing outside the folder.
func TestPackages(t *testing.T) {
	t.Parallel()
	outside := filepath.Join(t.TempDir(), "secret")
	p := start(t, nil)
	blob := strings.Repeat("ab", 32)
	for name, text := range map[string]string{"blobs/sha256/" + blob: "0123456789", "metadata/1.root.json": "{}"} {
		path := filepath.Join(p.cfg.StateDir, "packages", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(outside, []byte("secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(p.cfg.StateDir, "packages", "link")); err != nil {
		t.Fatal(err)
	}
	m := p.enrolled(1)[0]
	body, err := m.Fetch(t.Context(), "blobs/sha256/"+blob, 7)
	if err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(body)
	_ = body.Close()
	if err != nil || string(rest) != "789" {
		t.Errorf("from 7: %q, %v", rest, err)
	}
	id := m.Identity()
	browser := p.browserOf(&id)
	get := func(path string, header ...string) (*http.Response, string) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.URL()+"/packages/"+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i+1 < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		res, err := browser.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		text, _ := io.ReadAll(res.Body)
		return res, string(text)
	}
	res, _ := get("metadata/1.root.json")
	again, _ := get("metadata/1.root.json", "If-None-Match", res.Header.Get("ETag"))
	if again.StatusCode != http.StatusNotModified {
		t.Errorf("unchanged: %d", again.StatusCode)
	}
	if res, _ := get("blobs/sha256/" + blob); res.Header.Get("ETag") != `"`+blob+`"` {
		t.Errorf("a blob's tag is %s", res.Header.Get("ETag"))
	}
	for _, path := range []string{
		"", "blobs", "link", "../fleet.db", "..%2ffleet.db",
		"%2e%2e/admin.json", "metadata/none",
	} {
		if res, text := get(path); res.StatusCode < 400 || strings.Contains(text, "secret") {
			t.Errorf("%q: %d %q", path, res.StatusCode, text)
		}
	}
}
