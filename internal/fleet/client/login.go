// Package client calls the control plane, for people's tools and for hosts. It links net/http, crypto/tls and the
// generated code, and no database.
//
// It guarantees that nothing is sent to a server before its certificate was verified, and that a host's private key is
// made here and never sent.
package client

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"

	"connectrpc.com/connect"

	"github.com/keepout-security/keepout/internal/fleet/fleetpb/fleetpbconnect"
	"github.com/keepout-security/keepout/internal/fleet/identity"
)

// maxAnswer bounds what is read of one answer, in bytes.
const maxAnswer = 16 << 20

// Login is how a person reaches a control plane. It is kept as JSON, in clear text, in a file that only its owner may
// read.
type Login struct {
	Note   string `json:"note,omitempty"`
	Server string `json:"server"` // https://host:port
	Token  string `json:"token"`
	CA     string `json:"ca"` // PEM
}

// Text is the file's content.
func (l *Login) Text() []byte {
	text, err := json.MarshalIndent(l, "", "  ")
	if err != nil {
		return nil // it is all text
	}
	return append(text, '\n')
}

// LoadLogin reads such a file.
func LoadLogin(path string) (*Login, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the login: %w", err)
	}
	var l Login
	if err := json.Unmarshal(text, &l); err != nil {
		return nil, fmt.Errorf("read the login in %s: %w", path, err)
	}
	if l.Server == "" || l.Token == "" || l.CA == "" {
		return nil, fmt.Errorf("the login in %s lacks server, token or ca", path)
	}
	return &l, nil
}

// Dial makes a client; nothing is sent yet. It is safe for concurrent use.
func (l *Login) Dial() (fleetpbconnect.FleetServiceClient, error) { return l.DialThrough(nil) }

// DialThrough is Dial for a server that only a dialer of the caller's own reaches, past any proxy. nil is the usual
// dialer.
func (l *Login) DialThrough(
	dial func(ctx context.Context, network, address string) (net.Conn, error),
) (fleetpbconnect.FleetServiceClient, error) {
	root, err := parseRoot([]byte(l.CA))
	if err != nil {
		return nil, err
	}
	if err := checkServer(l.Server); err != nil {
		return nil, err
	}
	transport := &http.Transport{
		TLSClientConfig: identity.ClientTLS(root), ForceAttemptHTTP2: true, Proxy: http.ProxyFromEnvironment,
		TLSHandshakeTimeout: 20 * time.Second,
	}
	if dial != nil {
		transport.Proxy, transport.DialContext = nil, dial
	}
	return fleetpbconnect.NewFleetServiceClient(
		&http.Client{Transport: transport, Timeout: time.Minute}, l.Server,
		connect.WithReadMaxBytes(maxAnswer), connect.WithInterceptors(bearer(l.Token)),
	), nil
}

func checkServer(server string) error {
	u, err := url.Parse(server)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return fmt.Errorf("%q is no server: write https://HOST:PORT", server)
	}
	return nil
}

func parseRoot(text []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("the authority is no PEM text")
	}
	root, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("the authority: %w", err)
	}
	return root, nil
}

// bearer adds the token to every call.
func bearer(token string) connect.UnaryInterceptorFunc {
	return func(next connect.UnaryFunc) connect.UnaryFunc {
		return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
			req.Header().Set("Authorization", "Bearer "+token)
			return next(ctx, req)
		}
	}
}
