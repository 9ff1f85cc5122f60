package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/health"
	"github.com/keepout-security/keepout/internal/roster"
	"github.com/keepout-security/keepout/internal/sensor"
)

// patience bounds every wait in these tests; it is long because a busy machine may be slow.
const patience = 30 * time.Second

var aRecord = event.Record{Event: event.Event{ID: 1, Type: event.Open}}

func ignore(Reply) error { return nil }

// listen serves in a folder of its own with a short name: a socket's path has at most 107 bytes.
func listen(t *testing.T, serve Serve) (dir string, s *Server) {
	t.Helper()
	dir, err := os.MkdirTemp("", "ko")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	s, err = Listen(dir, serve)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return dir, s
}

func dial(t *testing.T, dir string) *Client {
	t.Helper()
	c, err := Dial(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// raw is a connection that need not keep to the protocol.
func raw(t *testing.T, dir string) net.Conn {
	t.Helper()
	conn, err := net.Dial("unix", filepath.Join(dir, SocketName))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return conn
}

func send(t *testing.T, conn net.Conn, line string) {
	t.Helper()
	if _, err := io.WriteString(conn, line); err != nil {
		t.Fatal(err)
	}
}

func receive(t *testing.T, in *bufio.Reader) Reply {
	t.Helper()
	line, err := in.ReadBytes('\n')
	if err != nil {
		t.Fatalf("after %q: %v", line, err)
	}
	var r Reply
	if err := json.Unmarshal(line, &r); err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	return r
}

// fake answers as the daemon would, from fixed data.
func fake(_ context.Context, req Request, reply func(Reply) error) error {
	switch req.Do {
	case "status":
		return reply(Reply{Status: &Status{
			Version: "1.2", Mode: event.Enforce, Tier: "B", PID: 7, Since: time.Unix(1_800_000_000, 0).UTC(),
			Problems:  []health.Problem{{Code: "KO-1601", Title: "nobody votes", Severity: health.Failure}},
			Providers: []roster.Status{{ID: "hashlist", Mode: event.Enforce, State: "running"}},
			Sensor:    sensor.Counters{Unasked: map[event.Reason]uint64{event.ReasonVital: 3}},
			Watching:  []sensor.Filesystem{{Path: "/srv", Kind: "local"}},
			Allowed:   []Allowance{{SHA256: "00", Reason: "because", Used: 2}},
		}})
	case "events":
		for i := range req.Limit {
			rec := event.Record{Event: event.Event{ID: uint64(i) + 1, Type: event.Exec}}
			if err := reply(Reply{Record: &rec}); err != nil {
				return err
			}
		}
		return nil
	case "break":
		return errors.New("something else broke")
	}
	return health.Problem{
		Code: "KO-2005", Title: fmt.Sprintf("unknown request %q", req.Do), Severity: health.Failure,
	}
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	dir, _ := listen(t, fake)
	c := dial(t, dir)
	var got *Status
	for range 2 { // a connection carries any number of requests
		if err := c.Do(t.Context(), Request{Do: "status"}, func(r Reply) error {
			got = r.Status
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	var want *Status
	if err := fake(t.Context(), Request{Do: "status"}, func(r Reply) error {
		want = r.Status
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}

	var ids []uint64
	if err := c.Do(t.Context(), Request{Do: "events", Limit: 3}, func(r Reply) error {
		ids = append(ids, r.Record.Event.ID)
		return nil
	}); err != nil || !reflect.DeepEqual(ids, []uint64{1, 2, 3}) {
		t.Errorf("events %v, %v", ids, err)
	}
	stop := errors.New("seen enough")
	err := c.Do(t.Context(), Request{Do: "events", Limit: 3}, func(Reply) error { return stop })
	if !errors.Is(err, stop) {
		t.Errorf("the caller's own error became %v", err)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	dir, _ := listen(t, fake)
	c := dial(t, dir)
	for do, want := range map[string]health.Problem{
		"dance": {Code: "KO-2005", Title: `unknown request "dance"`, Severity: health.Failure},
		"break": {Code: "KO-2006", Title: "something else broke", Severity: health.Failure},
	} {
		err := c.Do(t.Context(), Request{Do: do}, ignore)
		var p health.Problem
		if !errors.As(err, &p) || p != want {
			t.Errorf("%s: got %#v, want %#v", do, err, want)
		}
	}
	if err := c.Do(t.Context(), Request{Do: "status"}, ignore); err != nil {
		t.Errorf("after refusals: %v", err)
	}
}

func TestGarbageCostsOneLine(t *testing.T) {
	t.Parallel()
	dir, _ := listen(t, fake)
	conn := raw(t, dir)
	in := bufio.NewReader(conn)
	for _, line := range []string{"hello", "", "{", `{"do": 7}`, `[]`, "\x00\xff", `{"limit": 1e99}`} {
		send(t, conn, line+"\n")
		r := receive(t, in)
		if r.Error == nil || r.Error.Code != "KO-2005" || !r.End {
			t.Errorf("%q: %+v", line, r)
		}
	}
	send(t, conn, `{"do": "events", "limit": 1}`+"\n")
	if r := receive(t, in); r.Record == nil {
		t.Errorf("after garbage: %+v", r)
	}
	if r := receive(t, in); !r.End || r.Error != nil {
		t.Errorf("end: %+v", r)
	}
}

// TestPipelining: requests that arrive together are answered in order, and a line may come in pieces.
func TestPipelining(t *testing.T) {
	t.Parallel()
	dir, _ := listen(t, fake)
	conn := raw(t, dir)
	in := bufio.NewReader(conn)
	send(t, conn, `{"do":"events","limit":2}`+"\n"+`{"do":"none"}`+"\n"+`{"do":"eve`)
	var got []string
	for range 4 {
		r := receive(t, in)
		switch {
		case r.Record != nil:
			got = append(got, strconv.FormatUint(r.Record.Event.ID, 10))
		case r.Error != nil:
			got = append(got, r.Error.Code)
		case r.End:
			got = append(got, "end")
		}
	}
	if want := []string{"1", "2", "end", "KO-2005"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	send(t, conn, `nts"}`+"\n")
	if r := receive(t, in); !r.End || r.Error != nil {
		t.Errorf("a line in pieces: %+v", r)
	}
}

func TestOversizeRequestEndsTheConnection(t *testing.T) {
	t.Parallel()
	dir, _ := listen(t, fake)
	conn := raw(t, dir)
	// The server hangs up before it has read everything, so the write may fail.
	_, _ = io.WriteString(conn, `{"do": "status", "reason": "`+strings.Repeat("x", 4*maxRequest)+`"}`+"\n")
	b, err := io.ReadAll(conn)
	if len(b) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %q, %v", b, err)
	}
	if err := dial(t, dir).Do(t.Context(), Request{Do: "status"}, ignore); err != nil {
		t.Errorf("the next client: %v", err)
	}
	// What just fits is served.
	conn = raw(t, dir)
	frame := `{"do":"x","reason":""}` + "\n"
	send(t, conn, strings.Replace(frame, `""`, `"`+strings.Repeat("x", maxRequest-len(frame)-1)+`"`, 1))
	if r := receive(t, bufio.NewReader(conn)); r.Error == nil || r.Error.Title != `unknown request "x"` {
		t.Errorf("a request of nearly %d bytes: %+v", maxRequest, r)
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	t.Parallel()
	dir, _ := listen(t, fake)
	var first net.Conn
	for i := range maxConnections {
		conn := raw(t, dir)
		send(t, conn, `{"do":"events"}`+"\n")
		if r := receive(t, bufio.NewReader(conn)); !r.End {
			t.Fatalf("connection %d: %+v", i, r)
		}
		first = conn
	}
	// The next is closed at once: the write may still succeed, the read never gives a byte.
	extra := raw(t, dir)
	_, _ = io.WriteString(extra, `{"do":"events"}`+"\n")
	if b, err := io.ReadAll(extra); len(b) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("connection %d: %q, %v", maxConnections+1, b, err)
	}
	c := dial(t, dir)
	if err := c.Do(t.Context(), Request{Do: "events"}, ignore); !errors.Is(err, ErrUnreachable) {
		t.Errorf("a client beyond the bound: %v", err)
	}

	// One that leaves makes room.
	first.Close()
	deadline := time.Now().Add(patience)
	for {
		c, err := Dial(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		err = c.Do(t.Context(), Request{Do: "events"}, ignore)
		_ = c.Close()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("no room after one left: %v", err)
		}
	}
}

// TestSilentReaderIsDropped: who asks and does not read loses the connection when a write has waited long enough,
// and nobody else notices.
func TestSilentReaderIsDropped(t *testing.T) {
	t.Parallel()
	ended := make(chan error, 1)
	dir, _ := listen(t, func(ctx context.Context, req Request, reply func(Reply) error) error {
		if req.Do != "flood" {
			return fake(ctx, req, reply)
		}
		for {
			if err := reply(Reply{Record: &aRecord}); err != nil {
				ended <- err
				return err
			}
		}
	})
	silent := raw(t, dir)
	send(t, silent, `{"do":"flood"}`+"\n")
	for range 3 {
		other := dial(t, dir)
		if err := other.Do(t.Context(), Request{Do: "status"}, ignore); err != nil {
			t.Fatalf("another client meanwhile: %v", err)
		}
	}
	select {
	case err := <-ended:
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the flood ended with %v", err)
		}
	case <-time.After(patience):
		t.Fatal("the silent reader still holds its connection")
	}
}

// TestCloseEndsFollowers: a request that never ends by itself ends with the server.
func TestCloseEndsFollowers(t *testing.T) {
	t.Parallel()
	following := make(chan struct{})
	dir, s := listen(t, func(ctx context.Context, _ Request, reply func(Reply) error) error {
		if err := reply(Reply{Record: &aRecord}); err != nil {
			return err
		}
		close(following)
		<-ctx.Done()
		return nil
	})
	idle := raw(t, dir)
	done := make(chan error, 1)
	c := dial(t, dir)
	go func() {
		done <- c.Do(t.Context(), Request{Do: "events", Follow: true}, ignore)
	}()
	<-following
	closed := make(chan error, 1)
	go func() { closed <- s.Close() }()
	select {
	case err := <-closed:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Fatal("Close waits for a follower")
	}
	if err := <-done; err != nil && !errors.Is(err, ErrUnreachable) {
		t.Errorf("the follower ended with %v", err)
	}
	if b, err := io.ReadAll(idle); len(b) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the idle connection: %q, %v", b, err)
	}
	if _, err := os.Stat(filepath.Join(dir, SocketName)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left over: %v", err)
	}
}

// TestHangingUpEndsARequest: a follower that goes away on a quiet host is noticed at once; one that only has no
// more requests is not.
func TestHangingUpEndsARequest(t *testing.T) {
	t.Parallel()
	ended := make(chan struct{})
	more := make(chan struct{})
	dir, _ := listen(t, func(ctx context.Context, req Request, reply func(Reply) error) error {
		if req.Do == "wait" {
			select {
			case <-more:
			case <-ctx.Done():
			}
			return reply(Reply{Record: &aRecord})
		}
		err := reply(Reply{Record: &aRecord})
		<-ctx.Done()
		close(ended)
		return err
	})
	follower := raw(t, dir)
	send(t, follower, `{"do":"events","follow":true}`+"\n"+"the next request has begun")
	receive(t, bufio.NewReader(follower))
	follower.Close()
	select {
	case <-ended:
	case <-time.After(patience):
		t.Fatal("the follower that left is still served")
	}

	half := raw(t, dir)
	send(t, half, `{"do":"wait"}`+"\n")
	if err := half.(*net.UnixConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	close(more)
	in := bufio.NewReader(half)
	if r := receive(t, in); r.Record == nil {
		t.Errorf("who sends no more gets %+v", r)
	}
	if r := receive(t, in); !r.End {
		t.Errorf("the end is %+v", r)
	}
}

// TestContextEndsFollowing: the client stops without an error, as with Ctrl-C.
func TestContextEndsFollowing(t *testing.T) {
	t.Parallel()
	dir, _ := listen(t, func(ctx context.Context, _ Request, reply func(Reply) error) error {
		err := reply(Reply{Record: &aRecord})
		<-ctx.Done()
		return err
	})
	ctx, cancel := context.WithCancel(t.Context())
	err := dial(t, dir).Do(ctx, Request{Do: "events", Follow: true}, func(Reply) error {
		cancel()
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestSocketFile(t *testing.T) {
	t.Parallel()
	dir, s := listen(t, fake)
	path := filepath.Join(dir, SocketName)
	info, err := os.Stat(path)
	if err != nil || info.Mode() != os.ModeSocket|0o660 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Dial(t.Context(), dir); !errors.Is(err, ErrUnreachable) {
		t.Errorf("without a daemon: %v", err)
	}

	// A daemon that was killed leaves its socket behind, which nobody answers.
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	if _, err := Dial(t.Context(), dir); !errors.Is(err, ErrUnreachable) {
		t.Errorf("a socket that is left over: %v", err)
	}
	again, err := Listen(dir, fake)
	if err != nil {
		t.Fatalf("over a socket that is left over: %v", err)
	}
	defer again.Close()
	if err := dial(t, dir).Do(t.Context(), Request{Do: "status"}, ignore); err != nil {
		t.Error(err)
	}
}

func TestListenNeedsAFolder(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := Listen(file, fake); err == nil {
		_ = s.Close()
		t.Error("a file serves as run directory")
	}
	if s, err := Listen(filepath.Join(t.TempDir(), strings.Repeat("x", 120)), fake); err == nil {
		_ = s.Close()
		t.Error("a path that no socket can have is accepted")
	}
}

// TestReplyThatIsNoJSON: the client says so instead of guessing.
func TestReplyThatIsNoJSON(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, SocketName))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		if _, err := bufio.NewReader(conn).ReadString('\n'); err == nil {
			_, _ = io.WriteString(conn, "HTTP/1.1 400 Bad Request\n")
		}
	}()
	err = dial(t, dir).Do(t.Context(), Request{Do: "status"}, ignore)
	if err == nil || errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "decode reply") {
		t.Errorf("got %v", err)
	}
}
