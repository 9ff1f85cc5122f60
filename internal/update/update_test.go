package update

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/keepout-security/keepout/internal/artifact"
	"github.com/keepout-security/keepout/internal/fleet/statement"
	"github.com/keepout-security/keepout/internal/health"
	"github.com/keepout-security/keepout/internal/issuer"
	"github.com/keepout-security/keepout/internal/rollback"
	"github.com/keepout-security/keepout/internal/rollout"
	"github.com/keepout-security/keepout/internal/sign"
)

// world is a vendor, an operator, a staging folder and a host that does nothing but write down.
type world struct {
	t       *testing.T
	dir     string
	staging string
	now     time.Time
	offered []rollback.Version
	back    []string
	backTo  []rollback.Digest // "" is the version before
	taken   []rollback.Digest // back
	state   rollback.State
	taker   *Taker
}

func newWorld(t *testing.T, controlPlane bool) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), now: time.Now(), state: rollback.New("acme-edr")}
	w.staging = w.in("staging")
	none := func(string) (string, error) { return "", nil }
	vendor, err := issuer.Init(w.in("acme"), issuer.Vendor, "acme", none, w.now)
	w.must(err)
	w.must(vendor.Close())
	operator, err := issuer.Init(w.in("ops"), issuer.Operator, "ops", none, w.now)
	w.must(err)
	root, err := os.ReadFile(w.in("acme/metadata/1.root.json"))
	w.must(err)
	_, err = operator.Admit("acme", root, []string{"acme-edr"}, w.now)
	w.must(err)
	w.must(operator.Close())
	w.must(os.MkdirAll(w.in("trust"), 0o700))
	w.start(controlPlane)
	return w
}

func (w *world) start(controlPlane bool) {
	w.t.Helper()
	root, err := os.ReadFile(w.in("ops/metadata/1.root.json"))
	w.must(err)
	w.taker, err = New(Config{
		Dir: w.in("trust"), Staging: w.staging, Root: root, Hardware: "linux/amd64", ControlPlane: controlPlane, Host: w,
		Now: func() time.Time { return w.now },
	})
	w.must(err)
}

func (w *world) in(name string) string { return filepath.Join(w.dir, name) }

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) Import(_ rollback.Part, _ string, tar io.Reader) (rollback.Digest, error) {
	b, err := io.ReadAll(tar)
	return rollback.Digest(checksum(b)), err
}
func (w *world) Release(rollback.Digest) {}
func (w *world) State(p string) (rollback.State, bool) {
	return w.state, p == "acme-edr"
}

func (w *world) Offer(_ string, _ rollback.Part, v rollback.Version) error {
	w.offered = append(w.offered, v)
	w.state.Content.Candidate = v
	return nil
}

func (w *world) Withdraw(_ string, _ rollback.Part, d rollback.Digest, _ string) error {
	w.taken = append(w.taken, d)
	return nil
}

func (w *world) Back(_ string, part rollback.Part, to rollback.Version, cause string) error {
	w.back, w.backTo = append(w.back, cause), append(w.backTo, to.Digest)
	slots := w.state.Slots(part)
	if to = slots.Goal(to); to.None() {
		return errors.New("there is nothing to go back to")
	}
	slots.Active = to
	return nil
}

// publish builds content, lets the homes sign it, and stages all of it.
func (w *world) publish(version string, counter uint64, homes ...string) Order {
	w.t.Helper()
	return w.release(sign.Release{Version: version, Counter: counter}, homes...)
}

// release is publish for a release of which more than that is to be said.
func (w *world) release(r sign.Release, homes ...string) Order {
	w.t.Helper()
	version := r.Version
	r.Provider, r.Kind, r.Class, r.Hardware = "acme-edr", sign.Content, sign.Content, []string{"any"}
	from := w.in("files-" + version)
	w.must(os.MkdirAll(from, 0o755))
	w.must(os.WriteFile(filepath.Join(from, "deny.txt"), []byte("list "+version), 0o644))
	built, err := artifact.Build(context.Background(), artifact.Input{
		Release: r, Files: from, Manifest: []byte("id: acme-edr\n"),
	}, w.staging)
	w.must(err)
	for _, home := range homes {
		i, err := issuer.Open(w.in(home), nil, func(string) (string, error) { return "", nil })
		w.must(err)
		_, err = i.Release(built.Release, built.Digest, built.Length, w.now)
		w.must(err)
		w.must(i.Close())
	}
	for home, to := range map[string]string{"ops": OperatorDir, "acme": "vendors/acme"} {
		w.must(os.RemoveAll(filepath.Join(w.staging, to)))
		w.must(os.CopyFS(filepath.Join(w.staging, to), os.DirFS(w.in(home+"/metadata"))))
	}
	return Order{
		Act: Stage, Rollout: "r1", Provider: "acme-edr", Part: rollback.Content, Vendor: "acme",
		Path: built.Release.TargetPath(), Digest: built.Digest,
	}
}

func (w *world) look(grants [][]byte, orders ...Order) {
	w.t.Helper()
	w.must(WriteOrders(w.staging, &Orders{Orders: orders, Grants: grants}))
	w.taker.Look()
}

// grant is the director's, by the key of this home.
func (w *world) grant(home, digest string, nonce []byte, epoch uint64) []byte {
	w.t.Helper()
	text, err := os.ReadFile(w.in(home))
	w.must(err)
	block, _ := pem.Decode(text)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	w.must(err)
	sealed, err := statement.SealGrant(key.(ed25519.PrivateKey), &rollout.Grant{
		Rollout: "r1", Host: "h", Digest: rollout.Digest(digest), Nonce: hex.EncodeToString(nonce), Epoch: epoch, Serial: 1,
		Issued: w.now, Lifetime: rollout.MaxGrantLife,
	})
	w.must(err)
	return sealed
}

const directorKey = "ops/keys/director-1.key"

// TestTakerNeedsAGrant: with a control plane, only the operator's director makes a package a candidate, for a nonce of
// this host, in time, once, and no controller that was replaced.
func TestTakerNeedsAGrant(t *testing.T) {
	t.Parallel()
	w := newWorld(t, true)
	o := w.publish("1", 1, "acme", "ops")
	w.look(nil, o)
	asks := w.taker.Asks()
	if len(asks) != 1 || asks[0].Digest != o.Digest || len(w.offered) > 0 {
		t.Fatalf("asks %v, offered %v, refused %v", asks, w.offered, w.taker.refusals())
	}
	nonce := asks[0].Nonce
	for name, bad := range map[string][]byte{
		"another key":    w.grant("ops/keys/halt-1.key", o.Digest, nonce, 3),
		"another digest": w.grant(directorKey, "sha256:"+strings.Repeat("0", 64), nonce, 3),
		"another nonce":  w.grant(directorKey, o.Digest, bytes.Repeat([]byte{1}, 16), 3),
		"no statement":   []byte("{}"),
	} {
		w.look([][]byte{bad}, o)
		if len(w.offered) > 0 {
			t.Fatalf("%s: it was used", name)
		}
	}
	good := w.grant(directorKey, o.Digest, nonce, 3)
	w.now = w.now.Add(nonceLife)
	w.look([][]byte{good}, o)
	if len(w.offered) > 0 {
		t.Fatal("a grant for a nonce of five minutes ago was used")
	}
	nonce = w.taker.Asks()[0].Nonce
	w.look([][]byte{w.grant(directorKey, o.Digest, nonce, 3)}, o)
	if len(w.offered) != 1 || w.offered[0].Label != "1" {
		t.Fatalf("offered %v, refused %v", w.offered, w.taker.refusals())
	}
	w.state.Content.Candidate = rollback.Version{}
	w.look([][]byte{w.grant(directorKey, o.Digest, nonce, 3)}, o)
	if len(w.offered) != 1 {
		t.Error("a nonce was good twice")
	}
	w.look([][]byte{w.grant(directorKey, o.Digest, w.taker.Asks()[0].Nonce, 2)}, o)
	if len(w.offered) != 1 {
		t.Error("a grant of an earlier epoch was used")
	}
}

// TestTakerRefuses: what only one side signed, what was changed, and what is for nobody here, is refused and said;
// what both signed is used without a control plane.
func TestTakerRefuses(t *testing.T) {
	t.Parallel()
	w := newWorld(t, false)
	half := w.publish("1", 1, "acme")
	w.look(nil, half)
	if why := w.taker.refusals(); len(w.offered) > 0 || len(why) != 1 || !strings.Contains(why[0].Why, "KO-2118") {
		t.Errorf("signed by one side: offered %v, refused %v", w.offered, why)
	}
	other := half
	other.Provider = "other"
	w.look(nil, other)
	if len(w.taker.Problems()) != 1 {
		t.Errorf("for nobody here: %v", w.taker.Problems())
	}
	whole := w.publish("2", 2, "acme", "ops")
	blob := filepath.Join(w.staging, "blobs", "sha256", strings.TrimPrefix(whole.Digest, "sha256:"))
	text, err := os.ReadFile(blob)
	w.must(err)
	w.must(os.Chmod(blob, 0o644))
	w.must(os.WriteFile(blob, append([]byte(" "), text[1:]...), 0o644))
	w.look(nil, whole)
	if len(w.offered) > 0 {
		t.Fatal("a changed package was used")
	}
	w.must(os.WriteFile(blob, text, 0o644))
	w.look(nil, whole)
	if len(w.offered) != 1 {
		t.Fatalf("refused %v", w.taker.refusals())
	}
	w.must(os.WriteFile(filepath.Join(w.staging, OrdersFile), []byte("{"), 0o644))
	w.taker.Look()
	if p := w.taker.Problems(); len(p) == 0 || p[0].Code != CodeStaging {
		t.Errorf("broken orders: %v", p)
	}
	w.must(os.Remove(filepath.Join(w.staging, OrdersFile)))
	w.taker.Look()
	if p := w.taker.Problems(); len(p) != 0 {
		t.Errorf("no orders: %v", p)
	}
}

// TestMemoryHasTwoCopies: one damaged copy is no loss, two are said and not taken for a new host.
func TestMemoryHasTwoCopies(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	m, state, err := recall(dir)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := m.keep(dir, state); err != nil {
			t.Fatal(err)
		}
	}
	damage := func(name string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(`{"sha256":"","memory":{}}`), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	damage(copies[1])
	if got, _, err := recall(dir); err != nil || got.Generation != 2 {
		t.Errorf("with one copy: generation %d, %v", got.Generation, err)
	}
	damage(copies[0])
	_, _, err = recall(dir)
	if p, ok := err.(health.Problem); !ok || p.Code != CodeMemory { //nolint:errorlint // it is returned as it is
		t.Errorf("with none: %v", err)
	}
}

func TestRedact(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ a, b string }{
		{"open /home/ann/a.txt: no such file", "open /srv/bob: no such file"},
		{"exit status 2: panic at 0xdeadbeef", "exit status 2: panic at 0x12"},
		{"3 crashes in 60s", "4 crashes in 12.5s"},
		{"told ann@example.org", "told bob@example.com"},
	} {
		if Redact(c.a) != Redact(c.b) {
			t.Errorf("%q and %q differ: %q, %q", c.a, c.b, Redact(c.a), Redact(c.b))
		}
		for _, secret := range []string{"ann", "bob", "/home"} {
			if strings.Contains(Redact(c.a), secret) || strings.Contains(Redact(c.b), secret) {
				t.Errorf("%q says %q", Redact(c.a), secret)
			}
		}
	}
	if Redact("exit status 2") == Redact("exit status 3") {
		t.Error("two exit codes are one signature")
	}
}

// TestGroupIsBounded: of too many signatures, the one that was not heard of for longest makes room, and no new one is
// missed.
func TestGroupIsBounded(t *testing.T) {
	t.Parallel()
	var g Group
	for i := range 100 {
		g.Add(Bucket{Kind: Crash, Provider: "p" + strings.Repeat("x", i)}, "exit status 2")
		g.Add(Bucket{Kind: Crash, Provider: "p"}, "exit status 2")
	}
	list := g.List()
	if len(list) != MaxBuckets || list[0].Count != 101 {
		t.Errorf("%d buckets, the first with %d", len(list), list[0].Count)
	}
	if last := list[len(list)-1]; last.Provider != "p"+strings.Repeat("x", 99) {
		t.Errorf("the newest is %q", last.Provider)
	}
}

// TestHaltedWhileOnTrial: a halt ends the trial of what its rollout brought; it leaves another one's alone; and should
// the release have become active meanwhile, the host goes back from it.
func TestHaltedWhileOnTrial(t *testing.T) {
	t.Parallel()
	w := newWorld(t, true)
	o := w.publish("1", 1, "acme", "ops")
	w.look(nil, o)
	nonce := w.taker.Asks()[0].Nonce
	w.look([][]byte{w.grant(directorKey, o.Digest, nonce, 3)}, o)
	if len(w.offered) != 1 {
		t.Fatalf("offered %v, refused %v", w.offered, w.taker.refusals())
	}
	candidate := w.offered[0].Digest
	w.state.Content.Active = rollback.Version{Digest: rollback.Digest(strings.Repeat("a", 64))}
	w.state.Content.LKG = w.state.Content.Active
	back := Order{
		Act: RollBack, Rollout: "r2", Provider: "acme-edr", Part: rollback.Content,
		Digest: "sha256:" + strings.Repeat("a", 64), Reason: "crash",
	}
	w.look(nil, back)
	if len(w.taken)+len(w.back) > 0 {
		t.Fatalf("another rollout's halt: withdrawn %v, back %v", w.taken, w.back)
	}
	back.Rollout = o.Rollout
	w.look(nil, back)
	w.look(nil, back)
	if len(w.taken) != 1 || w.taken[0] != candidate || len(w.back) > 0 {
		t.Fatalf("withdrawn %v, back %v, want %v once", w.taken, w.back, candidate)
	}
	w.state.Content.Active, w.state.Content.Candidate = w.offered[0], rollback.Version{}
	w.look(nil, back)
	if len(w.back) != 1 {
		t.Errorf("it became active before it was withdrawn: back %v", w.back)
	}
}

// TestTroublesAreOnlyWords: what the fetcher says of a vendor is shown as words of bounded length, and too many are
// refused like all else that is too much.
func TestTroublesAreOnlyWords(t *testing.T) {
	t.Parallel()
	w := newWorld(t, false)
	w.must(os.MkdirAll(w.staging, 0o755))
	tell := func(n int) []health.Problem {
		t.Helper()
		vexed := Trouble{Vendor: "acme\x1b[2J" + strings.Repeat("e", 1000), Why: "\n" + strings.Repeat("\x00", 5000)}
		w.must(WriteOrders(w.staging, &Orders{Troubles: slices.Repeat([]Trouble{vexed}, n)}))
		w.taker.Look()
		return w.taker.Problems()
	}
	got := tell(1)
	if len(got) != 1 || got[0].Code != CodeVendor || len(got[0].Title) > 2000 ||
		strings.ContainsFunc(got[0].Title+got[0].Subject, func(r rune) bool { return !unicode.IsPrint(r) }) {
		t.Errorf("%q", got)
	}
	if got := tell(MaxTroubles + 1); len(got) == 0 || got[0].Code != CodeStaging {
		t.Errorf("too many: %q", got)
	}
	if got := tell(0); len(got) > 0 {
		t.Errorf("mended: %q", got)
	}
}

// FuzzReadOrders: whatever a fetcher writes, orders are bounded or refused.
func FuzzReadOrders(f *testing.F) {
	text, err := json.Marshal(Orders{Version: 1, Orders: []Order{{Act: Stage}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte("{"))
	f.Fuzz(func(t *testing.T, text []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, OrdersFile), text, 0o600); err != nil {
			t.Fatal(err)
		}
		o, err := ReadOrders(os.DirFS(dir))
		if err == nil && (len(o.Orders) > MaxOrders || len(o.Troubles) > MaxTroubles || o.Version != exchange) {
			t.Errorf("%+v", o)
		}
		_ = Redact(string(text))
	})
}
