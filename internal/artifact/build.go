package artifact

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content/oci"

	"github.com/keepout-security/keepout/internal/artifact/layout"
	"github.com/keepout-security/keepout/internal/sign"
)

// Input is what a package is made of.
type Input struct {
	// Release describes it. Size is filled in by Build.
	Release sign.Release
	Files   string // folder with the files; an engine's holds provider.yaml at its top
	// Manifest is the provider's manifest, as a file's text. Required for both kinds: content belongs to a provider, too.
	Manifest []byte
	Schema   []byte // what content must look like, as YAML; nil when the manifest declares nothing
	// SBOM is the bill of materials, SPDX or CycloneDX in JSON. nil: one is made from the files.
	SBOM []byte
}

// Built says what was made.
type Built struct {
	Release sign.Release `json:"release"`
	Path    string       `json:"path"`   // as both repositories name it
	Digest  string       `json:"digest"` // of the OCI manifest, which stands for all
	Length  int64        `json:"length"` // of the OCI manifest, in bytes
	Files   int          `json:"files"`
}

// Build makes a package in an OCI image layout, under the tag KIND-VERSION. The layout may hold other packages already;
// the folder is made when it does not exist.
func Build(ctx context.Context, in Input, dir string) (Built, error) {
	list, size, err := collect(in.Files)
	if err != nil {
		return Built{}, err
	}
	in.Release.Size = size
	if err := in.Release.Check(); err != nil {
		return Built{}, fmt.Errorf("describe the release: %w", err)
	}
	store, err := oci.NewWithContext(ctx, dir)
	if err != nil {
		return Built{}, fmt.Errorf("open the layout %s: %w", dir, err)
	}
	layers, err := pushLayers(ctx, store, in, list)
	if err != nil {
		return Built{}, err
	}
	config, err := json.Marshal(in.Release)
	if err != nil {
		return Built{}, err
	}
	configDesc, err := pushText(ctx, store, layout.ReleaseType, "", config)
	if err != nil {
		return Built{}, err
	}
	kind := layout.EngineType
	if in.Release.Kind == sign.Content {
		kind = layout.ContentType
	}
	desc, err := oras.PackManifest(ctx, store, oras.PackManifestVersion1_1, kind, oras.PackManifestOptions{
		ConfigDescriptor: &configDesc, Layers: layers, ManifestAnnotations: annotations(in.Release),
	})
	if err != nil {
		return Built{}, fmt.Errorf("pack the manifest: %w", err)
	}
	if err := store.Tag(ctx, desc, Tag(in.Release)); err != nil {
		return Built{}, fmt.Errorf("name the package: %w", err)
	}
	return Built{
		Release: in.Release, Path: in.Release.TargetPath(), Digest: desc.Digest.String(), Length: desc.Size, Files: len(list),
	}, nil
}

// Tag is the name of a package in a layout or a registry.
func Tag(r sign.Release) string { return string(r.Kind) + "-" + r.Version }

// annotations repeat the release for tools that know OCI. The time is fixed: a package has none.
func annotations(r sign.Release) map[string]string {
	return map[string]string{
		ocispec.AnnotationCreated: "1970-01-01T00:00:00Z",
		ocispec.AnnotationTitle:   r.Provider + " " + string(r.Kind),
		ocispec.AnnotationVersion: r.Version,
		"org.keepout.provider":    r.Provider,
		"org.keepout.kind":        string(r.Kind),
		"org.keepout.counter":     strconv.FormatUint(r.Counter, 10),
	}
}

func pushLayers(ctx context.Context, store *oci.Store, in Input, list []entry) ([]ocispec.Descriptor, error) {
	files, err := pushTar(ctx, store, in.Files, list)
	if err != nil {
		return nil, err
	}
	sbom := in.SBOM
	if sbom == nil {
		if sbom, err = makeSBOM(in, list); err != nil {
			return nil, err
		}
	}
	sbomType, err := sbomKind(sbom)
	if err != nil {
		return nil, err
	}
	layers := []ocispec.Descriptor{files}
	for _, l := range []struct {
		mediaType, title string
		text             []byte
	}{
		{layout.ManifestType, "provider.yaml", in.Manifest},
		{sbomType, "sbom.json", sbom},
		{layout.SchemaType, "content-schema.yaml", in.Schema},
	} {
		if l.text == nil {
			continue
		}
		desc, err := pushText(ctx, store, l.mediaType, l.title, l.text)
		if err != nil {
			return nil, err
		}
		layers = append(layers, desc)
	}
	return layers, nil
}

// pushText stores a small blob.
func pushText(ctx context.Context, store *oci.Store, mediaType, title string, text []byte) (ocispec.Descriptor, error) {
	if len(text) > layout.MaxText {
		return ocispec.Descriptor{}, fmt.Errorf("%s has %d bytes, more than %d", title, len(text), layout.MaxText)
	}
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(text), Size: int64(len(text))}
	if title != "" {
		desc.Annotations = map[string]string{ocispec.AnnotationTitle: title}
	}
	has, err := store.Exists(ctx, desc)
	if err == nil && !has {
		err = store.Push(ctx, desc, bytes.NewReader(text))
	}
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("store %s: %w", mediaType, err)
	}
	return desc, nil
}

// pushTar stores the files as one archive. It is written beside the layout first: its digest is known at its end.
func pushTar(ctx context.Context, store *oci.Store, dir string, list []entry) (_ ocispec.Descriptor, err error) {
	temp, err := os.CreateTemp("", "keepout-package-*")
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("make a temporary file: %w", err)
	}
	defer func() { err = errors.Join(err, temp.Close(), os.Remove(temp.Name())) }()
	sum := digest.SHA256.Digester()
	size, err := writeTar(temp, sum.Hash(), dir, list)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if _, err := temp.Seek(0, 0); err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("read the archive again: %w", err)
	}
	desc := ocispec.Descriptor{MediaType: layout.FilesType, Digest: sum.Digest(), Size: size}
	has, err := store.Exists(ctx, desc)
	if err == nil && !has {
		err = store.Push(ctx, desc, temp)
	}
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("store the files: %w", err)
	}
	return desc, nil
}

// ReadManifest reads the provider's manifest of an engine's folder.
func ReadManifest(dir string) ([]byte, error) {
	text, err := os.ReadFile(filepath.Join(dir, "provider.yaml"))
	if err != nil {
		return nil, fmt.Errorf("read the provider's manifest: %w", err)
	}
	return text, nil
}
