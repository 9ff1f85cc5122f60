//go:build linux

package arming

import (
	"crypto/ed25519"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keepout-security/keepout/internal/recovery/esp"
	"github.com/keepout-security/keepout/internal/recovery/intent"
	"github.com/keepout-security/keepout/internal/recovery/remediation"
	"github.com/keepout-security/keepout/internal/sign"
)

// TestArmedMachinesVerify: with nothing but what arming wrote, bootguard's verifier believes a fix of two keys of the
// organisation, and refuses one of a single key and one of strangers.
func TestArmedMachinesVerify(t *testing.T) {
	t.Parallel()
	root := build(t, fixtures()["grub-keys"].files)
	if err := plan(t, root, Options{}).Apply(); err != nil {
		t.Fatal(err)
	}
	dir := esp.Open(filepath.Join(root, "boot", "efi", "keepout"))
	bundle := strings.Repeat("2", 64)
	failure := intent.Failure{Machine: strings.Repeat("1", 32), Bundle: bundle, Floor: time.Now().Add(-time.Hour)}
	if err := intent.Note(dir, &failure); err != nil {
		t.Fatal(err)
	}
	fix := func(vendor string, keys ...ed25519.PrivateKey) []byte {
		t.Helper()
		text, err := remediation.Encode(&remediation.Fix{
			Format: 1, ID: "one", Kind: remediation.Targeted, Bundle: bundle, Issued: time.Now().Add(-time.Minute),
			Expires: time.Now().Add(time.Hour), Reason: "because", Vendor: vendor,
			Actions: []remediation.Action{{Verb: remediation.DisableProvider, Provider: "acme-av"}},
		})
		if err != nil {
			t.Fatal(err)
		}
		sealed, err := sign.Seal(keys, remediation.PayloadType, text)
		if err != nil {
			t.Fatal(err)
		}
		return sealed
	}
	for name, sealed := range map[string][]byte{
		"one key": fix("", fixKey("ada")), "strangers": fix("", fixKey("eve"), fixKey("mallory")),
		"a vendor as the organisation": fix("", fixKey("acme")),
	} {
		if _, err := intent.Verify(sealed, dir.Join(esp.Trust)); err == nil {
			t.Errorf("%s: believed", name)
		}
	}
	got, err := intent.Verify(fix("", fixKey("ada"), fixKey("bob")), dir.Join(esp.Trust))
	if err != nil || !slices.Equal(got.Orders.Disabled, []string{"acme-av"}) {
		t.Errorf("%+v, %v", got, err)
	}
	// The intents' folder need not be there before: arming makes none.
	if err := dir.LeaveIntent(esp.Intent{Name: "x.json", Data: []byte("x")}); err != nil {
		t.Error(err)
	}
}

// TestKeysThatChange: a key that was taken out of the folder is taken out of the machine's file by arming again, and
// without the folder the file stays.
func TestKeysThatChange(t *testing.T) {
	t.Parallel()
	root := build(t, fixtures()["grub-keys"].files)
	if err := plan(t, root, Options{}).Apply(); err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(root, filepath.FromSlash(KeyFolder))
	if err := os.Remove(filepath.Join(folder, "acme-av.pem")); err != nil {
		t.Fatal(err)
	}
	p := plan(t, root, Options{})
	if len(p.Changes) != 1 || !strings.HasSuffix(p.Changes[0].Path, "/trust/keys.json") {
		t.Fatalf("changes:\n%s", p.Text())
	}
	if err := p.Apply(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root, p.Changes[0].Path))
	if err != nil || strings.Contains(string(text), "acme-av") {
		t.Errorf("the vendor's key still counts: %s, %v", text, err)
	}
	if err := os.RemoveAll(folder); err != nil {
		t.Fatal(err)
	}
	if p = plan(t, root, Options{}); !p.Empty() || !strings.Contains(p.Text(), "believes no fix") {
		t.Errorf("without a folder:\n%s", p.Text())
	}
}

func TestKeysThatAreRefused(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"nothing in it":   "hello\n",
		"a private key":   "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIAAA\n-----END PRIVATE KEY-----\n",
		"larger than any": strings.Repeat("x", maxKeyFile+1),
	} {
		files := grubSystem(map[string]string{"etc/keepout/fix-keys/organisation.pem": text})
		if _, err := Arm(Options{Root: build(t, files), Bin: "/b"}); err == nil || !strings.Contains(err.Error(), "keys") {
			t.Errorf("%s: %v", name, err)
		}
	}
	files := grubSystem(map[string]string{"etc/keepout/fix-keys/organisation.pem": pemOf(fixKey("ada"))})
	if p := plan(t, build(t, files), Options{}); !strings.Contains(p.Text(), "2 keys") {
		t.Errorf("one key is enough:\n%s", p.Text())
	}
}

func TestPanicScreen(t *testing.T) {
	t.Parallel()
	const panics, code = drmPanic + "\n", drmPanic + "\n" + drmQRCode + "\n"
	for name, c := range map[string]struct {
		kernels []string
		want    string
	}{
		"no kernel has one":        {[]string{"CONFIG_DRM=y\n", "# CONFIG_DRM_PANIC is not set\n"}, ""},
		"the sentence":             {[]string{panics}, "drm.panic_screen=user"},
		"the code":                 {[]string{"CONFIG_DRM=y\n", code}, "drm.panic_screen=qr_code"},
		"one of two has the code":  {[]string{panics, code}, "drm.panic_screen=user"},
		"a longer name is another": {[]string{"CONFIG_DRM_PANIC=yes\n"}, ""},
	} {
		files := debian(nil)
		for i, text := range c.kernels {
			files["boot/config-6."+string(rune('0'+i))] = text
		}
		text := plan(t, build(t, files), Options{}).Text() // the loader is not known: the parameters are said
		if strings.Contains(text, panicScreenKey) != (c.want != "") || !strings.Contains(text, c.want) ||
			strings.Contains(text, "its words, address and colours") != (c.want != "") {
			t.Errorf("%s: want %q:\n%s", name, c.want, text)
		}
	}
}
