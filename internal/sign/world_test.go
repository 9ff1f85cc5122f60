package sign_test

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/keepout-security/keepout/internal/sign"
)

// The tests write repositories with go-tuf, so that what this package reads was never written by itself.

var (
	epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	linux = "linux/amd64"
)

const (
	aday       = 24 * time.Hour
	enginePath = "acme-edr/engine/4.2.0"
	sigsPath   = "acme-edr/content/77"
)

func key(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte(name))
	return ed25519.NewKeyFromSeed(seed[:])
}

func keys(prefix string, n int) (out []ed25519.PrivateKey) {
	for i := range n {
		out = append(out, key(fmt.Sprintf("%s-%d", prefix, i+1)))
	}
	return out
}

// repo is one repository, before and after it is signed.
type repo struct {
	name      string
	root      *metadata.Metadata[metadata.RootType]
	targets   *metadata.Metadata[metadata.TargetsType]
	roles     map[string]*metadata.Metadata[metadata.TargetsType]
	snapshot  *metadata.Metadata[metadata.SnapshotType]
	timestamp *metadata.Metadata[metadata.TimestampType]
	signers   map[string][]ed25519.PrivateKey // who signs a role; a forger puts other keys here
	files     fstest.MapFS
	now       time.Time
}

type roleKeys struct {
	name, paths  string
	n, threshold int
}

// world is a vendor, an operator that trusts it, and a host.
type world struct {
	vendor, operator *repo
	trust            sign.Trust
	state            sign.State
	now              time.Time
}

func engineRelease() sign.Release {
	return sign.Release{
		Provider: "acme-edr", Kind: sign.Engine, Class: sign.Engine, Version: "4.2.0", Counter: 42, Floor: 40,
		Hardware: []string{linux}, Size: 1000,
	}
}

func contentRelease(version string, counter uint64, size int64) sign.Release {
	return sign.Release{
		Provider: "acme-edr", Kind: sign.Content, Class: sign.Content, Version: version, Counter: counter,
		Hardware: []string{"any"}, Size: size,
	}
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{now: epoch.Add(time.Hour)}
	w.vendor = newRepo(t, "vendor", []roleKeys{{"engine", "*/engine/*", 3, 2}, {"content", "*/content/*", 1, 1}})
	w.operator = newRepo(t, "operator", []roleKeys{
		{"catalog-engine", "*/engine/*", 3, 2},
		{"catalog-content", "*/content/*", 1, 1},
		{"director", "grants/*", 1, 1},
		{"halt", "halts/*", 3, 1},
		{"recovery", "remediations/*", 3, 2},
	})
	w.vendor.publish(t)
	w.operator.admit(t, w.vendor)
	for _, r := range []sign.Release{engineRelease(), contentRelease("77", 77, 5000)} {
		w.vendor.list(t, string(r.Class), r)
		w.operator.list(t, "catalog-"+string(r.Class), r)
	}
	w.vendor.publish(t)
	w.operator.publish(t)
	w.trust = sign.Trust{OperatorRoot: w.operator.files["1.root.json"].Data, Vendor: "acme", Hardware: linux}
	return w
}

func newRepo(t testing.TB, name string, delegations []roleKeys) *repo {
	t.Helper()
	r := &repo{
		name: name, now: epoch, files: fstest.MapFS{},
		root:      metadata.Root(epoch.Add(365 * aday)),
		targets:   metadata.Targets(epoch.Add(365 * aday)),
		snapshot:  metadata.Snapshot(epoch.Add(7 * aday)),
		timestamp: metadata.Timestamp(epoch.Add(aday)),
		roles:     map[string]*metadata.Metadata[metadata.TargetsType]{},
		signers: map[string][]ed25519.PrivateKey{
			"root": keys(name+"-root", 3)[:2], "targets": keys(name+"-root", 3)[:2],
			"snapshot": keys(name+"-online", 1), "timestamp": keys(name+"-online", 1),
		},
	}
	for _, k := range keys(name+"-root", 3) {
		r.add(t, "root", k)
		r.add(t, "targets", k)
	}
	r.root.Signed.Roles["root"].Threshold, r.root.Signed.Roles["targets"].Threshold = 2, 2
	r.add(t, "snapshot", key(name+"-online-1"))
	r.add(t, "timestamp", key(name+"-online-1"))
	r.targets.Signed.Delegations = &metadata.Delegations{Keys: map[string]*metadata.Key{}}
	for _, d := range delegations {
		r.targets.Signed.Delegations.Roles = append(r.targets.Signed.Delegations.Roles, metadata.DelegatedRole{
			Name: d.name, Threshold: d.threshold, Paths: []string{d.paths}, Terminating: true, KeyIDs: []string{},
		})
		for _, k := range keys(name+"-"+d.name, d.n) {
			must(t, r.targets.Signed.AddKey(tufKey(t, k), d.name))
		}
		r.signers[d.name] = keys(name+"-"+d.name, d.n)[:d.threshold]
		r.roles[d.name] = metadata.Targets(epoch.Add(30 * aday))
	}
	return r
}

func tufKey(t testing.TB, k ed25519.PrivateKey) *metadata.Key {
	t.Helper()
	out, err := metadata.KeyFromPublicKey(k.Public())
	must(t, err)
	return out
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (r *repo) add(t testing.TB, role string, k ed25519.PrivateKey) {
	t.Helper()
	must(t, r.root.Signed.AddKey(tufKey(t, k), role))
}

// engine is the role that names engines.
func (r *repo) engine() *metadata.Metadata[metadata.TargetsType] {
	if r.name == "vendor" {
		return r.roles["engine"]
	}
	return r.roles["catalog-engine"]
}

// list lists a release in a role, with the digest that all honest parties see.
func (r *repo) list(t testing.TB, role string, release sign.Release) *metadata.TargetFiles {
	t.Helper()
	custom, err := json.Marshal(release)
	must(t, err)
	raw := json.RawMessage(custom)
	sum := sha256.Sum256([]byte(release.TargetPath()))
	file := &metadata.TargetFiles{Length: 500, Hashes: metadata.Hashes{"sha256": sum[:]}, Custom: &raw}
	r.roles[role].Signed.Targets[release.TargetPath()] = file
	return file
}

// change rewrites what a role says of a release.
func (r *repo) change(t testing.TB, role, path string, edit func(*sign.Release)) {
	t.Helper()
	file := r.roles[role].Signed.Targets[path]
	var release sign.Release
	must(t, json.Unmarshal(*file.Custom, &release))
	edit(&release)
	raw, err := json.Marshal(release)
	must(t, err)
	*file.Custom = raw
}

// admit lets the operator name a vendor's newest root.
func (r *repo) admit(t testing.TB, vendor *repo) {
	t.Helper()
	version := vendor.root.Signed.Version
	root := vendor.files[fmt.Sprintf("%d.root.json", version)].Data
	custom, err := json.Marshal(sign.VendorEntry{RootVersion: version, Providers: []string{"acme-edr"}})
	must(t, err)
	raw := json.RawMessage(custom)
	sum := sha256.Sum256(root)
	r.targets.Signed.Targets[sign.VendorPath("acme")] = &metadata.TargetFiles{
		Length: int64(len(root)), Hashes: metadata.Hashes{"sha256": sum[:]}, Custom: &raw,
	}
}

// publish signs everything anew and raises the versions of what may change.
func (r *repo) publish(t testing.TB) {
	t.Helper()
	r.put(t, fmt.Sprintf("%d.root.json", r.root.Signed.Version), signed(t, r.root, r.signers["root"]))
	if len(r.files) > 1 {
		r.targets.Signed.Version++
		for _, role := range r.roles {
			role.Signed.Version++
		}
		r.snapshot.Signed.Version++
		r.timestamp.Signed.Version++
	}
	meta := map[string]*metadata.MetaFiles{}
	meta["targets.json"] = r.put(t, fmt.Sprintf("%d.targets.json", r.targets.Signed.Version),
		signed(t, r.targets, r.signers["targets"]))
	meta["targets.json"].Version = r.targets.Signed.Version
	for name, role := range r.roles {
		m := r.put(t, fmt.Sprintf("%d.%s.json", role.Signed.Version, name), signed(t, role, r.signers[name]))
		m.Version = role.Signed.Version
		meta[name+".json"] = m
	}
	r.snapshot.Signed.Meta = meta
	r.seal(t)
}

// seal signs snapshot and timestamp as they are.
func (r *repo) seal(t testing.TB) {
	t.Helper()
	m := r.put(t, fmt.Sprintf("%d.snapshot.json", r.snapshot.Signed.Version), signed(t, r.snapshot, r.signers["snapshot"]))
	m.Version = r.snapshot.Signed.Version
	r.timestamp.Signed.Meta = map[string]*metadata.MetaFiles{"snapshot.json": m}
	r.timestamp.Signed.UnrecognizedFields = map[string]any{"x-keepout-signed-at": r.now.Format(time.RFC3339)}
	r.put(t, "timestamp.json", signed(t, r.timestamp, r.signers["timestamp"]))
}

func (r *repo) put(t testing.TB, name string, data []byte) *metadata.MetaFiles {
	t.Helper()
	r.files[name] = &fstest.MapFile{Data: data}
	sum := sha256.Sum256(data)
	return &metadata.MetaFiles{Length: int64(len(data)), Hashes: metadata.Hashes{"sha256": sum[:]}}
}

func signed[T metadata.Roles](t testing.TB, m *metadata.Metadata[T], keys []ed25519.PrivateKey) []byte {
	t.Helper()
	m.Signatures = nil
	for _, k := range keys {
		signer, err := signature.LoadED25519Signer(k)
		must(t, err)
		_, err = m.Sign(signer)
		must(t, err)
	}
	out, err := m.ToBytes(false)
	must(t, err)
	return out
}

// copyOf is what a mirror took of a repository.
func (r *repo) copyOf() fstest.MapFS { return maps.Clone(r.files) }

// verify asks for the path and keeps the state, as a host does.
func (w *world) verify(path string) (sign.Target, error) {
	target, state, err := sign.Verify(w.trust, w.state, w.now, w.vendor.files, w.operator.files, path)
	w.state = state
	return target, err
}

func digestOfPath(path string) string {
	sum := sha256.Sum256([]byte(path))
	return "sha256:" + hex.EncodeToString(sum[:])
}

func names(files fstest.MapFS) string {
	return strings.Join(slices.Sorted(maps.Keys(files)), " ")
}
