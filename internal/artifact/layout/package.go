package layout

import (
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"regexp"
	"slices"
	"strings"
)

// The media types of a package.
const (
	EngineType   = "application/vnd.keepout.engine.v1"              // artifact type of an engine package
	ContentType  = "application/vnd.keepout.content.v1"             // artifact type of a content package
	ReleaseType  = "application/vnd.keepout.release.v1+json"        // config: a sign.Release
	FilesType    = "application/vnd.oci.image.layer.v1.tar"         // the files themselves, not compressed
	ManifestType = "application/vnd.keepout.provider.v1+yaml"       // the provider's manifest
	SchemaType   = "application/vnd.keepout.content-schema.v1+yaml" // what its content must look like
	SPDXType     = "application/spdx+json"                          // bill of materials, one of the two
	CycloneType  = "application/vnd.cyclonedx+json"                 // the other
	ociManifest  = "application/vnd.oci.image.manifest.v1+json"     // OCI image manifest
	ociIndex     = "index.json"                                     // what a layout holds, for people
)

// Limits of a package. What is beyond them is refused before it is read.
const (
	MaxManifest = 64 << 10 // bytes of the OCI manifest
	MaxLayers   = 8
	MaxText     = 16 << 20 // bytes of each layer except the files
	MaxFiles    = 2 << 30  // bytes of all files together, and of the layer that holds them
	MaxEntries  = 16_384   // files and folders
	MaxDepth    = 16       // folders below one another
	maxIndex    = 1 << 20
)

// Descriptor names a blob.
type Descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"` // "sha256:" and 64 hexadecimal digits
	Size        int64             `json:"size"`   // bytes
	Annotations map[string]string `json:"annotations,omitempty"`
}

// manifest is what we read of an OCI image manifest.
type manifest struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType"`
	ArtifactType  string            `json:"artifactType"`
	Config        Descriptor        `json:"config"`
	Layers        []Descriptor      `json:"layers"`
	Annotations   map[string]string `json:"annotations"`
}

// Package is one package of a layout: its manifest was verified, its layers are verified as they are read. It is safe
// for concurrent use.
type Package struct {
	dir      fs.FS
	digest   string
	manifest manifest
}

var digestPattern = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// Open verifies the manifest with this digest and length (sign.Target names both) and looks at nothing else yet. A
// length of 0 or less is not compared.
func Open(dir fs.FS, digest string, length int64) (*Package, error) {
	if !digestPattern.MatchString(digest) {
		return nil, refuse(CodePackage, "name it as sha256:…", "%q is no digest", digest)
	}
	if length <= 0 {
		info, err := fs.Stat(dir, blobName(digest))
		if err != nil {
			return nil, unreadable(digest, err)
		}
		length = info.Size()
	}
	p := &Package{dir: dir, digest: digest}
	raw, err := p.read(Descriptor{Digest: digest, Size: length}, MaxManifest)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(raw, &p.manifest); err != nil {
		return nil, refuse(CodePackage, remake, "%s is no package: its manifest is no JSON: %v", short(digest), err)
	}
	if err := p.check(); err != nil {
		return nil, err
	}
	return p, nil
}

const remake = "make it with keepout package build"

func (p *Package) check() error {
	m := &p.manifest
	bad := func(format string, args ...any) error {
		return refuse(CodePackage, remake, "%s is no package: %s", short(p.digest), fmt.Sprintf(format, args...))
	}
	switch {
	case m.SchemaVersion != 2 || m.MediaType != ociManifest:
		return bad("it is no OCI image manifest")
	case m.ArtifactType != EngineType && m.ArtifactType != ContentType:
		return bad("its type is %.100q", m.ArtifactType)
	case m.Config.MediaType != ReleaseType:
		return bad("its config is %.100q", m.Config.MediaType)
	case len(m.Layers) > MaxLayers:
		return bad("it has %d layers, more than %d", len(m.Layers), MaxLayers)
	}
	seen := []string{}
	for _, d := range append(slices.Clone(m.Layers), m.Config) {
		limit := int64(MaxText)
		if d.MediaType == FilesType {
			limit = MaxFiles
		}
		switch {
		case !digestPattern.MatchString(d.Digest):
			return bad("%.100q is no digest", d.Digest)
		case d.Size < 0 || d.Size > limit:
			return refuse(CodeLimit, "leave out what is not needed", "%s: its %s has %d bytes, more than %d",
				short(p.digest), d.MediaType, d.Size, limit)
		case slices.Contains(seen, d.MediaType):
			return bad("it has two layers of type %.100q", d.MediaType)
		}
		seen = append(seen, d.MediaType)
	}
	if !slices.Contains(seen, FilesType) {
		return bad("it has no files")
	}
	return nil
}

// Digest is the digest of the manifest, which stands for the whole package.
func (p *Package) Digest() string { return p.digest }

// Type is EngineType or ContentType.
func (p *Package) Type() string { return p.manifest.ArtifactType }

// Layers are what the package consists of besides its config.
func (p *Package) Layers() []Descriptor { return slices.Clone(p.manifest.Layers) }

// Annotations are what the maker wrote for people and tools.
func (p *Package) Annotations() map[string]string { return p.manifest.Annotations }

// Config returns the package's own description of the release, verified by digest.
func (p *Package) Config() ([]byte, error) { return p.read(p.manifest.Config, MaxText) }

// Text returns a layer other than the files, whole and verified; ok is false when the package has none of that type.
func (p *Package) Text(mediaType string) (text []byte, ok bool, err error) {
	for _, d := range p.manifest.Layers {
		if d.MediaType == mediaType {
			text, err = p.read(d, MaxText)
			return text, true, err
		}
	}
	return nil, false, nil
}

// Tar opens the layer with the files: a tar archive, not compressed. It is verified while it is read: instead of the
// end of the file there is an error when the bytes were not those that the manifest names, so nothing of it may be
// used before that end. Close it when done.
func (p *Package) Tar() (io.ReadCloser, error) {
	for _, d := range p.manifest.Layers {
		if d.MediaType == FilesType {
			return p.open(d)
		}
	}
	return nil, refuse(CodePackage, remake, "%s has no files", short(p.digest)) // check has seen one
}

func (p *Package) read(d Descriptor, limit int64) (_ []byte, err error) {
	if d.Size > limit {
		return nil, refuse(CodeLimit, "leave out what is not needed", "%s has %d bytes, more than %d", short(d.Digest),
			d.Size, limit)
	}
	r, err := p.open(d)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(r)
	if closed := r.Close(); err == nil && closed != nil {
		err = unreadable(d.Digest, closed)
	}
	if err != nil {
		return nil, err
	}
	return data, nil
}

func blobName(digest string) string { return "blobs/sha256/" + strings.TrimPrefix(digest, "sha256:") }

// short is enough of a digest for people.
func short(digest string) string { return digest[:min(len(digest), len("sha256:")+12)] }

// Entry is one package that a layout says it holds.
type Entry struct {
	Descriptor

	ArtifactType string `json:"artifactType"`
}

// Tag is the name that the entry has in the layout, which may be empty.
func (e Entry) Tag() string { return e.Annotations["org.opencontainers.image.ref.name"] }

// List reads what a layout says it holds. Nothing of it is verified: it is for finding a package by name. What counts
// is the digest with which Open is called.
func List(dir fs.FS) ([]Entry, error) {
	f, err := dir.Open(ociIndex)
	if err != nil {
		return nil, unreadable(ociIndex, err)
	}
	raw, err := io.ReadAll(io.LimitReader(f, maxIndex+1))
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return nil, unreadable(ociIndex, err)
	}
	var index struct {
		Manifests []Entry `json:"manifests"`
	}
	if err := json.Unmarshal(raw, &index); err != nil || len(raw) > maxIndex {
		return nil, refuse(CodePackage, "name the folder that keepout package build has made", "index.json is no OCI index")
	}
	return index.Manifests, nil
}
