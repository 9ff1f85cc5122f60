package layout_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/keepout-security/keepout/internal/artifact/layout"
	"github.com/keepout-security/keepout/internal/health"
)

// parcel is a package in the making; a test changes it before it is laid out.
type parcel struct {
	blobs    fstest.MapFS
	manifest map[string]any
	layers   []map[string]any
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func (p *parcel) put(mediaType string, data []byte) map[string]any {
	p.blobs["blobs/sha256/"+strings.TrimPrefix(digest(data), "sha256:")] = &fstest.MapFile{Data: data}
	return map[string]any{"mediaType": mediaType, "digest": digest(data), "size": len(data)}
}

func newParcel(files []byte) *parcel {
	p := &parcel{blobs: fstest.MapFS{}}
	p.manifest = map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "artifactType": layout.EngineType,
		"config": p.put(layout.ReleaseType, []byte(`{"provider":"acme"}`)),
	}
	p.layers = []map[string]any{p.put(layout.FilesType, files), p.put(layout.SPDXType, []byte(`{}`))}
	return p
}

// seal writes the manifest and returns its digest.
func (p *parcel) seal(t testing.TB) (name string, length int64) {
	t.Helper()
	p.manifest["layers"] = p.layers
	raw, err := json.Marshal(p.manifest)
	if err != nil {
		t.Fatal(err)
	}
	p.put("", raw)
	return digest(raw), int64(len(raw))
}

type item struct {
	tar.Header

	text string
}

func file(name, text string) item {
	return item{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644}, text}
}

func archive(t testing.TB, items ...item) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, i := range items {
		i.Size = int64(len(i.text))
		if err := w.WriteHeader(&i.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, i.text); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func code(err error) string {
	var p health.Problem
	if errors.As(err, &p) {
		return p.Code
	}
	return ""
}

// readAll opens a package and reads all of it.
func readAll(fsys fstest.MapFS, name string, length int64) (files map[string]string, err error) {
	p, err := layout.Open(fsys, name, length)
	if err != nil {
		return nil, err
	}
	if _, err := p.Config(); err != nil {
		return nil, err
	}
	for _, l := range p.Layers() {
		if l.MediaType == layout.FilesType {
			continue
		}
		if _, _, err := p.Text(l.MediaType); err != nil {
			return nil, err
		}
	}
	files = map[string]string{}
	_, err = p.Files(func(f layout.File, r io.Reader) error {
		text, err := io.ReadAll(r)
		files[f.Name] = string(text)
		return err
	})
	return files, err
}

func TestRead(t *testing.T) {
	t.Parallel()
	dir := item{tar.Header{Typeflag: tar.TypeDir, Name: "rules/", Mode: 0o755}, ""}
	p := newParcel(archive(t, file("provider.yaml", "id: acme"), dir, file("rules/a", "1"), file("rules/b", "22")))
	name, length := p.seal(t)
	files, err := readAll(p.blobs, name, length)
	if err != nil || len(files) != 3 || files["rules/b"] != "22" {
		t.Fatalf("%v, %v", files, err)
	}
	pkg, err := layout.Open(p.blobs, name, 0)
	if err != nil || pkg.Type() != layout.EngineType || pkg.Digest() != name {
		t.Errorf("%v %v", pkg, err)
	}
	size, err := pkg.Files(func(layout.File, io.Reader) error { return nil }) // nobody reads them
	if err != nil || size != 11 {
		t.Errorf("%d bytes, %v", size, err)
	}
	if _, ok, err := pkg.Text(layout.SchemaType); ok || err != nil {
		t.Errorf("a schema that is not there: %v %v", ok, err)
	}
	wrong := errors.New("enough")
	if _, err := pkg.Files(func(layout.File, io.Reader) error { return wrong }); !errors.Is(err, wrong) {
		t.Errorf("the caller's own error: %v", err)
	}
}

// TestArchives: what an archive may not hold.
func TestArchives(t *testing.T) {
	t.Parallel()
	typed := func(kind byte, name, link string) item {
		return item{tar.Header{Typeflag: kind, Name: name, Linkname: link, Mode: 0o644}, ""}
	}
	setuid := file("su", "x")
	setuid.Mode = 0o4755
	deep := strings.Repeat("d/", layout.MaxDepth) + "f"
	for name, c := range map[string]struct {
		items []item
		code  string
	}{
		"upwards":               {[]item{file("../etc/passwd", "x")}, layout.CodeForbidden},
		"upwards in the middle": {[]item{file("a/../../b", "x")}, layout.CodeForbidden},
		"absolute":              {[]item{file("/etc/passwd", "x")}, layout.CodeForbidden},
		"the folder itself":     {[]item{file(".", "x")}, layout.CodeForbidden},
		"begins with ./":        {[]item{file("./a", "x")}, layout.CodeForbidden},
		"empty part":            {[]item{file("a//b", "x")}, layout.CodeForbidden},
		"backslash":             {[]item{file(`a\b`, "x")}, layout.CodeForbidden},
		"control character":     {[]item{file("a\nb", "x")}, layout.CodeForbidden},
		"right to left":         {[]item{file("a\u202eexe", "x")}, layout.CodeForbidden},
		"symbolic link":         {[]item{typed(tar.TypeSymlink, "a", "/etc/shadow")}, layout.CodeForbidden},
		"below a symbolic link": {
			[]item{typed(tar.TypeSymlink, "a", "/etc"), file("a/shadow", "x")}, layout.CodeForbidden,
		},
		"hard link":          {[]item{file("a", "x"), typed(tar.TypeLink, "b", "a")}, layout.CodeForbidden},
		"device":             {[]item{typed(tar.TypeBlock, "sda", "")}, layout.CodeForbidden},
		"pipe":               {[]item{typed(tar.TypeFifo, "p", "")}, layout.CodeForbidden},
		"set-user-id":        {[]item{setuid}, layout.CodeForbidden},
		"twice":              {[]item{file("a", "x"), file("a", "y")}, layout.CodeForbidden},
		"below a file":       {[]item{file("a", "x"), file("a/b", "y")}, layout.CodeForbidden},
		"a file on a folder": {[]item{file("a/b", "x"), file("a", "y")}, layout.CodeForbidden},
		"folder on a file":   {[]item{file("a", "x"), typed(tar.TypeDir, "a/", "")}, layout.CodeForbidden},
		"deep":               {[]item{file(deep, "x")}, layout.CodeForbidden},
		"as deep as may be":  {[]item{file(strings.TrimPrefix(deep, "d/"), "x")}, ""},
		"folder twice":       {[]item{typed(tar.TypeDir, "a/", ""), typed(tar.TypeDir, "a/", "")}, ""},
		"nothing":            {nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newParcel(archive(t, c.items...))
			digest, length := p.seal(t)
			if _, err := readAll(p.blobs, digest, length); code(err) != c.code || (err == nil) != (c.code == "") {
				t.Errorf("%v, want %q", err, c.code)
			}
		})
	}
}

func TestTooManyEntries(t *testing.T) {
	t.Parallel()
	var items []item
	for i := range layout.MaxEntries + 1 {
		items = append(items, file(fmt.Sprintf("f%d", i), ""))
	}
	p := newParcel(archive(t, items...))
	name, length := p.seal(t)
	if _, err := readAll(p.blobs, name, length); code(err) != layout.CodeLimit {
		t.Error(err)
	}
}

// TestChanged: a byte of any blob, more of it, less of it, or none.
func TestChanged(t *testing.T) {
	t.Parallel()
	fresh := func() (*parcel, string, int64) {
		p := newParcel(archive(t, file("a", strings.Repeat("x", 5000))))
		name, length := p.seal(t)
		return p, name, length
	}
	sample, _, _ := fresh()
	for blob := range sample.blobs {
		for kind, change := range map[string]func([]byte) []byte{
			"a byte": func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
			"cut":    func(b []byte) []byte { return b[:len(b)-1] },
			"longer": func(b []byte) []byte { return append(b, 0) },
			"empty":  func([]byte) []byte { return nil },
			"gone":   nil,
		} {
			t.Run(kind+"/"+blob[len(blob)-6:], func(t *testing.T) {
				t.Parallel()
				p, name, length := fresh()
				want := layout.CodeChanged
				if change == nil {
					want = layout.CodeUnreadable
					delete(p.blobs, blob)
				} else {
					p.blobs[blob] = &fstest.MapFile{Data: change(bytes.Clone(p.blobs[blob].Data))}
				}
				if _, err := readAll(p.blobs, name, length); code(err) != want {
					t.Errorf("%v, want %s", err, want)
				}
			})
		}
	}
}

func TestManifests(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*parcel)
		code   string
	}{
		"another artifact": {func(p *parcel) { p.manifest["artifactType"] = "application/x" }, layout.CodePackage},
		"an index": {
			func(p *parcel) { p.manifest["mediaType"] = "application/vnd.oci.image.index.v1+json" }, layout.CodePackage,
		},
		"another config": {
			func(p *parcel) { p.manifest["config"] = p.put("application/x", []byte("{}")) }, layout.CodePackage,
		},
		"no files":      {func(p *parcel) { p.layers = p.layers[1:] }, layout.CodePackage},
		"files twice":   {func(p *parcel) { p.layers = append(p.layers, p.layers[0]) }, layout.CodePackage},
		"huge files":    {func(p *parcel) { p.layers[0]["size"] = int64(layout.MaxFiles) + 1 }, layout.CodeLimit},
		"huge text":     {func(p *parcel) { p.layers[1]["size"] = layout.MaxText + 1 }, layout.CodeLimit},
		"negative size": {func(p *parcel) { p.layers[1]["size"] = -1 }, layout.CodeLimit},
		"bad digest":    {func(p *parcel) { p.layers[0]["digest"] = "sha256:../../../etc/passwd" }, layout.CodePackage},
		"another hash":  {func(p *parcel) { p.layers[0]["digest"] = "md5:" + strings.Repeat("a", 32) }, layout.CodePackage},
		"compressed tar": {
			func(p *parcel) { p.layers[0] = p.put(layout.FilesType, []byte{0x1f, 0x8b, 8, 0}) }, layout.CodePackage,
		},
		"many layers": {func(p *parcel) {
			for i := range layout.MaxLayers {
				p.layers = append(p.layers, p.put(fmt.Sprintf("application/%d", i), nil))
			}
		}, layout.CodePackage},
		"archive with something behind it": {func(p *parcel) {
			p.layers[0] = p.put(layout.FilesType, append(archive(t, file("a", "x")), make([]byte, 1<<20)...))
		}, layout.CodePackage},
		"archive cut in a file": {func(p *parcel) {
			p.layers[0] = p.put(layout.FilesType, archive(t, file("a", strings.Repeat("x", 2000)))[:1000])
		}, layout.CodePackage},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newParcel(archive(t, file("a", "x")))
			c.change(p)
			digest, length := p.seal(t)
			if _, err := readAll(p.blobs, digest, length); code(err) != c.code {
				t.Errorf("%v, want %s", err, c.code)
			}
		})
	}
}

func TestOpenByWrongNames(t *testing.T) {
	t.Parallel()
	p := newParcel(archive(t, file("a", "x")))
	name, length := p.seal(t)
	for what, err := range map[string]error{
		"length":   second(layout.Open(p.blobs, name, length+1)),
		"no hash":  second(layout.Open(p.blobs, "engine-4.2.0", length)),
		"upwards":  second(layout.Open(p.blobs, "sha256:../../x", length)),
		"unknown":  second(layout.Open(p.blobs, digest([]byte("x")), 0)),
		"not JSON": second(layout.Open(p.blobs, digest([]byte(`{"provider":"acme"}`))[:70]+"0", 0)),
	} {
		if code(err) == "" {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func second(_ *layout.Package, err error) error { return err }

func TestList(t *testing.T) {
	t.Parallel()
	fsys := fstest.MapFS{"index.json": {Data: []byte(`{"manifests":[{"digest":"sha256:00","size":3,
		"artifactType":"x","annotations":{"org.opencontainers.image.ref.name":"engine-1"}}]}`)}}
	list, err := layout.List(fsys)
	if err != nil || len(list) != 1 || list[0].Tag() != "engine-1" || list[0].ArtifactType != "x" {
		t.Errorf("%+v %v", list, err)
	}
	for name, data := range map[string][]byte{"torn": []byte(`{"mani`), "endless": make([]byte, 2<<20)} {
		if _, err := layout.List(fstest.MapFS{"index.json": {Data: data}}); code(err) != layout.CodePackage {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := layout.List(fstest.MapFS{}); code(err) != layout.CodeUnreadable {
		t.Error(err)
	}
}

func FuzzManifest(f *testing.F) {
	p := newParcel(archive(f, file("a", "x")))
	p.manifest["layers"] = p.layers
	raw, err := json.Marshal(p.manifest)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte(`{`))
	f.Fuzz(func(t *testing.T, data []byte) {
		fsys := fstest.MapFS{}
		for k, v := range p.blobs {
			fsys[k] = v
		}
		fsys["blobs/sha256/"+strings.TrimPrefix(digest(data), "sha256:")] = &fstest.MapFile{Data: data}
		if _, err := readAll(fsys, digest(data), int64(len(data))); err != nil && code(err) == "" {
			t.Fatalf("an error without a code: %v", err)
		}
	})
}

func FuzzFiles(f *testing.F) {
	f.Add(archive(f, file("a", "x"), file("b/c", "y")))
	f.Add(archive(f, item{tar.Header{Typeflag: tar.TypeSymlink, Name: "a", Linkname: ".."}, ""}))
	f.Add([]byte("no tar"))
	f.Fuzz(func(t *testing.T, data []byte) {
		p := newParcel(data)
		name, length := p.seal(t)
		files, err := readAll(p.blobs, name, length)
		if err != nil && code(err) == "" {
			t.Fatalf("an error without a code: %v", err)
		}
		for name := range files {
			if strings.Contains(name, "..") && strings.Contains("/"+name+"/", "/../") || strings.HasPrefix(name, "/") {
				t.Fatalf("handed out %q", name)
			}
		}
	})
}
