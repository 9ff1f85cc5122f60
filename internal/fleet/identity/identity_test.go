package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func csrOf(t *testing.T, curve elliptic.Curve) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{"evil"}}, key)
	if err != nil {
		t.Fatal(err)
	}
	return csr
}

// TestAuthority: keys stay, lie where only their owner reads them, and a certificate has nothing that a host asked for.
func TestAuthority(t *testing.T) {
	t.Parallel()
	dir, now := t.TempDir(), time.Now()
	a, err := OpenAuthority(dir, now)
	if err != nil {
		t.Fatal(err)
	}
	again, err := OpenAuthority(dir, now)
	if err != nil || again.Fingerprint() != a.Fingerprint() || !again.Director.Equal(a.Director) {
		t.Fatalf("a second start has other keys: %v", err)
	}
	for _, name := range []string{rootKeyFile, directorFile} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	issued, err := again.IssueHost(csrOf(t, elliptic.P256()), "h-1", now)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(issued.DER)
	if err != nil || cert.Subject.CommonName != "h-1" || len(cert.DNSNames) > 0 || cert.IsCA ||
		cert.NotAfter.Sub(now) > HostLife {
		t.Errorf("%+v, %v", cert, err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(a.Root)
	for _, c := range []struct {
		at time.Time
		ok bool
	}{{now, true}, {now.Add(HostLife * 2), true}, {now.Add(-time.Hour), false}} {
		if err := verifyHost(cert, pool, c.at); (err == nil) != c.ok {
			t.Errorf("at %v: %v", c.at.Sub(now), err)
		}
	}
	for name, csr := range map[string][]byte{
		"empty": nil, "P-384": csrOf(t, elliptic.P384()), "torn": csrOf(t, elliptic.P256())[:50],
		"endless": make([]byte, maxCSR+1),
	} {
		if _, err := a.IssueHost(csr, "h", now); err == nil {
			t.Errorf("a request that is %s is granted", name)
		}
	}
	if err := os.Remove(filepath.Join(dir, directorFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenAuthority(dir, now); err == nil {
		t.Error("a lost key is made anew in silence: every host would distrust it")
	}
}

func FuzzParseEnrolToken(f *testing.F) {
	text, want := NewEnrolToken(Fingerprint([]byte("root")))
	f.Add(text)
	f.Add("ko1.x.y")
	f.Fuzz(func(t *testing.T, in string) {
		hash, fingerprint, err := ParseEnrolToken(in)
		if err == nil && (len(hash) != 64 || len(fingerprint) != 64) {
			t.Fatalf("%q gives %q and %q", in, hash, fingerprint)
		}
		if in == text && (err != nil || hash != want) {
			t.Fatalf("a genuine token: %q, %v", hash, err)
		}
	})
}
