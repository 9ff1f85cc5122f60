package fetch

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keepout-security/keepout/internal/artifact"
	"github.com/keepout-security/keepout/internal/fleet/fleetpb"
	"github.com/keepout-security/keepout/internal/folder"
	"github.com/keepout-security/keepout/internal/issuer"
	"github.com/keepout-security/keepout/internal/sign"
	"github.com/keepout-security/keepout/internal/update"
)

// stick makes a folder with two releases that vendor and operator name, and returns what it lies in and their digests
// by version.
func stick(t *testing.T) (dir string, digests map[string]string) {
	t.Helper()
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
	digests = map[string]string{}
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
		digests[version] = b.Digest
	}
	must(os.CopyFS(in("stick", update.OperatorDir), os.DirFS(in("ops", "metadata"))))
	must(os.CopyFS(in("stick", update.VendorsDir, "acme"), os.DirFS(in("acme", "metadata"))))
	must(os.MkdirAll(in("staging"), 0o755))
	return dir, digests
}

// TestFetchFromFolder: without any server, the newest release that the operator names is staged, whole; what a power
// cut left of an earlier write goes.
func TestFetchFromFolder(t *testing.T) {
	t.Parallel()
	dir, digests := stick(t)
	staging, newest := filepath.Join(dir, "staging"), digests["two"]
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	from, torn := filepath.Join(dir, "stick"), filepath.Join(staging, ".keepout-tmp-1")
	must(os.WriteFile(torn, []byte("{"), 0o600))
	must(Run(context.Background(), Options{StateDir: dir, Staging: staging, From: from, Once: true}))
	orders, err := update.ReadOrders(os.DirFS(staging))
	must(err)
	if _, err := os.Stat(torn); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what a power cut left stays: %v", err)
	}
	if len(orders.Orders) != 1 || orders.Orders[0].Digest != newest || orders.Orders[0].Vendor != "acme" {
		t.Fatalf("orders %+v, want the package %s", orders, newest)
	}
	theirs := os.DirFS(filepath.Join(staging, update.OperatorDir))
	_, err = sign.VerifyOperator(sign.Trust{}, sign.State{}, time.Now(), theirs)
	if err == nil {
		t.Error("a host without a root believes somebody")
	}
	name, err := blob(newest)
	must(err)
	if _, err := os.Stat(filepath.Join(staging, name)); err != nil {
		t.Error(err)
	}
}

func backOrder(digest string) *fleetpb.Order {
	return &fleetpb.Order{
		Act: fleetpb.Order_ACT_ROLL_BACK, Rollout: "r1", Reason: "crash",
		Release: &fleetpb.Release{Provider: "acme-edr", Channel: fleetpb.Channel_CHANNEL_CONTENT, Digest: digest},
	}
}

// TestFetchesWhatToGoBackTo: what the core has in a slot is not fetched; what it has not is, whole; and what cannot be
// had is said, so that the core need not wait for it.
func TestFetchesWhatToGoBackTo(t *testing.T) {
	t.Parallel()
	dir, digests := stick(t)
	from, err := folder.Open(filepath.Join(dir, "stick"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = from.Close() }()
	o := &Options{StateDir: dir}
	o.complete()
	f := &fetcher{o: o, turn: time.Minute, mirror: mirror{from: disk{from}, to: o.Staging}}
	if err := os.MkdirAll(o.report(), 0o750); err != nil {
		t.Fatal(err)
	}
	err = update.WriteReport(o.report(), &update.Report{Core: "c", Installed: []update.Installed{
		{Provider: "acme-edr", Part: "content", Slot: "former", Digest: digests["two"]},
		{Provider: "acme-edr", Part: "content", Slot: "candidate", Digest: digests["one"]},
	}})
	if err != nil {
		t.Fatal(err)
	}
	nobody := "sha256:" + strings.Repeat("0", 64)
	for _, c := range []struct {
		digest       string
		there, named bool
		lacking      string
	}{
		{digests["two"], false, false, ""},
		{digests["one"], true, true, ""},
		{nobody, false, false, "does not name"},
		{"../" + nobody, false, false, "no digest"},
	} {
		if unfinished, err := f.obey(t.Context(), []*fleetpb.Order{backOrder(c.digest)}, nil); err != nil || unfinished {
			t.Fatalf("unfinished: %v, %v", unfinished, err)
		}
		orders, err := update.ReadOrders(os.DirFS(o.Staging))
		if err != nil || len(orders.Orders) != 1 {
			t.Fatalf("orders %+v, %v", orders, err)
		}
		got := orders.Orders[0]
		if got.Act != update.RollBack || got.Digest != c.digest || (got.Path != "") != c.named ||
			(got.Vendor == "acme") != c.named || (got.Lacking != "") != (c.lacking != "") ||
			!strings.Contains(got.Lacking, c.lacking) {
			t.Errorf("%s: %+v", c.digest, got)
		}
		name, _ := blob(c.digest)
		if _, err := os.Stat(filepath.Join(o.Staging, name)); name != "" && (err == nil) != c.there {
			t.Errorf("%s is staged: %v, want %v", c.digest, err, c.there)
		}
	}
}
