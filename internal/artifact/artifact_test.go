package artifact_test

import (
	"context"
	"encoding/json"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"

	"github.com/keepout-security/keepout/internal/artifact"
	"github.com/keepout-security/keepout/internal/artifact/layout"
	"github.com/keepout-security/keepout/internal/folder"
	"github.com/keepout-security/keepout/internal/sign"
	"github.com/keepout-security/keepout/internal/testenv"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// engineDir makes the folder of an engine. Times, order of creation and the umask differ between two of them.
func engineDir(t *testing.T, names ...string) string {
	t.Helper()
	dir := t.TempDir()
	for i, name := range names {
		path := filepath.Join(dir, name)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		mode := 0o600 + 0o044*os.FileMode(i%2)
		if strings.HasSuffix(name, "engine") {
			mode = 0o700 + 0o055*os.FileMode(i%2)
		}
		must(t, os.WriteFile(path, []byte("text of "+name), mode))
		when := time.Now().Add(-time.Duration(i) * time.Hour)
		must(t, os.Chtimes(path, when, when))
	}
	return dir
}

func input(dir string) artifact.Input {
	return artifact.Input{
		Files: dir, Manifest: []byte("id: acme-edr\n"), Schema: []byte("others: ignore\n"),
		Release: sign.Release{
			Provider: "acme-edr", Kind: sign.Engine, Class: sign.Engine, Version: "4.2.0", Counter: 42,
			Hardware: []string{"linux/amd64"},
		},
	}
}

func build(t *testing.T, in artifact.Input) (artifact.Built, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "layout")
	b, err := artifact.Build(context.Background(), in, dir)
	must(t, err)
	return b, dir
}

// golden is the digest of a small package. It changes only when the format does, and then every host notices.
const golden = "sha256:bb1fbc3705f005a58a41e44fe61eb3e0719c45daf925b267ac2524f26ba03ea4"

func TestBuildIsReproducible(t *testing.T) {
	t.Parallel()
	a, _ := build(t, input(engineDir(t, "provider.yaml", "bin/engine", "rules/z", "rules/a")))
	b, dir := build(t, input(engineDir(t, "rules/a", "rules/z", "provider.yaml", "bin/engine")))
	if a.Digest != b.Digest || a.Length != b.Length {
		t.Errorf("the same files gave %s and %s", a.Digest, b.Digest)
	}
	if a.Digest != golden {
		t.Errorf("digest %s, was %s: the format changed", a.Digest, golden)
	}
	again, err := artifact.Build(context.Background(), input(engineDir(t, "provider.yaml", "bin/engine", "rules/z",
		"rules/a")), dir)
	if err != nil || again.Digest != b.Digest {
		t.Errorf("built once more into the same layout: %s, %v", again.Digest, err)
	}
	other, _ := build(t, input(engineDir(t, "provider.yaml", "bin/engine", "rules/z")))
	if other.Digest == a.Digest {
		t.Error("other files gave the same digest")
	}
}

// opened reads a package as the core does.
func opened(t *testing.T, dir string, b artifact.Built) *layout.Package {
	t.Helper()
	f, err := folder.Open(dir)
	must(t, err)
	t.Cleanup(func() { must(t, f.Close()) })
	p, err := layout.Open(f, b.Digest, b.Length)
	must(t, err)
	return p
}

func TestWhatIsInside(t *testing.T) {
	t.Parallel()
	b, dir := build(t, input(engineDir(t, "provider.yaml", "bin/engine")))
	p := opened(t, dir, b)
	config, err := p.Config()
	must(t, err)
	target := sign.Target{Digest: b.Digest, Length: b.Length, Release: b.Release}
	must(t, target.Describes(config))
	executable := map[string]bool{}
	size, err := p.Files(func(f layout.File, _ io.Reader) error { executable[f.Name] = f.Executable; return nil })
	if err != nil || size != b.Release.Size || !executable["bin/engine"] || executable["provider.yaml"] {
		t.Errorf("%d bytes of %d, %v, %v", size, b.Release.Size, executable, err)
	}
	sbom, ok, err := p.Text(layout.SPDXType)
	if err != nil || !ok {
		t.Fatalf("no bill of materials: %v", err)
	}
	checkSPDX(t, sbom, 2)
	for _, kind := range []string{layout.ManifestType, layout.SchemaType} {
		if text, ok, err := p.Text(kind); err != nil || !ok || len(text) == 0 {
			t.Errorf("%s: %q %v", kind, text, err)
		}
	}
}

// checkSPDX checks what SPDX 2.3 demands of each document, and that all that it relates is there.
func checkSPDX(t *testing.T, text []byte, files int) {
	t.Helper()
	var doc struct {
		SPDXVersion, DataLicense, SPDXID, Name, DocumentNamespace string

		CreationInfo struct {
			Created  time.Time
			Creators []string
		}
		Packages []struct{ SPDXID, Name, DownloadLocation string }
		Files    []struct {
			SPDXID, FileName string
			Checksums        []struct{ Algorithm, ChecksumValue string }
		}
		Relationships []struct{ SpdxElementID, RelatedSpdxElement, RelationshipType string }
	}
	must(t, json.Unmarshal(text, &doc))
	if doc.SPDXVersion != "SPDX-2.3" || doc.DataLicense != "CC0-1.0" || doc.SPDXID != "SPDXRef-DOCUMENT" ||
		doc.Name == "" || doc.DocumentNamespace == "" || len(doc.CreationInfo.Creators) == 0 {
		t.Errorf("the head: %+v", doc)
	}
	known := map[string]bool{doc.SPDXID: true}
	for _, p := range doc.Packages {
		known[p.SPDXID] = p.Name != "" && p.DownloadLocation != ""
	}
	for _, f := range doc.Files {
		known[f.SPDXID] = strings.HasPrefix(f.FileName, "./") && f.Checksums[0].Algorithm == "SHA256" &&
			len(f.Checksums[0].ChecksumValue) == 64
	}
	for _, r := range doc.Relationships {
		if !known[r.SpdxElementID] || !known[r.RelatedSpdxElement] || r.RelationshipType == "" {
			t.Errorf("a relation to what is not there: %+v", r)
		}
	}
	if len(doc.Files) != files {
		t.Errorf("%d files, want %d", len(doc.Files), files)
	}
}

// TestModulesAreListed: a Go program says what it was built from.
func TestModulesAreListed(t *testing.T) {
	t.Parallel()
	dir := engineDir(t, "provider.yaml")
	built := testenv.Build(t, "./providers/hashlist")
	program, err := os.ReadFile(filepath.Join(built, "providers", "hashlist", "keepout-hashlist"))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "engine"), program, 0o755))
	b, out := build(t, input(dir))
	sbom, _, err := opened(t, out, b).Text(layout.SPDXType)
	must(t, err)
	checkSPDX(t, sbom, 2)
	if !strings.Contains(string(sbom), "pkg:golang/google.golang.org/protobuf@v1.") {
		t.Errorf("no module in it (%s)", runtime.Version())
	}
}

func TestOwnBillOfMaterials(t *testing.T) {
	t.Parallel()
	dir := engineDir(t, "provider.yaml")
	for text, kind := range map[string]string{
		`{"bomFormat":"CycloneDX","specVersion":"1.6"}`: layout.CycloneType,
		`{"spdxVersion":"SPDX-2.3"}`:                    layout.SPDXType,
		`{"something":"else"}`:                          "",
		`no JSON`:                                       "",
	} {
		in := input(dir)
		in.SBOM = []byte(text)
		out := filepath.Join(t.TempDir(), "layout")
		b, err := artifact.Build(context.Background(), in, out)
		if (err == nil) != (kind != "") {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if err == nil {
			if got, ok, err := opened(t, out, b).Text(kind); !ok || string(got) != text || err != nil {
				t.Errorf("%s: %q %v", text, got, err)
			}
		}
	}
}

func TestWhatIsNotPacked(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(dir string) error{
		"a link":       func(d string) error { return os.Symlink("/etc/shadow", filepath.Join(d, "x")) },
		"set-user-id":  func(d string) error { return os.Chmod(filepath.Join(d, "engine"), 0o755|os.ModeSetuid) },
		"not a folder": os.RemoveAll,
	} {
		dir := engineDir(t, "engine")
		must(t, spoil(dir))
		if _, err := artifact.Build(context.Background(), input(dir), filepath.Join(t.TempDir(), "l")); err == nil {
			t.Errorf("%s was packed", name)
		}
	}
	bad := input(engineDir(t, "engine"))
	bad.Release.Counter = 0
	if _, err := artifact.Build(context.Background(), bad, filepath.Join(t.TempDir(), "l")); err == nil {
		t.Error("a release without a counter was packed")
	}
}

func startRegistry(t *testing.T, wrap func(http.Handler) http.Handler) string {
	t.Helper()
	serve := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	if wrap != nil {
		serve = wrap(serve)
	}
	s := httptest.NewServer(serve)
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

func TestRegistry(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b, dir := build(t, input(engineDir(t, "provider.yaml", "bin/engine")))
	to := artifact.Remote{Reference: startRegistry(t, nil) + "/acme/edr:4.2", PlainHTTP: true}
	pushed, err := artifact.Push(ctx, dir, b.Digest, to)
	if err != nil || pushed != b.Digest {
		t.Fatalf("push: %s %v", pushed, err)
	}
	for _, want := range []string{"", b.Digest} {
		stick := filepath.Join(t.TempDir(), "stick")
		pulled, err := artifact.Pull(ctx, to, stick, want)
		if err != nil || pulled != b.Digest {
			t.Fatalf("pull %q: %s %v", want, pulled, err)
		}
		if _, err := opened(t, stick, b).Files(func(layout.File, io.Reader) error { return nil }); err != nil {
			t.Error(err)
		}
	}
	if _, err := artifact.Pull(ctx, to, t.TempDir(), "sha256:"+strings.Repeat("a", 64)); sign.CodeOf(err) !=
		artifact.CodeRegistry {
		t.Errorf("a digest that is not there: %v", err)
	}
	if _, err := artifact.Pull(ctx, artifact.Remote{Reference: "not a name"}, t.TempDir(), ""); sign.CodeOf(err) !=
		artifact.CodeRegistry {
		t.Errorf("a name that is none: %v", err)
	}
}

// TestLyingRegistry: what a registry says is bounded before it is read and compared when it is.
func TestLyingRegistry(t *testing.T) {
	t.Parallel()
	evil := []byte(strings.Repeat("evil", 1000))
	for name, lie := range map[string]func(w http.ResponseWriter, r *http.Request, next http.Handler){
		"other bytes for blobs": func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if !strings.Contains(r.URL.Path, "/blobs/") {
				next.ServeHTTP(w, r)
				return
			}
			w.Header().Set("Content-Length", strconv.Itoa(len(evil)))
			_, _ = w.Write(evil)
		},
		"other bytes for the manifest": func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if !strings.Contains(r.URL.Path, "/manifests/") {
				next.ServeHTTP(w, r)
				return
			}
			w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
			w.Header().Set("Docker-Content-Digest", "sha256:"+strings.Repeat("0", 64))
			_, _ = w.Write(evil)
		},
		"a manifest without end": func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if !strings.Contains(r.URL.Path, "/manifests/") {
				next.ServeHTTP(w, r)
				return
			}
			w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
			w.Header().Set("Content-Length", "1125899906842624")
			w.Header().Set("Docker-Content-Digest", "sha256:"+strings.Repeat("0", 64))
			if r.Method == http.MethodHead {
				return
			}
			for range 1 << 10 { // bounded: the client has gone long before
				if _, err := w.Write(evil); err != nil {
					return
				}
			}
		},
		"an index": func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if !strings.Contains(r.URL.Path, "/manifests/") {
				next.ServeHTTP(w, r)
				return
			}
			w.Header().Set("Content-Type", "application/vnd.oci.image.index.v1+json")
			_, _ = io.WriteString(w, `{"schemaVersion":2,"manifests":[]}`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, dir := build(t, input(engineDir(t, "provider.yaml", "engine")))
			truthful := true
			host := startRegistry(t, func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if truthful {
						next.ServeHTTP(w, r)
						return
					}
					lie(w, r, next)
				})
			})
			to := artifact.Remote{Reference: host + "/acme:1", PlainHTTP: true}
			_, err := artifact.Push(context.Background(), dir, b.Digest, to)
			must(t, err)
			truthful = false
			if _, err := artifact.Pull(context.Background(), to, t.TempDir(), ""); sign.CodeOf(err) != artifact.CodeRegistry {
				t.Errorf("believed: %v", err)
			}
		})
	}
}
