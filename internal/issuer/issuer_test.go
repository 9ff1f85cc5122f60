package issuer_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/keepout-security/keepout/internal/issuer"
	"github.com/keepout-security/keepout/internal/sign"
)

var epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

const hardware = "linux/amd64"

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// pair is a vendor and an operator that admits it, each in a folder of its own.
type pair struct {
	vendor, operator *issuer.Issuer
	homes            [2]string
	state            sign.State
	now              time.Time
}

func begin(t *testing.T, party issuer.Party, name string) (*issuer.Issuer, string) {
	t.Helper()
	home := filepath.Join(t.TempDir(), name)
	i, err := issuer.Init(home, party, name, nil, epoch)
	must(t, err)
	t.Cleanup(func() { _ = i.Close() })
	return i, home
}

func newPair(t *testing.T) *pair {
	t.Helper()
	p := &pair{now: epoch.Add(time.Minute)}
	p.vendor, p.homes[0] = begin(t, issuer.Vendor, "acme")
	p.operator, p.homes[1] = begin(t, issuer.Operator, "ops")
	root, err := os.ReadFile(filepath.Join(p.vendor.Repository(), "1.root.json"))
	must(t, err)
	published(t)(p.operator.Admit("acme", root, []string{"acme-edr"}, epoch))
	for _, r := range []sign.Release{engine("4.2.0", 42), content("77", 77)} {
		p.release(t, r)
	}
	return p
}

func published(t *testing.T) func([]issuer.Progress, error) {
	t.Helper()
	return func(list []issuer.Progress, err error) {
		t.Helper()
		must(t, err)
		for _, p := range list {
			if !p.Published {
				t.Fatalf("not published: %+v", p)
			}
		}
	}
}

func engine(version string, counter uint64) sign.Release {
	return sign.Release{
		Provider: "acme-edr", Kind: sign.Engine, Class: sign.Engine, Version: version, Counter: counter,
		Hardware: []string{hardware}, Size: 10,
	}
}

func content(version string, counter uint64) sign.Release {
	return sign.Release{
		Provider: "acme-edr", Kind: sign.Content, Class: sign.Content, Version: version, Counter: counter,
		Hardware: []string{"any"}, Size: 10,
	}
}

func digest(r sign.Release) string {
	sum := sha256.Sum256([]byte(r.TargetPath()))
	return "sha256:" + hex.EncodeToString(sum[:])
}

func (p *pair) release(t *testing.T, r sign.Release) {
	t.Helper()
	for _, i := range []*issuer.Issuer{p.vendor, p.operator} {
		published(t)(i.Release(r, digest(r), 100, epoch))
	}
}

func (p *pair) verify(t *testing.T, path string) error {
	t.Helper()
	root, err := os.ReadFile(filepath.Join(p.homes[1], "metadata", "1.root.json"))
	must(t, err)
	trust := sign.Trust{OperatorRoot: root, Vendor: "acme", Hardware: hardware}
	vendor, operator := os.DirFS(p.vendor.Repository()), os.DirFS(p.operator.Repository())
	_, p.state, err = sign.Verify(trust, p.state, p.now, vendor, operator, path)
	return err
}

func (p *pair) verifyAll(t *testing.T) {
	t.Helper()
	must(t, p.verify(t, "acme-edr/engine/4.2.0"))
	must(t, p.verify(t, "acme-edr/content/77"))
}

func TestSignAndVerify(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.verifyAll(t)
	o, err := p.operator.Show()
	must(t, err)
	if len(o.Vendors) != 1 || o.Vendors[0].Name != "acme" || len(o.Sets) != 7 || len(o.Pending) != 0 {
		t.Errorf("%+v", o)
	}
	// 8 days later what is online is old; a refresh mends it without anybody else.
	p.now = epoch.Add(8 * 24 * time.Hour)
	if err := p.verify(t, "acme-edr/content/77"); sign.CodeOf(err) != sign.CodeExpired {
		t.Errorf("after 8 days: %v", err)
	}
	published(t)(p.vendor.Refresh(p.now))
	published(t)(p.operator.Refresh(p.now))
	p.verifyAll(t)
}

// TestEveryRotation: each set of keys of both parties is replaced, and a host that knew the old ones follows.
func TestEveryRotation(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.verifyAll(t)
	for _, side := range []*issuer.Issuer{p.vendor, p.operator} {
		o, err := side.Show()
		must(t, err)
		for _, set := range o.Sets {
			published(t)(side.Rotate(set.Name, "", epoch))
			if err := p.verify(t, "acme-edr/engine/4.2.0"); err != nil {
				t.Fatalf("after a rotation of %s's %s: %v", side.Name(), set.Name, err)
			}
		}
		after, err := side.Show()
		must(t, err)
		for n, set := range after.Sets {
			if len(set.IDs) != len(o.Sets[n].IDs) || set.IDs[0] == o.Sets[n].IDs[0] || len(set.AtHand) != len(set.IDs) {
				t.Errorf("%s: %+v, was %+v", set.Name, set, o.Sets[n])
			}
		}
	}
	p.verifyAll(t)
	p.state = sign.State{} // and a host that knows nothing but the first root
	p.verifyAll(t)
}

func TestRevoke(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.verifyAll(t)
	published(t)(p.vendor.Revoke("engine-1", epoch))
	p.verifyAll(t)
	if _, err := os.Stat(filepath.Join(p.homes[0], "keys", "engine-1.key.revoked")); err != nil {
		t.Error(err)
	}
	if _, err := p.vendor.Revoke("engine-2", epoch); sign.CodeOf(err) != issuer.CodeKeys {
		t.Errorf("too few would be left: %v", err)
	}
	if _, err := p.vendor.Revoke("engine-9", epoch); sign.CodeOf(err) != issuer.CodeKeys {
		t.Errorf("no such key: %v", err)
	}
	published(t)(p.vendor.Rotate("engine", "engine-2", epoch))
	p.verifyAll(t)
}

func TestDismissedVendor(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.verifyAll(t)
	published(t)(p.operator.Dismiss("acme", epoch))
	if err := p.verify(t, "acme-edr/engine/4.2.0"); sign.CodeOf(err) != sign.CodeVendor {
		t.Error(err)
	}
	if _, err := p.operator.Dismiss("acme", epoch); sign.CodeOf(err) != issuer.CodeKeys {
		t.Error(err)
	}
	if _, err := p.vendor.Admit("x", nil, nil, epoch); sign.CodeOf(err) != issuer.CodeHome {
		t.Error(err)
	}
}

// without moves a key to a medium of its own and returns that.
func without(t *testing.T, home, key string) (medium string) {
	t.Helper()
	medium = t.TempDir()
	must(t, os.Rename(filepath.Join(home, "keys", key+".key"), filepath.Join(medium, key+".key")))
	return medium
}

// reopen opens a folder again, with the media that somebody brought.
func reopen(t *testing.T, i *issuer.Issuer, home string, media ...string) *issuer.Issuer {
	t.Helper()
	must(t, i.Close())
	again, err := issuer.Open(home, media, nil)
	must(t, err)
	t.Cleanup(func() { _ = again.Close() })
	return again
}

// TestTwoPeople: an engine waits until the second person has signed the same bytes.
func TestTwoPeople(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	home := p.homes[0]
	bob := without(t, home, "engine-2")
	without(t, home, "engine-3") // Carol is away
	r := engine("4.3.0", 43)
	published(t)(p.operator.Release(r, digest(r), 100, epoch))

	p.vendor = reopen(t, p.vendor, home)
	progress, err := p.vendor.Release(r, digest(r), 100, epoch)
	must(t, err)
	if len(progress) != 1 || progress[0].Published || progress[0].Have != 1 || progress[0].Need != 2 ||
		len(progress[0].Waiting) != 2 {
		t.Fatalf("%+v", progress)
	}
	if err := p.verify(t, r.TargetPath()); sign.CodeOf(err) != sign.CodeNotVendor {
		t.Errorf("it is there already: %v", err)
	}
	other := engine("4.4.0", 44)
	if _, err := p.vendor.Release(other, digest(other), 100, epoch); sign.CodeOf(err) != issuer.CodePending {
		t.Errorf("another change meanwhile: %v", err)
	}
	// The second person says the same thing a day later, with her own medium.
	p.vendor = reopen(t, p.vendor, home, bob)
	published(t)(p.vendor.Release(r, digest(r), 100, epoch.Add(24*time.Hour)))
	must(t, p.verify(t, r.TargetPath()))
}

// TestOfflineRoot: a rotation waits for the offline keys, and "sign" completes it.
func TestOfflineRoot(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.verifyAll(t)
	home := p.homes[1]
	media := []string{without(t, home, "root-2"), without(t, home, "root-3")}
	p.operator = reopen(t, p.operator, home)
	progress, err := p.operator.Rotate("halt", "", epoch)
	must(t, err)
	if progress[0].Published || progress[0].Role != "targets" {
		t.Fatalf("%+v", progress)
	}
	if _, err := p.operator.Rotate("halt", "", epoch); sign.CodeOf(err) != issuer.CodePending {
		t.Errorf("begun again: %v", err)
	}
	p.operator = reopen(t, p.operator, home, media[0])
	published(t)(p.operator.Complete(epoch))
	p.verifyAll(t)
	// Of the root itself: two of the old keys, and two of the new ones.
	p.operator = reopen(t, p.operator, home, media...)
	published(t)(p.operator.Rotate("root", "", epoch))
	p.verifyAll(t)
}

func TestDiscard(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	without(t, p.homes[0], "root-2")
	without(t, p.homes[0], "root-3")
	_, err := p.vendor.Rotate("content", "", epoch)
	must(t, err)
	names, err := p.vendor.Discard()
	if err != nil || len(names) != 1 {
		t.Errorf("%v %v", names, err)
	}
	if done, err := p.vendor.Complete(epoch); err != nil || len(done) != 0 {
		t.Errorf("%v %v", done, err)
	}
	p.verifyAll(t)
}

func TestContradictions(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	same := engine("4.2.0", 42)
	if _, err := p.vendor.Release(same, digest(content("1", 1)), 100, epoch); sign.CodeOf(err) != issuer.CodeRelease {
		t.Errorf("other bytes under a name: %v", err)
	}
	twin := engine("4.2.1", 42)
	if _, err := p.vendor.Release(twin, digest(twin), 100, epoch); sign.CodeOf(err) != issuer.CodeRelease {
		t.Errorf("a counter twice: %v", err)
	}
	if _, err := p.vendor.Release(same, "sha256:12", 100, epoch); sign.CodeOf(err) != issuer.CodeRelease {
		t.Errorf("no digest: %v", err)
	}
	published(t)(p.vendor.Release(same, digest(same), 100, epoch)) // once more is no harm
}

func TestPassphrases(t *testing.T) {
	t.Parallel()
	home := filepath.Join(t.TempDir(), "acme")
	asked := 0
	right := func(string) (string, error) { asked++; return "correct horse", nil }
	i, err := issuer.Init(home, issuer.Vendor, "acme", right, epoch)
	must(t, err)
	must(t, i.Close())
	for name, encrypted := range map[string]bool{"root-1": true, "engine-1": true, "content-1": false, "online-1": false} {
		raw, err := os.ReadFile(filepath.Join(home, "keys", name+".key"))
		must(t, err)
		if strings.Contains(string(raw), "AGE ENCRYPTED") != encrypted {
			t.Errorf("%s: %.60s", name, raw)
		}
		info, err := os.Stat(filepath.Join(home, "keys", name+".key"))
		if err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", name, info.Mode(), err)
		}
	}
	gone := errors.New("nobody there")
	for name, ask := range map[string]issuer.Passphrase{
		"wrong": func(string) (string, error) { return "battery staple", nil },
		"none":  nil,
		"empty": func(string) (string, error) { return "", nil },
	} {
		i, err := issuer.Open(home, nil, ask)
		must(t, err)
		r := engine("1", 1)
		if _, err := i.Release(r, digest(r), 1, epoch); sign.CodeOf(err) != issuer.CodeKey {
			t.Errorf("%s: %v", name, err)
		}
		must(t, i.Close())
	}
	i, err = issuer.Open(home, nil, func(string) (string, error) { return "", gone })
	must(t, err)
	if _, err := i.Rotate("engine", "", epoch); !errors.Is(err, gone) {
		t.Error(err)
	}
	must(t, i.Close())
	i, err = issuer.Open(home, nil, right)
	must(t, err)
	r := engine("1", 1)
	published(t)(i.Release(r, digest(r), 1, epoch))
	must(t, i.Close())
}

func TestFolders(t *testing.T) {
	t.Parallel()
	i, home := begin(t, issuer.Vendor, "acme")
	if _, err := issuer.Init(home, issuer.Vendor, "acme", nil, epoch); sign.CodeOf(err) != issuer.CodeHome {
		t.Errorf("made twice: %v", err)
	}
	if _, err := issuer.Open(home, nil, nil); sign.CodeOf(err) != issuer.CodeHome {
		t.Errorf("opened twice: %v", err)
	}
	must(t, i.Close())
	if _, err := issuer.Open(t.TempDir(), nil, nil); sign.CodeOf(err) != issuer.CodeHome {
		t.Errorf("an empty folder: %v", err)
	}
	_, err := issuer.Init(filepath.Join(t.TempDir(), "x"), "janitor", "x", nil, epoch)
	if sign.CodeOf(err) != issuer.CodeHome {
		t.Errorf("no party: %v", err)
	}
	again, err := issuer.Open(home, []string{"/nowhere"}, nil)
	must(t, err)
	for _, f := range []string{"content-1", "engine-1"} {
		must(t, os.WriteFile(filepath.Join(home, "keys", f+".key"), []byte("no key"), 0o600))
	}
	r := content("1", 1)
	if _, err := again.Release(r, digest(r), 1, epoch); sign.CodeOf(err) != issuer.CodeKey {
		t.Errorf("a damaged key: %v", err)
	}
	must(t, os.Remove(filepath.Join(home, "keys", "content-1.key")))
	if _, err := again.Release(r, digest(r), 1, epoch); sign.CodeOf(err) != issuer.CodeKeys {
		t.Errorf("no key: %v", err)
	}
	must(t, again.Close())
}
