package client

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"

	"github.com/keepout-security/keepout/internal/fleet/access"
	"github.com/keepout-security/keepout/internal/fleet/fleetpb"
	"github.com/keepout-security/keepout/internal/fleet/fleetpb/fleetpbconnect"
	"github.com/keepout-security/keepout/internal/fleet/identity"
)

// Identity is what a host keeps after it enrolled. The caller stores it where only the fetcher can read it, before
// the first check-in; as JSON, for example.
type Identity struct {
	Server      string            `json:"server"`
	HostID      string            `json:"host_id"`
	Key         []byte            `json:"key"`         // PKCS #8, DER
	Certificate []byte            `json:"certificate"` // DER
	Authority   []byte            `json:"authority"`   // DER
	DirectorKey ed25519.PublicKey `json:"director_key"`
	NotAfter    time.Time         `json:"not_after"`
}

// About is what a host says about itself when it enrols.
type About struct {
	MachineID, Hostname string
	Labels              map[string]string
}

// Enrol makes a key and turns a one-time token into an identity. With a key from an attempt whose answer was lost, it
// gives the same host again; nil makes a new one.
func Enrol(ctx context.Context, server, token string, about About, key *ecdsa.PrivateKey) (*Identity, error) {
	_, fingerprint, err := identity.ParseEnrolToken(token)
	if err != nil {
		return nil, err
	}
	if err := checkServer(server); err != nil {
		return nil, err
	}
	u, err := url.Parse(server)
	if err != nil {
		return nil, fmt.Errorf("server: %w", err)
	}
	if key == nil {
		if key, err = NewKey(); err != nil {
			return nil, err
		}
	}
	csr, err := request(key)
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{
		TLSClientConfig: identity.PinnedTLS(fingerprint, u.Hostname()), Proxy: http.ProxyFromEnvironment,
	}
	defer transport.CloseIdleConnections()
	api := fleetpbconnect.NewHostServiceClient(&http.Client{Transport: transport, Timeout: time.Minute}, server,
		connect.WithReadMaxBytes(maxAnswer))
	got, err := api.Enrol(ctx, connect.NewRequest(&fleetpb.EnrolRequest{
		Token: strings.TrimSpace(token), Csr: csr, MachineId: about.MachineID, Hostname: about.Hostname, Labels: about.Labels,
	}))
	if err != nil {
		return nil, err
	}
	if identity.Fingerprint(got.Msg.GetAuthority()) != fingerprint {
		return nil, errors.New("the server sent another authority than the token names")
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("the host's key: %w", err)
	}
	ends, err := time.Parse(time.RFC3339, got.Msg.GetNotAfter())
	if err != nil {
		return nil, fmt.Errorf("the certificate's end: %w", err)
	}
	return &Identity{
		Server: server, HostID: got.Msg.GetHostId(), Key: der, Certificate: got.Msg.GetCertificate(),
		Authority: got.Msg.GetAuthority(), DirectorKey: got.Msg.GetDirectorKey(), NotAfter: ends,
	}, nil
}

// NewKey makes a host's key.
func NewKey() (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the host's key: %w", err)
	}
	return key, nil
}

func request(key *ecdsa.PrivateKey) ([]byte, error) {
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, fmt.Errorf("certificate request: %w", err)
	}
	return csr, nil
}

// Host speaks for one enrolled host over one connection. It is safe for concurrent use.
type Host struct {
	server string
	http   *http.Client
	api    fleetpbconnect.HostServiceClient
	base   *http.Transport

	mu sync.Mutex
	id Identity
}

// NewHost makes a client that speaks HTTP/2; nothing is sent yet.
func NewHost(id *Identity) (*Host, error) { return newHost(id, false) }

// NewHostHTTP1 makes a client that speaks HTTP/1.1 and so costs the server less while it only checks in: no frames, no
// streams, one connection for each call at a time. Nothing is sent yet.
func NewHostHTTP1(id *Identity) (*Host, error) { return newHost(id, true) }

func newHost(id *Identity, http1 bool) (*Host, error) {
	if err := checkServer(id.Server); err != nil {
		return nil, err
	}
	root, err := x509.ParseCertificate(id.Authority)
	if err != nil {
		return nil, fmt.Errorf("the authority: %w", err)
	}
	h := &Host{server: id.Server, id: *id}
	if _, err := h.certificate(nil); err != nil {
		return nil, err
	}
	server, err := url.Parse(id.Server)
	if err != nil {
		return nil, fmt.Errorf("the server: %w", err)
	}
	config := identity.HostTLS(root, server.Hostname())
	config.GetClientCertificate = h.certificate
	h.base = &http.Transport{
		TLSClientConfig: config, ForceAttemptHTTP2: true, Proxy: http.ProxyFromEnvironment, MaxIdleConns: 2,
		TLSHandshakeTimeout: time.Minute, IdleConnTimeout: 15 * time.Minute,
		HTTP2: &http.HTTP2Config{SendPingTimeout: 2 * time.Minute, PingTimeout: 20 * time.Second},
	}
	if http1 {
		h.base.ForceAttemptHTTP2, h.base.HTTP2 = false, nil
		h.base.Protocols = new(http.Protocols)
		h.base.Protocols.SetHTTP1(true)
	}
	h.http = &http.Client{Transport: h.base}
	h.api = fleetpbconnect.NewHostServiceClient(h.http, id.Server, connect.WithReadMaxBytes(maxAnswer))
	return h, nil
}

func (h *Host) certificate(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	key, err := x509.ParsePKCS8PrivateKey(h.id.Key)
	if err != nil {
		return nil, fmt.Errorf("the host's key: %w", err)
	}
	return &tls.Certificate{Certificate: [][]byte{h.id.Certificate}, PrivateKey: key}, nil
}

// Identity returns the present one.
func (h *Host) Identity() Identity {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.id
}

// ErrCertificate is part of the error for a call whose certificate the server does not take. One that has ended is good
// for Renew for another 90 days; that of a host which is not known any more is good for nothing.
var ErrCertificate = errors.New("the certificate is not taken")

// CheckIn reports, and returns what the host should do. With WaitSeconds it may take that long: ctx bounds it.
func (h *Host) CheckIn(ctx context.Context, req *fleetpb.CheckInRequest) (*fleetpb.CheckInResponse, error) {
	out, err := h.api.CheckIn(ctx, connect.NewRequest(req))
	if connect.CodeOf(err) == connect.CodeUnauthenticated {
		err = fmt.Errorf("%w: %w", ErrCertificate, err)
	}
	if err != nil {
		return nil, err
	}
	return out.Msg, nil
}

// ReportRecovery is the beacon of a host in its recovery environment.
func (h *Host) ReportRecovery(
	ctx context.Context, req *fleetpb.ReportRecoveryRequest,
) (*fleetpb.ReportRecoveryResponse, error) {
	out, err := h.api.ReportRecovery(ctx, connect.NewRequest(req))
	if err != nil {
		return nil, err
	}
	return out.Msg, nil
}

// Renew gets a certificate for a new key and hands the new identity to keep, which must store it; then, and only
// then, it is used. ctx bounds how long it may take.
func (h *Host) Renew(ctx context.Context, keep func(*Identity) error) error {
	key, err := NewKey()
	if err != nil {
		return err
	}
	csr, err := request(key)
	if err != nil {
		return err
	}
	got, err := h.api.Renew(ctx, connect.NewRequest(&fleetpb.RenewRequest{Csr: csr}))
	if err != nil {
		return err
	}
	next := h.Identity()
	if next.Key, err = x509.MarshalPKCS8PrivateKey(key); err != nil {
		return fmt.Errorf("the host's key: %w", err)
	}
	if next.NotAfter, err = time.Parse(time.RFC3339, got.Msg.GetNotAfter()); err != nil {
		return fmt.Errorf("the certificate's end: %w", err)
	}
	next.Certificate, next.DirectorKey = got.Msg.GetCertificate(), got.Msg.GetDirectorKey()
	if err := keep(&next); err != nil {
		return fmt.Errorf("keep the renewed identity: %w", err)
	}
	h.mu.Lock()
	h.id = next
	h.mu.Unlock()
	h.base.CloseIdleConnections() // the next call shows the new certificate
	return nil
}

// Fetch opens a file below the server's packages folder, from an offset. The caller bounds what it reads and closes
// it. A file that is not there is an error that matches ErrNoFile, an offset behind its end one that matches ErrNoRest.
func (h *Host) Fetch(ctx context.Context, name string, offset int64) (io.ReadCloser, error) {
	where, err := url.JoinPath(h.server, access.Packages, name)
	if err != nil {
		return nil, fmt.Errorf("fetch %s: %w", name, err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, where, http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("fetch %s: %w", name, err)
	}
	want := http.StatusOK
	if offset > 0 {
		want = http.StatusPartialContent
		req.Header.Set("Range", "bytes="+strconv.FormatInt(offset, 10)+"-")
	}
	res, err := h.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("fetch %s: %w", name, err)
	}
	if res.StatusCode == want {
		return res.Body, nil
	}
	_ = res.Body.Close() // nothing of it is wanted
	switch res.StatusCode {
	case http.StatusNotFound:
		return nil, fmt.Errorf("fetch %s: %w", name, ErrNoFile)
	case http.StatusRequestedRangeNotSatisfiable:
		return nil, fmt.Errorf("fetch %s: %w", name, ErrNoRest)
	}
	return nil, fmt.Errorf("fetch %s: the server answers %s", name, res.Status)
}

// ErrNoFile is returned for a file that the server does not have.
var ErrNoFile = errors.New("the server has no such file")

// ErrNoRest is returned for an offset at which the server's file has ended already.
var ErrNoRest = errors.New("the server's file has ended there")

// Close ends the connection when nobody uses it.
func (h *Host) Close() { h.base.CloseIdleConnections() }
