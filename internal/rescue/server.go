package rescue

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/keepout-security/keepout/internal/recovery/protocol"
)

// Limits of one request. plan has a limit for all of them together.
const (
	requestTime = 45 * time.Second
	dialTime    = 10 * time.Second
	headerTime  = 30 * time.Second
	clockTries  = 3 // certificates of one chain that may be newer than the clock
)

// Server speaks to the control plane. It may be used from several goroutines.
type Server struct {
	base   string
	client *http.Client
	time   *clockFloor
}

// ServerOptions say how a server is reached and by which time its certificate is judged: the machine's clock, but never
// before the floor.
type ServerOptions struct {
	Roots *x509.CertPool
	Proxy string    // http://host:port; empty: none
	Floor time.Time // a time that has certainly passed
	Wrong bool      // the clock is known to be wrong: it showed a time before the floor
	Now   func() time.Time
	Limit time.Duration // of one request; 0: requestTime
}

type clockFloor struct {
	mu sync.Mutex
	ServerOptions
}

func (c *clockFloor) Time() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := c.Now(); now.After(c.Floor) {
		return now
	}
	c.Wrong = true
	return c.Floor
}

// raise moves the floor to the beginning of a certificate's life when the clock is known to be wrong. It reports
// whether that changed anything.
func (c *clockFloor) raise(to time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.Wrong || !to.After(c.Floor) {
		return false
	}
	c.Floor = to.Add(time.Minute)
	return true
}

// NewServer makes a client. Where the clock is known to be wrong, a certificate that is newer than the floor is taken
// to be valid from now. That weakens TLS against a thief of an old certificate's key only, and what counts is signed
// besides.
func NewServer(base string, o ServerOptions) (*Server, error) {
	s := &Server{base: strings.TrimSuffix(base, "/"), time: &clockFloor{ServerOptions: o}}
	transport := &http.Transport{
		DialContext:         (&net.Dialer{Timeout: dialTime}).DialContext,
		TLSClientConfig:     &tls.Config{RootCAs: o.Roots, Time: s.time.Time, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout: dialTime, ResponseHeaderTimeout: headerTime,
		DisableCompression: true, MaxIdleConns: 2, IdleConnTimeout: time.Minute,
	}
	if o.Proxy != "" {
		address, err := url.Parse(o.Proxy)
		if err != nil {
			return nil, fmt.Errorf("the proxy's address: %w", err)
		}
		transport.Proxy = http.ProxyURL(address)
	}
	s.client = &http.Client{Transport: transport, Timeout: cmp.Or(o.Limit, requestTime), CheckRedirect: refuseRedirect}
	return s, nil
}

var errRedirect = errors.New("it sends elsewhere: the network may want somebody to sign in first")

func refuseRedirect(*http.Request, []*http.Request) error { return errRedirect }

// Host is the server's name, for people.
func (s *Server) Host() string {
	u, err := url.Parse(s.base)
	if err != nil {
		return s.base
	}
	return u.Hostname()
}

// Upload sends a bundle.
func (s *Server) Upload(ctx context.Context, machine, digest string, test bool, bundle []byte) error {
	header := http.Header{
		"Content-Type":         {protocol.BundleType},
		protocol.MachineHeader: {machine},
		protocol.DigestHeader:  {digest},
	}
	if test {
		header.Set(protocol.TestHeader, "true")
	}
	_, _, err := s.post(ctx, protocol.BundlePath, header, bundle)
	return err
}

// Ask asks for a fix. The envelope in the answer is not verified.
func (s *Server) Ask(ctx context.Context, request protocol.FixRequest) (protocol.FixResponse, error) {
	body, err := json.Marshal(request)
	if err != nil {
		return protocol.FixResponse{}, fmt.Errorf("encode the question: %w", err)
	}
	kind, answer, err := s.post(ctx, protocol.FixPath, http.Header{"Content-Type": {protocol.ContentType}}, body)
	if err != nil {
		return protocol.FixResponse{}, err
	}
	return protocol.DecodeResponse(kind, answer)
}

// Report tells what became of the visit.
func (s *Server) Report(ctx context.Context, report protocol.Report) error {
	body, err := json.Marshal(report)
	if err != nil {
		return fmt.Errorf("encode the report: %w", err)
	}
	_, _, err = s.post(ctx, protocol.ReportPath, http.Header{"Content-Type": {protocol.ContentType}}, body)
	return err
}

// post sends one request, again when a certificate showed that the clock is wrong.
func (s *Server) post(ctx context.Context, path string, header http.Header, body []byte) (string, []byte, error) {
	for try := 1; ; try++ {
		kind, answer, err := s.once(ctx, path, header, body)
		var invalid x509.CertificateInvalidError
		if err == nil || try > clockTries || !errors.As(err, &invalid) || invalid.Cert == nil ||
			!s.time.raise(invalid.Cert.NotBefore) {
			return kind, answer, plain(err)
		}
	}
}

func (s *Server) once(ctx context.Context, path string, header http.Header, body []byte) (string, []byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.base+path, bytes.NewReader(body))
	if err != nil {
		return "", nil, err
	}
	request.Header = header.Clone()
	response, err := s.client.Do(request)
	if err != nil {
		return "", nil, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, protocol.MaxResponse+1))
	switch {
	case err != nil:
		return "", nil, fmt.Errorf("its answer broke off: %w", err)
	case len(answer) > protocol.MaxResponse:
		return "", nil, fmt.Errorf("its answer is longer than %d bytes", protocol.MaxResponse)
	case response.StatusCode/100 != 2:
		return "", nil, fmt.Errorf("it answered %s", response.Status)
	}
	return response.Header.Get("Content-Type"), answer, nil
}

var errLate = errors.New("it did not answer in time")

// plain takes away what net/http puts before an error: the method and the whole address, which the screen shows
// already.
func plain(err error) error {
	var timeout interface{ Timeout() bool }
	if errors.As(err, &timeout) && timeout.Timeout() {
		return errLate
	}
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		return wrapped.Err
	}
	return err
}
