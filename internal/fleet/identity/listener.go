package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"time"
)

// ServerTLS is how the one listener speaks: TLS 1.3, its certificate made anew before it ends, and a client's
// certificate, where it shows one, verified up to its end of life: whether one that has ended is still good for
// renewal is for who knows the hosts.
func (a *Authority) ServerTLS(names []string, clock func() time.Time) *tls.Config {
	pool := x509.NewCertPool()
	pool.AddCert(a.Root)
	current := &serverCert{authority: a, names: names, clock: clock}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{"h2", "http/1.1"},
		ClientAuth: tls.RequestClientCert, ClientCAs: pool,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return current.get() },
		VerifyConnection: func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) == 0 {
				return nil
			}
			return verifyHost(s.PeerCertificates[0], pool, clock())
		},
	}
}

// verifyHost checks a host's certificate as of now, or as of its last moment.
func verifyHost(cert *x509.Certificate, pool *x509.CertPool, now time.Time) error {
	if now.After(cert.NotAfter) {
		now = cert.NotAfter
	}
	_, err := cert.Verify(x509.VerifyOptions{
		Roots: pool, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return fmt.Errorf("the host's certificate: %w", err)
	}
	return nil
}

// serverCert makes the listener's certificate when it is asked for, and again after two thirds of its life.
type serverCert struct {
	authority *Authority
	names     []string
	clock     func() time.Time

	mu    sync.Mutex
	cert  *tls.Certificate
	until time.Time
}

func (s *serverCert) get() (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.clock()
	if s.cert != nil && now.Before(s.until) && s.until.Sub(now) <= serverLife {
		return s.cert, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the listener's key: %w", err)
	}
	der, err := s.authority.issueServer(key, s.names, now)
	if err != nil {
		return nil, fmt.Errorf("make the listener's certificate: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("the listener's certificate: %w", err)
	}
	// The root goes with it: a host that enrols knows the root's fingerprint only.
	s.cert = &tls.Certificate{Certificate: [][]byte{der, s.authority.Root.Raw}, PrivateKey: key, Leaf: leaf}
	s.until = now.Add(serverLife * 2 / 3)
	return s.cert, nil
}

// ClientTLS trusts one root and nothing else.
func ClientTLS(root *x509.Certificate) *tls.Config {
	pool := x509.NewCertPool()
	pool.AddCert(root)
	return &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: pool}
}

// HostTLS is ClientTLS for a host, whose clock may be years off: a certificate that has ended, or has not begun, by
// that clock is good nevertheless. Else a wrong clock would keep the host from hearing of a halt, and a fix from it.
// What a host activates does not rest on it: that is signed, and its time floor never falls.
func HostTLS(root *x509.Certificate, serverName string) *tls.Config {
	pool := x509.NewCertPool()
	pool.AddCert(root)
	return &tls.Config{
		MinVersion: tls.VersionTLS13, ServerName: serverName,
		InsecureSkipVerify: true, //nolint:gosec // VerifyConnection verifies, but for the time
		VerifyConnection: func(s tls.ConnectionState) error {
			return verifyServer(s.PeerCertificates, pool, serverName, time.Now())
		},
	}
}

// verifyServer checks the server's certificate as of now, or as of the moment of its life that is closest.
func verifyServer(chain []*x509.Certificate, pool *x509.CertPool, name string, now time.Time) error {
	if len(chain) == 0 {
		return errors.New("the server shows no certificate")
	}
	leaf := chain[0]
	if now.Before(leaf.NotBefore) {
		now = leaf.NotBefore
	}
	if now.After(leaf.NotAfter) {
		now = leaf.NotAfter
	}
	_, err := leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: pool, CurrentTime: now})
	if err != nil {
		return fmt.Errorf("the server's certificate: %w", err)
	}
	return nil
}

// PinnedTLS trusts the server whose chain ends in a root with this fingerprint, for a host that has nothing but an
// enrolment token. Its clock may be wrong, as in HostTLS.
func PinnedTLS(fingerprint, serverName string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, ServerName: serverName,
		InsecureSkipVerify: true, //nolint:gosec // VerifyConnection verifies, with the root that the token names
		VerifyConnection: func(s tls.ConnectionState) error {
			last := len(s.PeerCertificates) - 1
			if last < 1 || Fingerprint(s.PeerCertificates[last].Raw) != fingerprint {
				return errors.New("the server is not the one that the enrolment token was made by")
			}
			pool := x509.NewCertPool()
			pool.AddCert(s.PeerCertificates[last])
			return verifyServer(s.PeerCertificates, pool, serverName, time.Now())
		},
	}
}
