// Package identity is who is who: the fleet's own certificate authority, the director's key, and tokens.
//
// It guarantees that private keys lie in files that only their owner can read, that a host's key never is here at all,
// and that of a token only its hash is kept.
package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/keepout-security/keepout/internal/durable"
)

// Lifetimes.
const (
	HostLife   = 7 * 24 * time.Hour
	HostGrace  = 90 * 24 * time.Hour // a host that was away for longer enrols anew
	serverLife = 30 * 24 * time.Hour
	rootLife   = 10 * 365 * 24 * time.Hour
	backdate   = 10 * time.Minute // clocks differ
)

// Files in the state directory.
const (
	rootFile     = "ca.pem"
	rootKeyFile  = "ca-key.pem"
	directorFile = "director-key.pem"
)

// Authority issues certificates. It is safe for concurrent use.
type Authority struct {
	Root     *x509.Certificate
	Director ed25519.PrivateKey // signs grants and times
	key      *ecdsa.PrivateKey
}

// OpenAuthority reads the authority's keys from dir, and makes them where there are none.
func OpenAuthority(dir string, now time.Time) (*Authority, error) {
	if _, err := os.Stat(filepath.Join(dir, rootFile)); errors.Is(err, fs.ErrNotExist) {
		if err := create(dir, now); err != nil {
			return nil, err
		}
	}
	a := &Authority{}
	der, err := readPEM(dir, rootFile, "CERTIFICATE")
	if err != nil {
		return nil, err
	}
	if a.Root, err = x509.ParseCertificate(der); err != nil {
		return nil, fmt.Errorf("%s: %w", rootFile, err)
	}
	var ok, ok2 bool
	key, err := readKey(dir, rootKeyFile)
	if err != nil {
		return nil, err
	}
	director, err := readKey(dir, directorFile)
	if err != nil {
		return nil, err
	}
	a.key, ok = key.(*ecdsa.PrivateKey)
	a.Director, ok2 = director.(ed25519.PrivateKey)
	if !ok || !ok2 || !a.key.PublicKey.Equal(a.Root.PublicKey) {
		return nil, fmt.Errorf("%s: the keys and certificates in this folder do not belong together", dir)
	}
	return a, nil
}

// create makes both keys and the root. The root comes last: where it is, all is.
func create(dir string, now time.Time) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make the authority's key: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "keepout fleet"},
		NotBefore: now.Add(-backdate), NotAfter: now.Add(rootLife),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return fmt.Errorf("make the authority's certificate: %w", err)
	}
	return errors.Join(
		writeKey(dir, rootKeyFile, key), createDirector(dir),
		durable.WriteFile(filepath.Join(dir, rootFile), PEM("CERTIFICATE", der), 0o644),
	)
}

// createDirector makes the director's key, unless it was put there: that of the operator's role, which hosts know.
func createDirector(dir string) error {
	if _, err := os.Stat(filepath.Join(dir, directorFile)); err == nil {
		return nil
	}
	_, director, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return fmt.Errorf("make the director's key: %w", err)
	}
	return writeKey(dir, directorFile, director)
}

// PEM is text with one block.
func PEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func writeKey(dir, name string, key any) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return durable.WriteFile(filepath.Join(dir, name), PEM("PRIVATE KEY", der), 0o600)
}

func readKey(dir, name string) (any, error) {
	der, err := readPEM(dir, name, "PRIVATE KEY")
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return key, nil
}

func readPEM(dir, name, kind string) ([]byte, error) {
	text, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return nil, fmt.Errorf("read the authority: %w", err)
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != kind {
		return nil, fmt.Errorf("%s: no %s in it", filepath.Join(dir, name), kind)
	}
	return block.Bytes, nil
}

// serial is a random number of 128 bits; it cannot fail: crypto/rand ends the process instead.
func serial() *big.Int {
	var b [16]byte
	_, _ = rand.Read(b[:])
	b[0] &= 0x7f
	return new(big.Int).SetBytes(b[:])
}

// Fingerprint is what a token carries so that a new host knows the fleet: SHA-256 of the root, hexadecimal.
func (a *Authority) Fingerprint() string { return Fingerprint(a.Root.Raw) }

// Fingerprint is the SHA-256 of a certificate, hexadecimal.
func Fingerprint(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

// DirectorKey is the public key that grants and times are verified with.
func (a *Authority) DirectorKey() ed25519.PublicKey {
	return ed25519.PublicKey(a.Director[ed25519.PrivateKeySize-ed25519.PublicKeySize:])
}

// Issued is a new certificate.
type Issued struct {
	DER      []byte
	Serial   string // hexadecimal
	KeyHash  string
	NotAfter time.Time
}

// maxCSR bounds a certificate request, in bytes.
const maxCSR = 4096

// IssueHost makes a certificate for the key of a request. Nothing else of the request is used. It refuses what
// is no request, is not signed by its own key, and keys other than ECDSA P-256 and Ed25519.
func (a *Authority) IssueHost(csr []byte, id string, now time.Time) (Issued, error) {
	key, hash, err := KeyOf(csr)
	if err != nil {
		return Issued{}, err
	}
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: id},
		NotBefore: now.Add(-backdate), NotAfter: now.Add(HostLife).Truncate(time.Second),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.Root, key, a.key)
	if err != nil {
		return Issued{}, fmt.Errorf("issue a certificate: %w", err)
	}
	return Issued{
		DER: der, Serial: template.SerialNumber.Text(16), KeyHash: hash, NotAfter: template.NotAfter.UTC(),
	}, nil
}

// KeyOf checks a certificate request and returns its key and the key's hash.
func KeyOf(csr []byte) (key crypto.PublicKey, hash string, err error) {
	if len(csr) > maxCSR {
		return nil, "", fmt.Errorf("the certificate request has %d bytes, more than %d", len(csr), maxCSR)
	}
	req, err := x509.ParseCertificateRequest(csr)
	if err != nil {
		return nil, "", fmt.Errorf("the certificate request cannot be read: %w", err)
	}
	if err := req.CheckSignature(); err != nil {
		return nil, "", fmt.Errorf("the certificate request is not signed by its own key: %w", err)
	}
	switch key := req.PublicKey.(type) {
	case ed25519.PublicKey:
	case *ecdsa.PublicKey:
		if key.Curve != elliptic.P256() {
			return nil, "", errors.New("the key is not of a kind that is used here: P-256 or Ed25519")
		}
	default:
		return nil, "", errors.New("the key is not of a kind that is used here: P-256 or Ed25519")
	}
	return req.PublicKey, Fingerprint(req.RawSubjectPublicKeyInfo), nil
}

// issueServer makes the listener's certificate.
func (a *Authority) issueServer(key *ecdsa.PrivateKey, names []string, now time.Time) ([]byte, error) {
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "keepout-fleet"},
		NotBefore: now.Add(-backdate), NotAfter: now.Add(serverLife),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	return x509.CreateCertificate(rand.Reader, template, a.Root, key.Public(), a.key)
}
