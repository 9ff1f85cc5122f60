package fetch

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keepout-security/keepout/internal/artifact"
	"github.com/keepout-security/keepout/internal/fleet/fleetpb"
	"github.com/keepout-security/keepout/internal/issuer"
	"github.com/keepout-security/keepout/internal/rollback"
	"github.com/keepout-security/keepout/internal/sign"
	"github.com/keepout-security/keepout/internal/update"
)

// market is an operator with several vendors, and the folder that they publish in. Each vendor makes one provider, of
// its own name with -edr behind it.
type market struct {
	t    *testing.T
	dir  string
	home map[string]*issuer.Issuer // by name; "ops" is the operator
}

func newMarket(t *testing.T, vendors ...string) *market {
	t.Helper()
	k := &market{t: t, dir: t.TempDir(), home: map[string]*issuer.Issuer{}}
	k.begin("ops", issuer.Operator)
	for _, v := range vendors {
		k.begin(v, issuer.Vendor)
		root, err := os.ReadFile(k.in(v, "metadata", "1.root.json"))
		k.must(err)
		_, err = k.home["ops"].Admit(v, root, []string{v + "-edr"}, time.Now())
		k.must(err)
	}
	for _, dir := range []string{"staging", "stick"} {
		k.must(os.MkdirAll(k.in(dir), 0o755))
	}
	return k
}

func (k *market) begin(name string, party issuer.Party) {
	k.t.Helper()
	i, err := issuer.Init(k.in(name), party, name, func(string) (string, error) { return "", nil }, time.Now())
	k.must(err)
	k.t.Cleanup(func() { _ = i.Close() })
	k.home[name] = i
}

func (k *market) in(parts ...string) string {
	return filepath.Join(append([]string{k.dir}, parts...)...)
}

func (k *market) must(err error) {
	k.t.Helper()
	if err != nil {
		k.t.Fatal(err)
	}
}

// release signs content on both sides at a time, and returns its digest.
func (k *market) release(vendor, version string, counter uint64, at time.Time) (digest string) {
	k.t.Helper()
	from := k.in("files", vendor, version)
	k.must(os.MkdirAll(from, 0o755))
	k.must(os.WriteFile(filepath.Join(from, "deny.txt"), []byte(vendor+version), 0o644))
	b, err := artifact.Build(context.Background(), artifact.Input{
		Release: sign.Release{
			Provider: vendor + "-edr", Kind: sign.Content, Class: sign.Content, Version: version, Counter: counter,
			Hardware: []string{"any"},
		},
		Files: from, Manifest: []byte("id: " + vendor + "-edr\n"),
	}, k.in("stick"))
	k.must(err)
	for home, signed := range map[string]time.Time{vendor: at, "ops": time.Now()} {
		_, err := k.home[home].Release(b.Release, b.Digest, b.Length, signed)
		k.must(err)
	}
	return b.Digest
}

// publish puts everybody's current metadata on the stick.
func (k *market) publish() {
	k.t.Helper()
	for name := range k.home {
		to := filepath.Join(update.VendorsDir, name)
		if name == "ops" {
			to = update.OperatorDir
		}
		k.must(os.RemoveAll(k.in("stick", to)))
		k.must(os.CopyFS(k.in("stick", to), os.DirFS(k.in(name, "metadata"))))
	}
}

// once looks at the stick as a host without a server does.
func (k *market) once() error {
	return Run(k.t.Context(), Options{StateDir: k.dir, Staging: k.in("staging"), From: k.in("stick"), Once: true})
}

func (k *market) orders() update.Orders {
	k.t.Helper()
	o, err := update.ReadOrders(os.DirFS(k.in("staging")))
	k.must(err)
	return o
}

// core is what takes from the staging folder, on a host with all these providers.
type core struct{ offered []string }

func (c *core) Import(_ rollback.Part, name string, tar io.Reader) (rollback.Digest, error) {
	_, err := io.Copy(io.Discard, tar)
	return rollback.Digest(name), err
}
func (c *core) Release(rollback.Digest)               {}
func (c *core) State(p string) (rollback.State, bool) { return rollback.New(p), true }
func (c *core) Offer(p string, _ rollback.Part, _ rollback.Version) error {
	c.offered = append(c.offered, p)
	return nil
}
func (c *core) Back(string, rollback.Part, rollback.Version, string) error    { return nil }
func (c *core) Withdraw(string, rollback.Part, rollback.Digest, string) error { return nil }

// take lets a new core look once: which providers it offers content to, and what it says is wrong.
func (k *market) take() (offered []string, problems string) {
	k.t.Helper()
	root, err := os.ReadFile(k.in("ops", "metadata", "1.root.json"))
	k.must(err)
	c, trust := &core{}, k.t.TempDir()
	taker, err := update.New(update.Config{
		Dir: trust, Staging: k.in("staging"), Root: root, Hardware: "linux/amd64", Host: c,
	})
	k.must(err)
	taker.Look()
	return c.offered, fmt.Sprint(taker.Problems())
}

// file finds the one file of a vendor's on the stick whose name ends so.
func (k *market) file(vendor, suffix string) string {
	k.t.Helper()
	found, err := filepath.Glob(k.in("stick", update.VendorsDir, vendor, "*"+suffix))
	if err != nil || len(found) == 0 {
		k.t.Fatalf("%s has no *%s: %v", vendor, suffix, err)
	}
	return found[len(found)-1]
}

// breaks are the ways in which one vendor's repository is of no use.
func breaks() map[string]struct {
	how  func(k *market)
	code string // of what the core says
} {
	replace := func(suffix string, with func(string) string) func(k *market) {
		return func(k *market) {
			k.t.Helper()
			name := k.file("acme", suffix)
			text, err := os.ReadFile(name)
			k.must(err)
			k.must(os.Chmod(name, 0o644))
			k.must(os.WriteFile(name, []byte(with(string(text))), 0o644))
		}
	}
	missing := func(suffix string) func(k *market) {
		return func(k *market) { k.t.Helper(); k.must(os.Remove(k.file("acme", suffix))) }
	}
	half := func(s string) string { return s[:len(s)/2] }
	return map[string]struct {
		how  func(k *market)
		code string
	}{
		"no folder": {func(k *market) {
			k.must(os.RemoveAll(k.in("stick", update.VendorsDir, "acme")))
		}, update.CodeVendor},
		"no timestamp":   {missing(stampFile), update.CodeVendor},
		"no snapshot":    {missing(".snapshot.json"), update.CodeVendor},
		"no targets":     {missing(".content.json"), update.CodeVendor},
		"torn timestamp": {replace(stampFile, half), update.CodeVendor},
		"torn root":      {replace("1.root.json", half), update.CodeVendor},
		"torn snapshot":  {replace(".snapshot.json", half), update.CodeVendor},
		"names of no files": {replace(".snapshot.json", func(s string) string {
			return strings.ReplaceAll(s, `"content.json"`, `"../x"`)
		}), update.CodeVendor},
		"bad signature": {replace(stampFile, func(s string) string {
			return strings.Replace(s, `"sig":"`, `"sig":"00`, 1)
		}), sign.CodeThreshold},
		"another's signature": {replace(stampFile, func(s string) string {
			return strings.Replace(s, `"version":`, `"x":1,"version":`, 1)
		}), sign.CodeThreshold},
		"expired": {func(*market) {}, sign.CodeExpired},
	}
}

// TestVendorTroubleIsItsOwn: whatever is wrong with the metadata of one vendor, the others' packages are staged and
// used, with a server and without one, and what is wrong is said of that vendor, with a code.
func TestVendorTroubleIsItsOwn(t *testing.T) {
	t.Parallel()
	for name, c := range breaks() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k, at := newMarket(t, "acme", "bravo", "zulu"), time.Now()
			if name == "expired" {
				at = at.AddDate(-3, 0, 0)
			}
			digests := []string{
				k.release("acme", "one", 1, at), k.release("bravo", "one", 1, time.Now()),
				k.release("zulu", "one", 1, time.Now()),
			}
			k.publish()
			c.how(k)
			check := func(how string) {
				t.Helper()
				offered, problems := k.take()
				if got := strings.Join(offered, " "); got != "bravo-edr zulu-edr" && got != "zulu-edr bravo-edr" {
					t.Errorf("%s: used for %q", how, got)
				}
				if !strings.Contains(problems, c.code) || !strings.Contains(problems, "acme") {
					t.Errorf("%s: the host says %q, want %s and the vendor", how, problems, c.code)
				}
				if strings.Contains(problems, "bravo") || strings.Contains(problems, "zulu") {
					t.Errorf("%s: the host says %q", how, problems)
				}
			}
			fetched := c.code != update.CodeVendor
			if err := k.once(); (err == nil) != fetched || !fetched && !strings.Contains(err.Error(), "acme") {
				t.Errorf("without a server: %v", err)
			}
			check("without a server")
			k.must(os.RemoveAll(k.in("staging")))
			var list []*fleetpb.Order
			for _, d := range digests {
				list = append(list, stageOrder(d))
			}
			f := stager(t, k.dir)
			if unfinished, err := f.obey(t.Context(), list, nil); err != nil || unfinished {
				t.Errorf("with a server: unfinished: %v, %v", unfinished, err)
			}
			check("with a server")
		})
	}
}

// TestGoodMetadataOutlivesBad: what a vendor published before stays in use while what follows it is broken, and what is
// mended is taken.
func TestGoodMetadataOutlivesBad(t *testing.T) {
	t.Parallel()
	k := newMarket(t, "acme")
	k.release("acme", "one", 1, time.Now())
	k.publish()
	k.must(k.once())
	k.release("acme", "two", 2, time.Now())
	k.publish()
	good := k.file("acme", ".content.json")
	k.must(os.Rename(good, good+".gone"))
	if err := k.once(); err == nil {
		t.Error("nobody is told")
	}
	dir := os.DirFS(k.in("staging"))
	verify := func(path string) error {
		t.Helper()
		root, err := os.ReadFile(k.in("ops", "metadata", "1.root.json"))
		k.must(err)
		trust := sign.Trust{OperatorRoot: root, Vendor: "acme", Hardware: "linux/amd64"}
		_, _, err = sign.Verify(trust, sign.State{}, time.Now(), sub(t, dir, "vendors/acme"), sub(t, dir, "operator"), path)
		return err
	}
	if err := verify("acme-edr/content/one"); err != nil {
		t.Errorf("what was good before: %v", err)
	}
	k.must(os.Rename(good+".gone", good))
	k.must(k.once())
	if err := verify("acme-edr/content/two"); err != nil || len(k.orders().Troubles) > 0 {
		t.Errorf("what was mended: %v, %v", err, k.orders().Troubles)
	}
}

// TestBrokenPackageIsItsVendors: without a server, a package that is not whole keeps no other vendor's from being
// staged.
func TestBrokenPackageIsItsVendors(t *testing.T) {
	t.Parallel()
	k := newMarket(t, "acme", "zulu")
	name, err := blob(k.release("acme", "one", 1, time.Now()))
	k.must(err)
	want := k.release("zulu", "one", 1, time.Now())
	k.publish()
	k.must(os.Remove(k.in("stick", name)))
	if err := k.once(); err == nil || !strings.Contains(err.Error(), "acme") {
		t.Errorf("said: %v", err)
	}
	got := k.orders()
	if len(got.Orders) != 1 || got.Orders[0].Digest != want || len(got.Troubles) != 1 || got.Troubles[0].Vendor != "acme" {
		t.Errorf("the core is told %+v", got)
	}
}

// TestSlowVendorTakesItsPart: metadata of one vendor that never comes takes its part of a turn, and the others' comes
// in the same one.
func TestSlowVendorTakesItsPart(t *testing.T) {
	t.Parallel()
	k := newMarket(t, "acme", "zulu")
	k.release("acme", "one", 1, time.Now())
	want := k.release("zulu", "one", 1, time.Now())
	k.publish()
	f := stager(t, k.dir)
	f.turn = 2 * time.Second
	f.stalls(func(name string) bool { return name == "vendors/acme/"+stampFile })
	for range 20 { // a busy disk may need more than one
		if _, err := f.obey(t.Context(), []*fleetpb.Order{stageOrder(want)}, nil); err != nil {
			t.Fatal(err)
		}
		if offered, _ := k.take(); len(offered) == 1 && offered[0] == "zulu-edr" {
			got := k.orders().Troubles
			if len(got) != 1 || got[0].Vendor != "acme" || !strings.Contains(got[0].Why, errTurn.Error()) {
				t.Errorf("the core is told of %+v", got)
			}
			return
		}
	}
	t.Errorf("the core is told %+v", k.orders())
}

func sub(t *testing.T, dir fs.FS, name string) fs.FS {
	t.Helper()
	below, err := fs.Sub(dir, name)
	if err != nil {
		t.Fatal(err)
	}
	return below
}
