package sign_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/keepout-security/keepout/internal/sign"
)

// forgery is one way to make a host activate what it should not, and what the host says.
type forgery struct {
	name string
	path string // enginePath when empty
	code string
	// do prepares the repositories. The host has verified nothing before, unless do lets it.
	do func(t *testing.T, w *world)
}

func (f forgery) run(t *testing.T) {
	t.Helper()
	t.Parallel()
	w := newWorld(t)
	f.do(t, w)
	path := f.path
	if path == "" {
		path = enginePath
	}
	target, err := w.verify(path)
	if got := sign.CodeOf(err); got != f.code {
		t.Fatalf("code %q (%v), want %q", got, err, f.code)
	}
	if f.code != "" && target.Digest != "" {
		t.Error("a refused target was handed out")
	}
	if err != nil && !strings.Contains(err.Error(), ". Next: ") {
		t.Errorf("no next step: %v", err)
	}
	class := "engine"
	if strings.Contains(path, "/content/") {
		class = "content"
	}
	compare(t, w, class, f.code)
}

// only makes one of the two parties forget the release.
func only(r func(*world) *repo, role string) func(*testing.T, *world) {
	return func(t *testing.T, w *world) {
		t.Helper()
		delete(r(w).roles[role].Signed.Targets, enginePath)
		r(w).publish(t)
	}
}

func vendor(w *world) *repo   { return w.vendor }
func operator(w *world) *repo { return w.operator }

// tells lets one party say something else of the engine than the other.
func tells(r func(*world) *repo, role string, edit func(*sign.Release)) func(*testing.T, *world) {
	return func(t *testing.T, w *world) {
		t.Helper()
		r(w).change(t, role, enginePath, edit)
		r(w).publish(t)
	}
}

// TestDisagreement: whatever only one of the two says is not believed.
func TestDisagreement(t *testing.T) {
	t.Parallel()
	otherBytes := func(t *testing.T, w *world) {
		t.Helper()
		sum := sha256.Sum256([]byte("evil"))
		w.vendor.roles["engine"].Signed.Targets[enginePath].Hashes["sha256"] = sum[:]
		w.vendor.publish(t)
	}
	for _, f := range []forgery{
		{name: "vendor only", code: sign.CodeNotBoth, do: only(operator, "catalog-engine")},
		{name: "operator only", code: sign.CodeNotVendor, do: only(vendor, "engine")},
		{name: "nobody", path: "acme-edr/engine/9.9", code: sign.CodeNotVendor, do: func(*testing.T, *world) {}},
		{name: "no path of a release", path: "vendors/acme", code: sign.CodeRelease, do: func(*testing.T, *world) {}},
		{name: "path upwards", path: "../engine/4.2.0", code: sign.CodeNotVendor, do: func(*testing.T, *world) {}},
		{name: "different digest", code: sign.CodeDiffer, do: otherBytes},
		{name: "different length", code: sign.CodeDiffer, do: func(t *testing.T, w *world) {
			t.Helper()
			w.operator.roles["catalog-engine"].Signed.Targets[enginePath].Length = 501
			w.operator.publish(t)
		}},
		{
			name: "different counter", code: sign.CodeDiffer,
			do: tells(operator, "catalog-engine", func(r *sign.Release) { r.Counter = 43 }),
		},
		{
			name: "different floor", code: sign.CodeDiffer,
			do: tells(vendor, "engine", func(r *sign.Release) { r.Floor = 1 }),
		},
		{
			name: "different hardware", code: sign.CodeDiffer,
			do: tells(operator, "catalog-engine", func(r *sign.Release) { r.Hardware = []string{linux, "linux/arm64"} }),
		},
		{
			name: "different size", code: sign.CodeDiffer,
			do: tells(vendor, "engine", func(r *sign.Release) { r.Size = 1 }),
		},
		{
			name: "different shrinks", code: sign.CodeDiffer,
			do: tells(vendor, "engine", func(r *sign.Release) { r.Shrinks = true }),
		},
		{
			name: "class of content under an engine's name", code: sign.CodeRelease,
			do: tells(vendor, "engine", func(r *sign.Release) { r.Kind, r.Class = sign.Content, sign.Content }),
		},
		{
			name: "another version under this name", code: sign.CodeRelease,
			do: tells(vendor, "engine", func(r *sign.Release) { r.Version = "4.1.0" }),
		},
		{
			name: "counter 0", code: sign.CodeRelease,
			do: tells(vendor, "engine", func(r *sign.Release) { r.Counter, r.Floor = 0, 0 }),
		},
		{name: "wrong hardware", code: sign.CodeHardware, do: func(_ *testing.T, w *world) {
			w.trust.Hardware = "linux/arm64"
		}},
		{name: "unknown hardware", code: sign.CodeHardware, do: func(_ *testing.T, w *world) { w.trust.Hardware = "" }},
		{name: "a condition that this version does not know", code: sign.CodeRelease, do: func(t *testing.T, w *world) {
			t.Helper()
			file := w.vendor.roles["engine"].Signed.Targets[enginePath]
			raw := json.RawMessage(strings.Replace(string(*file.Custom), "{", `{"only_after":"2030",`, 1))
			file.Custom = &raw
			w.vendor.publish(t)
		}},
	} {
		t.Run(f.name, f.run)
	}
}

// TestVendors: who may release what is the operator's root keys' to say.
func TestVendors(t *testing.T) {
	t.Parallel()
	for _, f := range []forgery{
		{name: "unknown vendor", code: sign.CodeVendor, do: func(_ *testing.T, w *world) { w.trust.Vendor = "evil" }},
		{name: "removed vendor", code: sign.CodeVendor, do: func(t *testing.T, w *world) {
			t.Helper()
			mustVerify(t, w)
			delete(w.operator.targets.Signed.Targets, sign.VendorPath("acme"))
			w.operator.publish(t)
		}},
		{name: "another vendor's provider", code: sign.CodeVendor, do: func(t *testing.T, w *world) {
			t.Helper()
			raw := json.RawMessage(`{"root_version":1,"providers":["other"]}`)
			w.operator.targets.Signed.Targets[sign.VendorPath("acme")].Custom = &raw
			w.operator.publish(t)
		}},
		{name: "another root", code: sign.CodeMixed, do: func(t *testing.T, w *world) {
			t.Helper()
			evil := newWorld(t)
			evil.vendor.signers["root"] = keys("evil", 2)
			evil.vendor.publish(t)
			w.vendor.files = evil.vendor.files
		}},
		{name: "an entry that is none", code: sign.CodeVendor, do: func(t *testing.T, w *world) {
			t.Helper()
			raw := json.RawMessage(`[]`)
			w.operator.targets.Signed.Targets[sign.VendorPath("acme")].Custom = &raw
			w.operator.publish(t)
		}},
	} {
		t.Run(f.name, f.run)
	}
}

func mustVerify(t *testing.T, w *world) {
	t.Helper()
	if _, err := w.verify(enginePath); err != nil {
		t.Fatalf("the genuine release: %v", err)
	}
}

// replay shows a host what a mirror had kept of one repository.
func replay(r func(*world) *repo) func(*testing.T, *world) {
	return func(t *testing.T, w *world) {
		t.Helper()
		old := r(w).copyOf()
		r(w).publish(t)
		mustVerify(t, w)
		r(w).files = old
	}
}

// TestOldAndMixed: replayed metadata, and files that were never published together.
func TestOldAndMixed(t *testing.T) {
	t.Parallel()
	for _, f := range []forgery{
		{name: "vendor replayed", code: sign.CodeOlder, do: replay(vendor)},
		{name: "operator replayed", code: sign.CodeOlder, do: replay(operator)},
		{name: "older snapshot in a new timestamp", code: sign.CodeOlder, do: func(t *testing.T, w *world) {
			t.Helper()
			w.vendor.publish(t)
			mustVerify(t, w)
			w.vendor.snapshot.Signed.Version--
			w.vendor.timestamp.Signed.Version++
			w.vendor.seal(t)
		}},
		{name: "older targets in a new snapshot", code: sign.CodeOlder, do: func(t *testing.T, w *world) {
			t.Helper()
			old := w.vendor.snapshot.Signed.Meta["engine.json"]
			w.vendor.publish(t)
			mustVerify(t, w)
			w.vendor.snapshot.Signed.Meta["engine.json"] = old
			w.vendor.snapshot.Signed.Version++
			w.vendor.timestamp.Signed.Version++
			w.vendor.seal(t)
		}},
		{name: "a role taken out of the snapshot", code: sign.CodeOlder, do: func(t *testing.T, w *world) {
			t.Helper()
			mustVerify(t, w)
			delete(w.vendor.snapshot.Signed.Meta, "content.json")
			w.vendor.snapshot.Signed.Version++
			w.vendor.timestamp.Signed.Version++
			w.vendor.seal(t)
		}},
		{name: "new timestamp, old snapshot", code: sign.CodeMixed, do: func(t *testing.T, w *world) {
			t.Helper()
			old := w.vendor.files["2.snapshot.json"]
			w.vendor.publish(t)
			w.vendor.files["3.snapshot.json"] = old
		}},
		{name: "new snapshot, old targets", code: sign.CodeMixed, do: func(t *testing.T, w *world) {
			t.Helper()
			old := w.operator.files["1.catalog-engine.json"]
			w.operator.publish(t)
			w.operator.files["2.catalog-engine.json"] = old
		}},
		{name: "another vendor's snapshot", code: sign.CodeMixed, do: func(_ *testing.T, w *world) {
			w.vendor.files["2.snapshot.json"] = w.operator.files["1.snapshot.json"]
		}},
		{name: "snapshot not there yet", code: sign.CodeMissing, do: func(_ *testing.T, w *world) {
			delete(w.vendor.files, "2.snapshot.json")
		}},
		{name: "the repositories exchanged", code: sign.CodeThreshold, do: func(_ *testing.T, w *world) {
			w.vendor.files, w.operator.files = w.operator.files, w.vendor.files
		}},
		{name: "nothing there", code: sign.CodeMissing, do: func(_ *testing.T, w *world) {
			w.operator.files = fstest.MapFS{}
		}},
	} {
		t.Run(f.name, f.run)
	}
}

// TestTornAndEndless: each file of both repositories, cut, emptied, and without end.
func TestTornAndEndless(t *testing.T) {
	t.Parallel()
	whole := newWorld(t)
	for _, side := range []func(*world) *repo{vendor, operator} {
		for name := range side(whole).files {
			if !side(whole).reads(name) {
				continue
			}
			for kind, change := range map[string]func([]byte) []byte{
				"cut":     func(b []byte) []byte { return b[:len(b)/2] },
				"empty":   func([]byte) []byte { return nil },
				"changed": func(b []byte) []byte { return bytes.Replace(b, []byte(`:"202`), []byte(`:"206`), 1) },
				"endless": func(b []byte) []byte { return append(bytes.Clone(b), make([]byte, 6_000_000)...) },
				"deep":    func([]byte) []byte { return bytes.Repeat([]byte("["), 10_001) },
			} {
				t.Run(side(whole).name+"/"+name+"/"+kind, func(t *testing.T) {
					t.Parallel()
					w := newWorld(t)
					files := side(w).files
					files[name] = &fstest.MapFile{Data: change(files[name].Data)}
					target, err := w.verify(enginePath)
					if sign.CodeOf(err) == "" || target.Digest != "" {
						t.Fatalf("accepted: %v", err)
					}
					if kind == "endless" && sign.CodeOf(err) != sign.CodeEndless {
						t.Errorf("code %v", err)
					}
				})
			}
		}
	}
}

// reads reports whether a host reads this file for an engine: not what is superseded, nor roles that it did not ask
// for, nor the operator's first root, which is what the host has.
func (r *repo) reads(name string) bool {
	if name == "1.root.json" {
		return r.name == "vendor"
	}
	for _, role := range []string{"snapshot", "targets", "engine", "catalog-engine"} {
		version := r.snapshot.Signed.Version
		if name == fmt.Sprintf("%d.%s.json", version, role) {
			return true
		}
	}
	return name == "timestamp.json"
}

// TestAnEndlessFileIsNotReadToItsEnd: the limit holds while reading, not afterwards.
func TestAnEndlessFileIsNotReadToItsEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	endless := &endlessFS{FS: w.vendor.files}
	_, _, err := sign.Verify(w.trust, w.state, w.now, endless, w.operator.files, enginePath)
	if sign.CodeOf(err) != sign.CodeEndless || endless.read > 1<<20 {
		t.Errorf("read %d bytes: %v", endless.read, err)
	}
}

type endlessFS struct {
	fs.FS

	read int
}

func (e *endlessFS) Open(name string) (fs.File, error) {
	f, err := e.FS.Open(name)
	return &endlessFile{File: f, from: e}, err
}

type endlessFile struct {
	fs.File

	from *endlessFS
}

func (f *endlessFile) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	f.from.read += len(p)
	return len(p), nil
}

var _ io.Reader = (*endlessFile)(nil)

// TestExpiry: each file of each repository in turn is too old, and the release is refused. Nothing else is.
func TestExpiry(t *testing.T) {
	t.Parallel()
	for _, side := range []func(*world) *repo{vendor, operator} {
		for _, file := range []string{"root", "timestamp", "snapshot", "targets", "engine"} {
			name := side(newWorld(t)).name + "/" + file
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				mustVerify(t, w)
				r := side(w)
				past := epoch.Add(30 * time.Minute)
				switch file {
				case "root":
					r.root.Signed.Expires = past
					r.root.Signed.Version++
				case "timestamp":
					r.timestamp.Signed.Expires = past
				case "snapshot":
					r.snapshot.Signed.Expires = past
				case "targets":
					r.targets.Signed.Expires = past
				case "engine":
					r.engine().Signed.Expires = past
				}
				r.publish(t)
				target, err := w.verify(enginePath)
				if sign.CodeOf(err) != sign.CodeExpired || target.Digest != "" {
					t.Fatalf("%v", err)
				}
				if err := w.state.Allows(engineRelease()); err != nil {
					t.Errorf("expiry touched what runs: %v", err)
				}
			})
		}
	}
}

func TestThresholds(t *testing.T) {
	t.Parallel()
	signers := func(side func(*world) *repo, role string, by ...ed25519.PrivateKey) func(*testing.T, *world) {
		return func(t *testing.T, w *world) {
			t.Helper()
			side(w).signers[role] = by
			if role == "root" {
				mustVerify(t, w)
				side(w).root.Signed.Version++
			}
			side(w).publish(t)
		}
	}
	engine := key("vendor-engine-1")
	for _, f := range []forgery{
		{name: "engine by one", code: sign.CodeThreshold, do: signers(vendor, "engine", engine)},
		{name: "engine by one twice", code: sign.CodeThreshold, do: signers(vendor, "engine", engine, engine)},
		{name: "engine by the third", code: "", do: signers(vendor, "engine", engine, key("vendor-engine-3"))},
		{name: "engine by one and a stranger", code: sign.CodeThreshold, do: signers(vendor, "engine", engine, key("x"))},
		{
			name: "catalog by one", code: sign.CodeThreshold,
			do: signers(operator, "catalog-engine", key("operator-catalog-engine-1")),
		},
		{name: "new root by one", code: sign.CodeThreshold, do: signers(vendor, "root", key("vendor-root-1"))},
		{name: "new root by strangers", code: sign.CodeThreshold, do: signers(operator, "root", keys("x", 3)...)},
		{name: "targets by one", code: sign.CodeThreshold, do: signers(operator, "targets", key("operator-root-1"))},
		{name: "nobody", code: sign.CodeThreshold, do: signers(vendor, "timestamp")},
		{name: "threshold 0", code: sign.CodeThreshold, do: func(t *testing.T, w *world) {
			t.Helper()
			w.vendor.targets.Signed.Delegations.Roles[0].Threshold = 0
			w.vendor.publish(t)
		}},
		{name: "one key under two names", code: sign.CodeThreshold, do: twoNames},
	} {
		t.Run(f.name, f.run)
	}
}

// twoNames gives the engine role one key twice, under ids that differ by a field that nobody reads.
func twoNames(t *testing.T, w *world) {
	t.Helper()
	d := w.vendor.targets.Signed.Delegations
	twin := tufKey(t, key("vendor-engine-1"))
	twin.UnrecognizedFields = map[string]any{"comment": "twin"}
	id, err := twin.ID()
	must(t, err)
	d.Keys[id] = twin
	d.Roles[0].KeyIDs = append(d.Roles[0].KeyIDs, id)
	w.vendor.signers["engine"] = keys("vendor-engine", 1)
	w.vendor.publish(t)
	name := fmt.Sprintf("%d.engine.json", w.vendor.roles["engine"].Signed.Version)
	m := w.vendor.roles["engine"]
	m.Signatures = append(m.Signatures, metadata.Signature{KeyID: id, Signature: m.Signatures[0].Signature})
	raw, err := m.ToBytes(false)
	must(t, err)
	named := w.vendor.put(t, name, raw)
	named.Version = m.Signed.Version
	w.vendor.snapshot.Signed.Meta["engine.json"] = named
	w.vendor.seal(t)
}
