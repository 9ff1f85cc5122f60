package cli

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keepout-security/keepout/internal/recovery/esp"
	"github.com/keepout-security/keepout/internal/recovery/image"
	"github.com/keepout-security/keepout/internal/recovery/uki"
	"github.com/keepout-security/keepout/internal/testenv"
)

// signingKey writes an owner's key and certificate.
func signingKey(t *testing.T, dir, name string) (key, cert string) {
	t.Helper()
	private, err := rsa.GenerateKey(rand.Reader, 2048) // what firmware takes
	if err != nil {
		t.Fatal(err)
	}
	template := x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	key, cert = filepath.Join(dir, name+".key"), filepath.Join(dir, name+".crt")
	write(t, key, pem.EncodeToMemory(&pem.Block{
		Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(private),
	}))
	write(t, cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return key, cert
}

// TestSignedUnifiedImage: what the owner's key signs, the owner's certificate verifies and no other, and the parts can
// be read as before.
func TestSignedUnifiedImage(t *testing.T) {
	t.Parallel()
	testenv.Need(t, testenv.Signing)
	dir := t.TempDir()
	f := imageFlags{dir: dir, unify: true, stub: testenv.EFIStub}
	f.signKey, f.signCrt = signingKey(t, dir, "owner")
	_, stranger := signingKey(t, dir, "stranger")
	img := image.Image{Kernel: bytes.Repeat([]byte("k"), 10_000), Archive: []byte("archive")}
	img.Manifest.Release = "6.1.0-test"
	if err := f.unified(&img, image.A); err != nil {
		t.Fatal(err)
	}
	if got, err := uki.Read(img.Unified, uki.Linux); err != nil || !bytes.Equal(got, img.Kernel) {
		t.Errorf("the kernel in it: %d bytes, %v", len(got), err)
	}
	file := filepath.Join(dir, "signed.efi")
	write(t, file, img.Unified)
	for cert, want := range map[string]bool{f.signCrt: true, stranger: false} {
		out, err := exec.CommandContext(t.Context(), "sbverify", "--cert", cert, file).CombinedOutput()
		if (err == nil) != want {
			t.Errorf("%s: %v\n%s", filepath.Base(cert), err, out)
		}
	}
}

// TestUnifiedRefusals: half a key, no stub, and a plain copy in the place of a unified one, which the loader would
// start for ever.
func TestUnifiedRefusals(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, filepath.Join(dir, esp.UnifiedA), []byte("MZ"))
	for name, c := range map[string]struct {
		f   imageFlags
		why string
	}{
		"half a key":   {imageFlags{dir: dir, unify: true, signKey: "k"}, "go together"},
		"no stub":      {imageFlags{dir: dir, unify: true, stub: filepath.Join(dir, "none")}, "stub"},
		"a plain copy": {imageFlags{dir: dir}, "give --unified"},
	} {
		if err := c.f.unified(&image.Image{}, image.A); err == nil || !strings.Contains(err.Error(), c.why) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := (&imageFlags{dir: dir}).unified(&image.Image{}, image.B); err != nil {
		t.Errorf("the other copy: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, esp.UnifiedA)); err != nil {
		t.Fatal(err)
	}
}
