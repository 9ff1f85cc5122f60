package fetch

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/keepout-security/keepout/internal/artifact"
	"github.com/keepout-security/keepout/internal/issuer"
	"github.com/keepout-security/keepout/internal/sign"
	"github.com/keepout-security/keepout/internal/update"
)

// TestFetchFromFolder: without any server, the newest release that the operator names is staged, whole.
func TestFetchFromFolder(t *testing.T) {
	t.Parallel()
	dir, now := t.TempDir(), time.Now()
	in := func(parts ...string) string { return filepath.Join(append([]string{dir}, parts...)...) }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	none := func(string) (string, error) { return "", nil }
	vendor, err := issuer.Init(in("acme"), issuer.Vendor, "acme", none, now)
	must(err)
	operator, err := issuer.Init(in("ops"), issuer.Operator, "ops", none, now)
	must(err)
	root, err := os.ReadFile(in("acme", "metadata", "1.root.json"))
	must(err)
	_, err = operator.Admit("acme", root, []string{"acme-edr"}, now)
	must(err)
	var newest string
	for counter, version := range map[uint64]string{1: "one", 2: "two"} {
		from := in(version)
		must(os.MkdirAll(from, 0o755))
		must(os.WriteFile(filepath.Join(from, "deny.txt"), []byte(version), 0o644))
		b, err := artifact.Build(context.Background(), artifact.Input{
			Release: sign.Release{
				Provider: "acme-edr", Kind: sign.Content, Class: sign.Content, Version: version, Counter: counter,
				Hardware: []string{"any"},
			},
			Files: from, Manifest: []byte("id: acme-edr\n"),
		}, in("stick"))
		must(err)
		for _, i := range []*issuer.Issuer{vendor, operator} {
			_, err := i.Release(b.Release, b.Digest, b.Length, now)
			must(err)
		}
		if counter == 2 {
			newest = b.Digest
		}
	}
	must(os.CopyFS(in("stick", update.OperatorDir), os.DirFS(in("ops", "metadata"))))
	must(os.CopyFS(in("stick", update.VendorsDir, "acme"), os.DirFS(in("acme", "metadata"))))
	staging := in("staging")
	must(os.MkdirAll(staging, 0o755))
	must(Run(context.Background(), Options{StateDir: dir, Staging: staging, From: in("stick"), Once: true}))
	orders, err := update.ReadOrders(os.DirFS(staging))
	must(err)
	if len(orders.Orders) != 1 || orders.Orders[0].Digest != newest || orders.Orders[0].Vendor != "acme" {
		t.Fatalf("orders %+v, want the package %s", orders, newest)
	}
	_, err = sign.VerifyOperator(sign.Trust{}, sign.State{}, now, os.DirFS(filepath.Join(staging, update.OperatorDir)))
	if err == nil {
		t.Error("a host without a root believes somebody")
	}
	name, err := blob(newest)
	must(err)
	if _, err := os.Stat(filepath.Join(staging, name)); err != nil {
		t.Error(err)
	}
}
