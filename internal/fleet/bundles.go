package fleet

import (
	"context"
	"errors"
	"regexp"
	"strings"

	"connectrpc.com/connect"

	"github.com/keepout-security/keepout/internal/fleet/fleetpb"
	"github.com/keepout-security/keepout/internal/fleet/store"
)

// maxGroups bounds a list of groups: each costs a query of its own.
const maxGroups = 100

func bundlePB(b *store.Bundle) *fleetpb.Bundle {
	return &fleetpb.Bundle{
		Digest: b.Digest, Machine: b.Machine, Signature: b.Signature, Level: b.Level, Test: b.Test,
		Received: stamp(b.Received), Host: b.Host, Size: uint32(max(b.Size, 0)), Suspect: b.Suspect,
	}
}

// ListBundles implements the service.
func (p people) ListBundles(
	ctx context.Context, req *connect.Request[fleetpb.ListBundlesRequest],
) (*connect.Response[fleetpb.ListBundlesResponse], error) {
	limit := int(req.Msg.GetLimit())
	if limit == 0 {
		limit = pageSize
	}
	if limit > store.Page {
		return nil, invalid("limit is at most %d", store.Page)
	}
	out := &fleetpb.ListBundlesResponse{}
	err := p.s.store.View(ctx, func(r store.Reader) error {
		all, err := r.Bundles(req.Msg.GetSignature(), req.Msg.GetMachine(), limit)
		for i := range all {
			out.Bundles = append(out.Bundles, bundlePB(&all[i]))
		}
		return err
	})
	if err != nil {
		return nil, answer(err)
	}
	return connect.NewResponse(out), nil
}

var digestPrefix = regexp.MustCompile(`^[0-9a-f]{8,64}$`)

// GetBundle implements the service. The bundle stays sealed: the control plane has no key for it.
func (p people) GetBundle(
	ctx context.Context, req *connect.Request[fleetpb.GetBundleRequest],
) (*connect.Response[fleetpb.GetBundleResponse], error) {
	prefix := strings.ToLower(strings.ReplaceAll(req.Msg.GetDigest(), "-", ""))
	if !digestPrefix.MatchString(prefix) {
		return nil, invalid("a bundle goes by its digest, or the first 8 digits of it or more")
	}
	out := &fleetpb.GetBundleResponse{}
	err := p.s.store.View(ctx, func(r store.Reader) error {
		b, err := r.BundleLike(prefix)
		if err != nil {
			return err
		}
		out.Bundle = bundlePB(&b)
		out.Parcel, err = r.Parcel(b.Digest)
		if errors.Is(err, store.ErrNotFound) {
			return refusal(connect.CodeNotFound, codeNotKept, "ask for it at the machine: keepout crash show",
				"only the header of this bundle is kept")
		}
		return err
	})
	if err != nil {
		return nil, answer(err)
	}
	return connect.NewResponse(out), nil
}

// ListGroups implements the service.
func (p people) ListGroups(
	ctx context.Context, req *connect.Request[fleetpb.ListGroupsRequest],
) (*connect.Response[fleetpb.ListGroupsResponse], error) {
	limit := int(req.Msg.GetLimit())
	if limit == 0 {
		limit = maxGroups
	}
	if limit > maxGroups {
		return nil, invalid("limit is at most %d", maxGroups)
	}
	out := &fleetpb.ListGroupsResponse{}
	err := p.s.store.View(ctx, func(r store.Reader) error {
		all, err := r.Groups(limit)
		for i := range all {
			g := &all[i]
			pb := &fleetpb.Group{
				Signature: g.Signature, Bundles: g.Bundles, Machines: g.Machines, First: stamp(g.First), Last: stamp(g.Last),
				Versions: g.Versions,
			}
			pb.SuspectedChange, pb.Share = suspectedChange(g)
			out.Groups = append(out.Groups, pb)
		}
		return err
	})
	if err != nil {
		return nil, answer(err)
	}
	return connect.NewResponse(out), nil
}

// suspectedChange is the version that was active and not yet proven on most of the hosts, and on which share of them.
// Below one half there is no evidence. Machines that are not enrolled say nothing either way.
func suspectedChange(g *store.Group) (change string, share float64) {
	var most uint64
	for version, n := range g.Changed {
		if n > most || n == most && version < change {
			change, most = version, n
		}
	}
	if g.Known == 0 || 2*most < g.Known {
		return "", 0
	}
	return change, float64(most) / float64(g.Known)
}
