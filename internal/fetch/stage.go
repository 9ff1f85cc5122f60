package fetch

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/keepout-security/keepout/internal/rollback"
	"github.com/keepout-security/keepout/internal/sign"
	"github.com/keepout-security/keepout/internal/update"
)

// Bounds of what is fetched. The core has its own.
const (
	maxMeta    = 4 << 20 // bytes of one metadata file
	maxBlob    = 2 << 30
	maxRoots   = 64 // rotations of a root that are followed in one round
	maxTargets = 64 // targets files of one repository
	maxVendors = update.MaxTroubles
	maxLayers  = 8
	maxWhole   = 4096 // files that are remembered to be whole; beyond, all are looked at anew
)

// blobDir is where blobs lie, in every source, in a folder for the kind of their digests.
const (
	blobDir   = "blobs/"
	sha256Dir = blobDir + "sha256"
)

// metadata is what is read of a TUF file, only to know what else to fetch. The core verifies.
type metadata struct {
	Signed struct {
		Version int64 `json:"version"`
		Meta    map[string]struct {
			Version int64 `json:"version"`
		} `json:"meta"`
		Targets map[string]struct {
			Hashes map[string]string `json:"hashes"`
			Custom json.RawMessage   `json:"custom"`
		} `json:"targets"`
	} `json:"signed"`
}

// mirror fetches what a source has into a staging folder.
type mirror struct {
	from  source
	to    string
	whole map[string]bool // what this process fetched or found whole; nil remembers nothing
}

func (m mirror) read(name string) (out metadata, err error) {
	text, err := os.ReadFile(filepath.Join(m.to, name))
	if err != nil {
		return out, err
	}
	err = json.Unmarshal(text, &out)
	return out, err
}

// once fetches a file whose name says its version or content, unless it is there and whole.
func (m mirror) once(ctx context.Context, name string) (err error) {
	if m.has(name) {
		return nil
	}
	if to := filepath.Join(m.to, name); strings.HasPrefix(name, blobDir) {
		err = downloadBlob(ctx, m.from, name, to, maxBlob)
	} else {
		err = download(ctx, m.from, name, to, maxMeta)
	}
	if err == nil {
		m.remember(name)
	}
	return err
}

// has reports whether a file is there, and removes it where it is torn: what an earlier process, or a machine that lost
// its power, left under a name would otherwise never be fetched again. That is looked at once, whatever is left of a
// turn: to begin anew each time would never come to an end.
func (m mirror) has(name string) bool {
	at := filepath.Join(m.to, name)
	f, err := os.Open(at)
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }() // only read
	if m.whole[name] {
		return true
	}
	if fits(name, f) != nil {
		_ = os.Remove(at) // where that fails, it is replaced
		return false
	}
	m.remember(name)
	return true
}

func (m mirror) remember(name string) {
	if m.whole == nil {
		return
	}
	if len(m.whole) >= maxWhole {
		clear(m.whole)
	}
	m.whole[name] = true
}

// catalog is what the operator's and the vendors' metadata say that there is.
type catalog struct {
	releases []offer
	troubles map[string]error // by vendor: why not all of what they publish is here
}

// offer is one release that the operator names.
type offer struct {
	sign.Release

	path, digest, vendor string
}

// catalog fetches all metadata. The error is about the operator's: a vendor whose metadata does not come is in the
// catalog's troubles, and the core judges each release by what it finds of its vendor.
func (m mirror) catalog(ctx context.Context) (c catalog, err error) {
	operator, err := m.repository(ctx, update.OperatorDir)
	if err != nil {
		return c, fmt.Errorf("the operator's metadata: %w", err)
	}
	vendors := admitted(operator)
	if len(vendors) > maxVendors {
		return c, fmt.Errorf("the operator names more than %d vendors", maxVendors)
	}
	makers := map[string]string{} // provider: vendor
	for i, vendor := range slices.Sorted(maps.Keys(vendors)) {
		call, cancel := share(ctx, len(vendors)-i)
		if _, err := m.repository(call, path.Join(update.VendorsDir, vendor)); err != nil {
			c.trouble(vendor, fmt.Errorf("its metadata: %w", inTime(call, err)))
		}
		cancel()
		for _, p := range vendors[vendor] {
			makers[p] = vendor
		}
	}
	if err := ctx.Err(); errors.Is(err, context.Canceled) {
		return c, err // that was no vendor's trouble
	}
	for _, t := range operator {
		for name, target := range t.Signed.Targets {
			var r sign.Release
			if json.Unmarshal(target.Custom, &r) != nil || r.Check() != nil || makers[r.Provider] == "" {
				continue
			}
			c.releases = append(c.releases, offer{
				Release: r, path: name, digest: "sha256:" + target.Hashes["sha256"], vendor: makers[r.Provider],
			})
		}
	}
	slices.SortFunc(c.releases, func(a, b offer) int {
		return cmp.Or(cmp.Compare(a.path, b.path), cmp.Compare(a.Counter, b.Counter))
	})
	return c, nil
}

// admitted are the vendors that the operator's targets files name, each with its providers.
func admitted(operator []metadata) map[string][]string {
	vendors := map[string][]string{}
	for _, t := range operator {
		for name, target := range t.Signed.Targets {
			vendor, ok := strings.CutPrefix(name, sign.VendorPath(""))
			var entry sign.VendorEntry
			if ok && folderName(vendor) && json.Unmarshal(target.Custom, &entry) == nil {
				vendors[vendor] = entry.Providers
			}
		}
	}
	return vendors
}

// folderName reports whether a name is that of one folder, here.
func folderName(name string) bool {
	return fs.ValidPath(name) && name != "." && path.Base(name) == name
}

// blobs fetches a package: its manifest, then what that names.
func (m mirror) blobs(ctx context.Context, digest string) error {
	name, err := blob(digest)
	if err != nil {
		return err
	}
	if err := m.once(ctx, name); err != nil {
		return err
	}
	parts, err := m.parts(name)
	if err != nil {
		return fmt.Errorf("package %.19s: %w", digest, err)
	}
	for _, name := range parts {
		if err := m.once(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// parts are the blobs that a package's manifest names.
func (m mirror) parts(manifest string) (names []string, err error) {
	f, err := os.Open(filepath.Join(m.to, manifest))
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	var list struct {
		Config layer   `json:"config"`
		Layers []layer `json:"layers"`
	}
	if err := json.NewDecoder(io.LimitReader(f, maxMeta)).Decode(&list); err != nil {
		return nil, fmt.Errorf("its manifest: %w", err)
	}
	if len(list.Layers) > maxLayers {
		return nil, fmt.Errorf("it has more than %d layers", maxLayers)
	}
	for _, l := range append(list.Layers, list.Config) {
		name, err := blob(l.Digest)
		if err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, nil
}

type layer struct {
	Digest string `json:"digest"`
}

// blob is where a blob lies.
func blob(digest string) (string, error) {
	hex, ok := strings.CutPrefix(digest, "sha256:")
	if !ok || len(hex) != 64 || strings.Trim(hex, "0123456789abcdef") != "" {
		return "", fmt.Errorf("%.80q is no digest", digest)
	}
	return path.Join(sha256Dir, hex), nil
}

// newest are the orders of a host without a control plane: of each provider and part the latest release.
func (c *catalog) newest() []update.Order {
	best := map[string]offer{}
	for _, o := range c.releases {
		key := o.Provider + "/" + string(o.Kind)
		if had, ok := best[key]; !ok || had.Counter < o.Counter {
			best[key] = o
		}
	}
	out := make([]update.Order, 0, len(best))
	for _, o := range best {
		out = append(out, o.order(""))
	}
	slices.SortFunc(out, func(a, b update.Order) int { return cmp.Compare(a.Path, b.Path) })
	return out[:min(len(out), update.MaxOrders)]
}

func (o *offer) order(rollout string) update.Order {
	return update.Order{
		Act: update.Stage, Rollout: rollout, Provider: o.Provider, Part: rollback.Part(o.Kind), Vendor: o.vendor,
		Path: o.path, Digest: o.digest,
	}
}

// find looks a package up by its digest.
func (c *catalog) find(digest string) (offer, bool) {
	i := slices.IndexFunc(c.releases, func(o offer) bool { return o.digest == digest })
	if i < 0 {
		return offer{}, false
	}
	return c.releases[i], true
}
