package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"net"
	"os"
	"testing"
	"time"

	"github.com/keepout-security/keepout/internal/health"
)

// FuzzRequest sends one line through a real connection: it is answered with exactly one end, which is an error
// when the line is no request, and the connection goes on.
func FuzzRequest(f *testing.F) {
	for _, line := range []string{
		`{"do":"status"}`, `{"do":"events","seconds":-1,"limit":9223372036854775807,"denied":true}`,
		`{"do":"explain","query":"#ffffffffffffffff"}`, `{"do":"allow","sha256":"00","seconds":1e3}`,
		`{"do":"provider","provider":"x","enable":"yes"}`, `null`, `[]`, `"status"`, `{`, ``, "\x00", `{"do":null}`,
		`{"DO":"status"}`, `{"do":"a","do":"b"}`, `{"mode":{}}`, `{"limit":1e999}`, `{} {}`, "\r",
	} {
		f.Add([]byte(line))
	}
	dir, err := os.MkdirTemp("", "ko")
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = os.RemoveAll(dir) })
	served := make(chan Request, 1)
	s, err := Listen(dir, func(_ context.Context, req Request, _ func(Reply) error) error {
		served <- req
		return nil
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = s.Close() })
	f.Fuzz(func(t *testing.T, line []byte) {
		if bytes.ContainsAny(line, "\n") || len(line) > maxRequest/2 {
			return // more than one line, or none that is read
		}
		conn, err := net.Dial("unix", dir+"/"+SocketName)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		var want Request
		isRequest := json.Unmarshal(bytes.TrimSuffix(line, []byte("\r")), &want) == nil
		in := bufio.NewReader(conn)
		for range 2 {
			if _, err := conn.Write(append(bytes.Clone(line), '\n')); err != nil {
				t.Fatal(err)
			}
			r := receive(t, in)
			if !r.End || (r.Error == nil) != isRequest {
				t.Fatalf("%q is answered with %+v", line, r)
			}
			if !isRequest {
				if r.Error.Code != "KO-2005" || r.Error.Severity != health.Failure {
					t.Fatalf("%q is refused with %+v", line, r.Error)
				}
				continue
			}
			if got := <-served; got != want {
				t.Fatalf("%q is served as %+v", line, got)
			}
		}
	})
}
