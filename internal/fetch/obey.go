package fetch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"time"

	"github.com/keepout-security/keepout/internal/fleet/fleetpb"
	"github.com/keepout-security/keepout/internal/update"
)

// obey writes down for the core what was ordered, each order as soon as the core can carry it out: first to go back to
// what it has, then to go back to what is fetched for that, then what is staged. However slowly packages come, it
// returns after two turns, one for what to go back to and one for the rest: a host that fetches is still heard, and
// hears of a halt. What is unfinished goes on in the next one, and what is whole stays in the list whatever becomes of
// the others.
func (f *fetcher) obey(
	ctx context.Context, list []*fleetpb.Order, grants []*fleetpb.Grant,
) (unfinished bool, err error) {
	list = list[:min(len(list), update.MaxOrders)]
	if len(list) == 0 {
		f.catalog.troubles = nil // nobody looks at metadata any more
	}
	f.retain(list, grants)
	var backs []update.Order
	var far, stages []*fleetpb.Order
	has := f.slots()
	for _, o := range list {
		order := back(o)
		switch {
		case o.GetAct() == fleetpb.Order_ACT_STAGE:
			stages = append(stages, o)
		case has(order):
			backs = append(backs, order)
		default:
			far = append(far, o)
		}
	}
	tell := func() { err = update.WriteOrders(f.o.Staging, f.orders(backs, stages)) }
	tell()
	f.bring(ctx, far, func(o update.Order) {
		backs = append(backs, o)
		tell()
	})
	unfinished, errs := f.stageAll(ctx, stages, tell)
	if err == nil { // an earlier list may name what this one does not
		f.tidy(list)
	}
	return unfinished, errors.Join(append(errs, err)...)
}

// stageAll fetches what these orders name, each in a fair part of the turn, and tells of each.
func (f *fetcher) stageAll(
	ctx context.Context, list []*fleetpb.Order, tell func(),
) (unfinished bool, errs []error) {
	turn, cancel := context.WithTimeout(ctx, f.turn)
	defer cancel()
	stale := f.refresh(turn, list)
	for i, o := range list {
		digest := o.GetRelease().GetDigest()
		order, err := f.stage(turn, len(list)-i, o, stale)
		switch {
		case err == nil:
			f.staged[digest] = order
		case errors.Is(err, errTurn):
			f.o.Log.Info("not all was fetched in this turn", slog.Any("error", err))
			unfinished = true
		default:
			errs = append(errs, err)
		}
		if err != nil {
			delete(f.staged, digest)
		}
		tell()
	}
	return unfinished, errs
}

// stage fetches what one of n orders names that are left. What is there already takes no time of anybody.
func (f *fetcher) stage(turn context.Context, n int, o *fleetpb.Order, stale error) (update.Order, error) {
	call, cancel := share(turn, n)
	defer cancel()
	digest := o.GetRelease().GetDigest()
	order, err := f.lookUp(digest, stale)
	if err != nil {
		return update.Order{}, err
	}
	if err := f.mirror.blobs(call, digest); err != nil {
		return update.Order{}, inTime(call, err)
	}
	order.Rollout = o.GetRollout()
	return order, nil
}

// share is one of n equal parts of what is left of a turn. What it leaves over is for those that follow. Of a folder,
// which takes no time of anybody, there are no turns.
func share(turn context.Context, n int) (context.Context, context.CancelFunc) {
	end, limited := turn.Deadline()
	if !limited {
		return context.WithCancel(turn)
	}
	return context.WithTimeout(turn, time.Until(end)/time.Duration(n))
}

// errTurn is part of the error for what was not whole when its time was over. The next turn goes on with it.
var errTurn = errors.New("its time was over")

// inTime is an error that says whether time was what was missing.
func inTime(call context.Context, err error) error {
	if err != nil && errors.Is(call.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("%w: %w", errTurn, err)
	}
	return err
}

// refresh brings the metadata up to date, unless it is and names all these packages. It takes half of a turn at most:
// by what was known before, packages can be fetched as well.
func (f *fetcher) refresh(turn context.Context, list []*fleetpb.Order) error {
	unnamed := func(o *fleetpb.Order) bool {
		_, ok := f.catalog.find(o.GetRelease().GetDigest())
		return !ok
	}
	if len(list) == 0 || time.Since(f.fetched) <= refreshMeta && !slices.ContainsFunc(list, unnamed) {
		return nil
	}
	call, cancel := share(turn, 2)
	defer cancel()
	f.looks++
	c, err := f.mirror.catalog(call)
	if err != nil {
		f.o.Log.Warn("the metadata is that of an earlier turn", slog.Any("error", err))
		return inTime(call, err)
	}
	c.log(f.o.Log)
	f.catalog, f.fetched = c, time.Now()
	if errors.Is(c.err(), errTurn) {
		f.fetched = time.Time{} // what came of it is there, and the next turn brings more
	}
	return nil
}

// lookUp finds a package in the metadata. Where that is stale, it counts what it said before.
func (f *fetcher) lookUp(digest string, stale error) (update.Order, error) {
	if found, ok := f.catalog.find(digest); ok {
		return found.order(""), nil
	}
	if stale == nil {
		return update.Order{}, fmt.Errorf("the operator's metadata does not name the package %.19s", digest)
	}
	if had, ok := f.staged[digest]; ok {
		return had, nil
	}
	return update.Order{}, stale
}

// stagedBefore is what an earlier process has staged; whether it is whole is looked at before it is used.
func stagedBefore(staging string) map[string]update.Order {
	staged := map[string]update.Order{}
	had, _ := update.ReadOrders(os.DirFS(staging)) // what cannot be read is staged anew
	for _, o := range had.Orders {
		if o.Act == update.Stage {
			staged[o.Digest] = o
		}
	}
	return staged
}

// held is a grant that the core may not have seen yet.
type held struct {
	digest string
	sealed []byte
	got    time.Time
}

// grantKept is how long a grant is left for the core to see: the longest life of one.
const grantKept = 5 * time.Minute

// retain notes the grants and forgets what nobody wants any more: grants that ended, or are for what is gone back from,
// and packages that are neither ordered nor granted.
func (f *fetcher) retain(list []*fleetpb.Order, grants []*fleetpb.Grant) {
	if f.staged == nil {
		f.staged = map[string]update.Order{}
	}
	wanted, leave := map[string]bool{}, map[string]bool{}
	for _, o := range list {
		if o.GetAct() == fleetpb.Order_ACT_STAGE {
			wanted[o.GetRelease().GetDigest()] = true
			continue
		}
		leave[o.GetRelease().GetProvider()+"/"+string(part(o.GetRelease().GetChannel()))] = true
	}
	for _, g := range grants {
		f.grants = append(f.grants, held{digest: g.GetDigest(), sealed: g.GetSealed(), got: time.Now()})
	}
	f.grants = slices.DeleteFunc(f.grants, func(h held) bool {
		o := f.staged[h.digest]
		return time.Since(h.got) > grantKept || leave[o.Provider+"/"+string(o.Part)]
	})
	f.grants = f.grants[max(0, len(f.grants)-update.MaxOrders):]
	for _, h := range f.grants {
		wanted[h.digest] = true
	}
	for d := range f.staged {
		if !wanted[d] {
			delete(f.staged, d)
		}
	}
}

// orders is what the core is told: to go back, what is staged of what was ordered, the grants that are still good, and
// the packages that they are for: the answer with a grant orders nothing any more, and the core looks when it likes.
func (f *fetcher) orders(backs []update.Order, stages []*fleetpb.Order) *update.Orders {
	out := &update.Orders{Orders: slices.Clone(backs), Troubles: f.catalog.toldTroubles()}
	named := map[string]bool{}
	for _, o := range backs {
		named[o.Digest] = true
	}
	for _, o := range stages {
		if had, ok := f.staged[o.GetRelease().GetDigest()]; ok {
			had.Rollout = o.GetRollout()
			out.Orders = append(out.Orders, had)
			named[had.Digest] = true
		}
	}
	for _, h := range f.grants {
		out.Grants = append(out.Grants, h.sealed)
		if o, ok := f.staged[h.digest]; ok && !named[h.digest] && len(out.Orders) < update.MaxOrders {
			out.Orders = append(out.Orders, o)
			named[h.digest] = true
		}
	}
	return out
}

// back is an order to go back.
func back(o *fleetpb.Order) update.Order {
	return update.Order{
		Act: update.RollBack, Rollout: o.GetRollout(), Provider: o.GetRelease().GetProvider(),
		Part: part(o.GetRelease().GetChannel()), Digest: o.GetRelease().GetDigest(), Reason: o.GetReason(),
	}
}

// slots tells whether the core has in a slot what an order goes back to. An order that names nothing is to go back to
// the version before, which it knows.
func (f *fetcher) slots() func(update.Order) bool {
	r, _ := update.ReadReport(f.o.report()) // of a core that says nothing, nothing is known
	return func(o update.Order) bool { return o.Digest == "" || r.Has(o.Provider, o.Part, o.Digest) }
}

// bring fetches what to go back to, all of it in one turn: all that time the host runs what was halted. What takes
// longer is lacking, and the core goes back to the version before.
func (f *fetcher) bring(ctx context.Context, list []*fleetpb.Order, done func(update.Order)) {
	turn, cancel := context.WithTimeout(ctx, f.turn)
	defer cancel()
	stale := f.refresh(turn, list)
	for i, o := range list {
		order := back(o)
		found, unnamed := f.lookUp(order.Digest, stale)
		if unnamed == nil {
			order.Vendor, order.Path = found.Vendor, found.Path
		}
		call, cancel := share(turn, len(list)-i)
		if err := f.mirror.blobs(call, order.Digest); err != nil {
			err = errors.Join(unnamed, err)
			f.o.Log.Warn("what to go back to was not fetched", slog.Any("error", err))
			order.Lacking = inShort(err)
		}
		cancel()
		done(order)
	}
}
