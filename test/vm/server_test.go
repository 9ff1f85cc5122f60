package vm

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/keepout-security/keepout/internal/recovery/diagnostics"
	"github.com/keepout-security/keepout/internal/recovery/image"
	"github.com/keepout-security/keepout/internal/recovery/intent"
	"github.com/keepout-security/keepout/internal/recovery/protocol"
	"github.com/keepout-security/keepout/internal/recovery/remediation"
	"github.com/keepout-security/keepout/internal/sign"
)

// hostAddress is the test's own machine as a guest sees it.
const hostAddress = "10.0.2.2"

// organisation is who runs the machines: its keys, its server, and what the server got.
type organisation struct {
	t        testing.TB
	keys     [2]ed25519.PrivateKey
	identity *age.X25519Identity
	roots    []byte // PEM
	server   *httptest.Server
	// answer makes the envelope for the question, or nil: no fix. Set it before a machine starts.
	answer func(q protocol.FixRequest) []byte
	retry  int // seconds, the hint in every answer
	// revoke makes the revocations that travel with an answer; nil: none.
	revoke func(q protocol.FixRequest) [][]byte

	mu      sync.Mutex
	bundles []diagnostics.Bundle
	asked   []protocol.FixRequest
	reports []protocol.Report
}

func newOrganisation(t testing.TB) *organisation {
	t.Helper()
	o := &organisation{t: t, keys: [2]ed25519.PrivateKey{keyFrom("first"), keyFrom("second")}, retry: 1}
	var err error
	if o.identity, err = age.GenerateX25519Identity(); err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+protocol.BundlePath, o.bundle)
	mux.HandleFunc("POST "+protocol.FixPath, o.fix)
	mux.HandleFunc("POST "+protocol.ReportPath, o.report)
	o.server = httptest.NewUnstartedServer(mux)
	o.server.TLS = &tls.Config{Certificates: []tls.Certificate{o.certificate()}, MinVersion: tls.VersionTLS13}
	o.server.StartTLS()
	t.Cleanup(o.server.Close)
	return o
}

// keyFrom makes a key that is the same in every run.
func keyFrom(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte(name))
	return ed25519.NewKeyFromSeed(seed[:])
}

func (o *organisation) certificate() tls.Certificate {
	o.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		o.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "fleet.example.org"},
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(48 * time.Hour),
		IPAddresses: []net.IP{net.ParseIP(hostAddress)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		o.t.Fatal(err)
	}
	o.roots = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// address is the server's as a guest reaches it.
func (o *organisation) address() string {
	_, port, err := net.SplitHostPort(o.server.Listener.Addr().String())
	if err != nil {
		o.t.Fatal(err)
	}
	return "https://" + net.JoinHostPort(hostAddress, port)
}

func (o *organisation) trust() remediation.Trust {
	return remediation.Trust{
		Organisation: sign.Role{Keys: remediation.PublicKeys(o.keys[0], o.keys[1]), Threshold: 2},
	}
}

func (o *organisation) trustText() []byte {
	o.t.Helper()
	text, err := intent.EncodeTrust(o.trust())
	if err != nil {
		o.t.Fatal(err)
	}
	return text
}

// source is an image whose machine belongs to this organisation.
func (o *organisation) source() image.Source {
	s := baseSettings()
	s.Server = o.address()
	return image.Source{
		Settings: s, Roots: o.roots, Trust: o.trustText(), Recipients: []byte(o.identity.Recipient().String() + "\n"),
	}
}

// seal signs a fix with keys.
func (o *organisation) seal(f *remediation.Fix, keys ...ed25519.PrivateKey) []byte {
	text, err := remediation.Encode(f)
	if err != nil {
		o.t.Error(err)
		return nil
	}
	sealed, err := sign.Seal(keys, remediation.PayloadType, text)
	if err != nil {
		o.t.Error(err)
	}
	return sealed
}

// targeted is the fix that answers a bundle: the provider is not started any more.
func (o *organisation) targeted(id, bundle, provider string) *remediation.Fix {
	return &remediation.Fix{
		Format: remediation.Format, ID: id, Kind: remediation.Targeted, Bundle: bundle,
		Issued: time.Now().UTC().Add(-time.Minute), Expires: time.Now().UTC().Add(time.Hour),
		Reason: "content 291 of " + provider + " ends the machine", Machines: remediation.Selector{IDs: []string{machineID}},
		Actions: []remediation.Action{{Verb: remediation.DisableProvider, Provider: provider}},
	}
}

func (o *organisation) bundle(w http.ResponseWriter, r *http.Request) {
	parcel, err := io.ReadAll(io.LimitReader(r.Body, protocol.MaxBundle+1))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	b, encoded, err := diagnostics.Open(parcel, []age.Identity{o.identity})
	if err == nil && diagnostics.Digest(encoded) != r.Header.Get(protocol.DigestHeader) {
		err = fmt.Errorf("the bundle is not the one that its header names")
	}
	if err != nil {
		o.t.Errorf("bundle: %v", err)
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	o.mu.Lock()
	o.bundles = append(o.bundles, b)
	o.mu.Unlock()
	w.WriteHeader(http.StatusNoContent)
}

func (o *organisation) fix(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, protocol.MaxRequest+1))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	q, err := protocol.DecodeRequest(body)
	if err != nil {
		o.t.Errorf("question: %v", err)
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	o.mu.Lock()
	o.asked = append(o.asked, q)
	o.mu.Unlock()
	answer := protocol.FixResponse{Version: 1, Status: protocol.NoFix, Retry: o.retry}
	if o.answer != nil {
		if envelope := o.answer(q); envelope != nil {
			answer.Status, answer.Envelope = protocol.HasFix, envelope
		}
	}
	if o.revoke != nil {
		answer.Revocations = o.revoke(q)
	}
	w.Header().Set("Content-Type", protocol.ContentType)
	if err := json.NewEncoder(w).Encode(answer); err != nil {
		o.t.Errorf("answer: %v", err)
	}
}

func (o *organisation) report(w http.ResponseWriter, r *http.Request) {
	var report protocol.Report
	if err := json.NewDecoder(io.LimitReader(r.Body, protocol.MaxRequest)).Decode(&report); err != nil {
		o.t.Errorf("report: %v", err)
	}
	o.mu.Lock()
	o.reports = append(o.reports, report)
	o.mu.Unlock()
	w.WriteHeader(http.StatusNoContent)
}

// lastBundle returns the last bundle that came in.
func (o *organisation) lastBundle() diagnostics.Bundle {
	o.t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.bundles) == 0 {
		o.t.Fatal("no bundle came in")
	}
	return o.bundles[len(o.bundles)-1]
}

func (o *organisation) lastReport() protocol.Report {
	o.t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.reports) == 0 {
		o.t.Fatal("no report came in")
	}
	return o.reports[len(o.reports)-1]
}

// wantPanic checks that a bundle tells of the panic.
func wantPanic(t testing.TB, b diagnostics.Bundle) {
	t.Helper()
	if !strings.Contains(b.Failure.Cause, "sysrq triggered crash") || len(b.Panic) < 20 {
		t.Errorf("the bundle does not tell of the panic: cause %q, %d lines", b.Failure.Cause, len(b.Panic))
	}
}
