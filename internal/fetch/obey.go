package fetch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/keepout-security/keepout/internal/fleet/fleetpb"
	"github.com/keepout-security/keepout/internal/update"
)

// obey stages what was ordered, and writes it down for the core. However slowly packages come, it returns after a turn:
// a host that fetches is still heard, and hears of a halt. What is unfinished goes on in the next one.
func (f *fetcher) obey(
	ctx context.Context, list []*fleetpb.Order, grants []*fleetpb.Grant,
) (unfinished bool, err error) {
	orders := &update.Orders{}
	var errs []error
	call, cancel := context.WithTimeout(ctx, f.turn)
	defer cancel()
	for _, o := range list[:min(len(list), update.MaxOrders)] {
		if o.GetAct() != fleetpb.Order_ACT_STAGE {
			orders.Orders = append(orders.Orders, f.back(ctx, o))
			continue
		}
		order, err := f.stage(call, o)
		switch {
		case errors.Is(call.Err(), context.DeadlineExceeded):
			f.o.Log.Info("not all was fetched in this turn", slog.Any("error", err))
			unfinished = true
			continue
		case err != nil:
			errs = append(errs, err)
			continue
		}
		orders.Orders = append(orders.Orders, order)
	}
	f.retain(orders, grants)
	errs = append(errs, update.WriteOrders(f.o.Staging, orders))
	if !unfinished && len(errs) == 1 {
		errs = append(errs, sweep(f.o.Staging, orders.Orders))
	}
	return unfinished, errors.Join(errs...)
}

// stage fetches what one order names.
func (f *fetcher) stage(ctx context.Context, o *fleetpb.Order) (update.Order, error) {
	digest := o.GetRelease().GetDigest()
	found, err := f.lookUp(ctx, digest)
	if err != nil {
		return update.Order{}, err
	}
	if err := f.mirror.blobs(ctx, digest); err != nil {
		return update.Order{}, err
	}
	return found.order(o.GetRollout()), nil
}

// lookUp finds a package in metadata that is not old.
func (f *fetcher) lookUp(ctx context.Context, digest string) (offer, error) {
	found, ok := f.catalog.find(digest)
	if ok && time.Since(f.fetched) <= refreshMeta {
		return found, nil
	}
	c, err := f.mirror.catalog(ctx)
	if err != nil {
		return offer{}, err
	}
	f.catalog, f.fetched = c, time.Now()
	if found, ok = c.find(digest); !ok {
		return offer{}, fmt.Errorf("the operator's metadata does not name the package %.19s", digest)
	}
	return found, nil
}

// backLimit is how long the fetch of what to go back to may take: all that time the host runs what was halted. What
// takes longer is lacking, and the core goes back to the version before.
const backLimit = time.Minute

// back is an order to go back. What the core has in no slot is fetched first.
func (f *fetcher) back(ctx context.Context, o *fleetpb.Order) update.Order {
	order := update.Order{
		Act: update.RollBack, Rollout: o.GetRollout(), Provider: o.GetRelease().GetProvider(),
		Part: part(o.GetRelease().GetChannel()), Digest: o.GetRelease().GetDigest(), Reason: o.GetReason(),
	}
	if r, err := update.ReadReport(f.o.report()); err == nil && r.Has(order.Provider, order.Part, order.Digest) {
		return order
	}
	call, cancel := context.WithTimeout(ctx, backLimit)
	defer cancel()
	found, unnamed := f.lookUp(call, order.Digest)
	if unnamed == nil {
		order.Vendor, order.Path = found.vendor, found.path
	}
	if err := f.mirror.blobs(call, order.Digest); err != nil {
		err = errors.Join(unnamed, err)
		f.o.Log.Warn("what to go back to was not fetched", slog.Any("error", err))
		order.Lacking = err.Error()[:min(len(err.Error()), maxLacking)]
	}
	return order
}

// maxLacking bounds what is said about it, in bytes.
const maxLacking = 256
