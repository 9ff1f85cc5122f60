package artifact

import (
	"context"
	"errors"
	"fmt"
	"os"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/content/oci"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/credentials"
	"oras.land/oras-go/v2/registry/remote/retry"

	"github.com/keepout-security/keepout/internal/artifact/layout"
	"github.com/keepout-security/keepout/internal/health"
)

// CodeRegistry is a registry that could not be reached, refused, or gave what cannot be right.
const CodeRegistry = "KO-2136"

// Remote is a repository of an OCI registry.
type Remote struct {
	Reference string // HOST[:PORT]/REPOSITORY[:TAG|@DIGEST]
	PlainHTTP bool   // without TLS: for a registry on this machine
}

func (r Remote) open() (*remote.Repository, error) {
	repo, err := remote.NewRepository(r.Reference)
	if err != nil {
		return nil, health.Problem{
			Code: CodeRegistry, Severity: health.Failure, Title: fmt.Sprintf("%q names no repository: %v", r.Reference, err),
			Fix: "name it as HOST/REPOSITORY:TAG",
		}
	}
	repo.PlainHTTP = r.PlainHTTP
	client := &auth.Client{Client: retry.DefaultClient, Cache: auth.NewCache()}
	// Who is logged in with another tool is logged in here; a machine without that file needs none.
	if store, err := credentials.NewStoreFromDocker(credentials.StoreOptions{}); err == nil {
		client.Credential = credentials.Credential(store)
	}
	repo.Client = client
	return repo, nil
}

func (r Remote) failed(what string, err error) error {
	var p health.Problem
	if errors.As(err, &p) {
		return p
	}
	return health.Problem{
		Code: CodeRegistry, Severity: health.Failure, Title: fmt.Sprintf("%s %s: %v", what, r.Reference, err),
		Fix: "see that the name is right, that the registry answers, and that you are logged in",
	}
}

// Push copies a package from a layout, by digest or tag, to a registry under the tag of the reference.
func Push(ctx context.Context, dir, name string, to Remote) (string, error) {
	store, err := oci.NewFromFS(ctx, os.DirFS(dir))
	if err != nil {
		return "", fmt.Errorf("open the layout %s: %w", dir, err)
	}
	repo, err := to.open()
	if err != nil {
		return "", err
	}
	tag := repo.Reference.Reference
	if tag == "" {
		tag = name
	}
	desc, err := oras.Copy(ctx, store, name, repo, tag, oras.DefaultCopyOptions)
	if err != nil {
		return "", to.failed("push to", err)
	}
	return desc.Digest.String(), nil
}

// Pull copies a package from a registry into a layout. What the registry says about sizes is bounded before anything is
// read, and every blob is compared with its digest. When want is not "", the package must have this digest.
func Pull(ctx context.Context, from Remote, dir, want string) (string, error) {
	repo, err := from.open()
	if err != nil {
		return "", err
	}
	name := repo.Reference.Reference
	if want != "" {
		name = want
	}
	if name == "" {
		return "", from.failed("pull from", errors.New("neither a tag nor a digest is named"))
	}
	store, err := oci.NewWithContext(ctx, dir)
	if err != nil {
		return "", fmt.Errorf("open the layout %s: %w", dir, err)
	}
	desc, err := oras.Copy(ctx, repo, name, store, name, pullOptions(want))
	if err != nil {
		return "", from.failed("pull from", err)
	}
	return desc.Digest.String(), nil
}

func pullOptions(want string) oras.CopyOptions {
	opts := oras.DefaultCopyOptions
	opts.MaxMetadataBytes = layout.MaxManifest
	total := int64(0)
	opts.MapRoot = func(
		ctx context.Context, src content.ReadOnlyStorage, root ocispec.Descriptor,
	) (ocispec.Descriptor, error) {
		if want != "" && root.Digest.String() != want {
			return root, lied("it gives %s where %s was asked for", root.Digest, want)
		}
		return root, bounded(ctx, src, root)
	}
	opts.PreCopy = func(_ context.Context, d ocispec.Descriptor) error {
		if total += d.Size; d.Size < 0 || total > layout.MaxFiles+layout.MaxLayers*layout.MaxText {
			return lied("the package has more than %d bytes", int64(layout.MaxFiles))
		}
		return nil
	}
	opts.Concurrency = 1 // PreCopy counts
	return opts
}

// bounded looks at the manifest before anything that it names is asked for.
func bounded(ctx context.Context, src content.Fetcher, root ocispec.Descriptor) error {
	if root.Size < 0 || root.Size > layout.MaxManifest {
		return lied("a manifest of %d bytes, more than %d", root.Size, layout.MaxManifest)
	}
	if root.MediaType != ocispec.MediaTypeImageManifest {
		return lied("it is %q and not a package", root.MediaType)
	}
	r, err := src.Fetch(ctx, root)
	if err != nil {
		return err
	}
	_, err = content.ReadAll(r, root)
	return errors.Join(err, r.Close())
}

func lied(format string, args ...any) error {
	return health.Problem{
		Code: CodeRegistry, Severity: health.Failure,
		Title: "the registry's answer is refused: " + fmt.Sprintf(format, args...),
		Fix:   "name a package of Keepout; if it is one, pull it from a registry that you trust",
	}
}
