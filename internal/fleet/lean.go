package fleet

import (
	"io"
	"net/http"
	"strconv"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"github.com/keepout-security/keepout/internal/fleet/fleetpb"
)

// lean answers the one call that every host makes all the time, in the form that hosts use: a protobuf message in, one
// out, as the Connect protocol has it for calls without streams. Everything else, JSON for example, goes to others.
type lean struct {
	s      *Server
	others http.Handler
	errs   *connect.ErrorWriter
}

// protoType is the content type of such calls.
const protoType = "application/proto"

func (l lean) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	size := r.ContentLength
	if r.Method != http.MethodPost || r.Header.Get("Content-Type") != protoType || size < 0 || size > maxBody ||
		r.Header.Get("Content-Encoding") != "" {
		l.others.ServeHTTP(w, r)
		return
	}
	out, err := l.answer(r, int(size))
	if err != nil {
		_ = l.errs.Write(w, r, err) // the client has gone, there is nobody to tell
		return
	}
	header := w.Header()
	header["Content-Type"] = []string{protoType}
	header["Content-Length"] = []string{strconv.Itoa(len(out))}
	_, _ = w.Write(out) //nolint:gosec // as above; and it is a protobuf message, which no browser renders
}

func (l lean) answer(r *http.Request, size int) ([]byte, error) {
	body := make([]byte, size)
	if _, err := io.ReadFull(r.Body, body); err != nil {
		return nil, invalid("the request ends early: %v", err)
	}
	// Reading to the end lifts the deadline of an HTTP/1.1 connection.
	if n, _ := r.Body.Read(make([]byte, 1)); n > 0 {
		return nil, invalid("the request is longer than it says")
	}
	var m fleetpb.CheckInRequest
	if err := proto.Unmarshal(body, &m); err != nil {
		return nil, invalid("the request is no message: %v", err)
	}
	out, err := l.s.checkIn(r.Context(), &m)
	if err != nil {
		return nil, err
	}
	text, err := proto.Marshal(out)
	if err != nil {
		return nil, answer(err)
	}
	return text, nil
}
