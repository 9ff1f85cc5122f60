package fleet

import (
	"context"

	"connectrpc.com/connect"

	"github.com/keepout-security/keepout/internal/fleet/conductor"
	"github.com/keepout-security/keepout/internal/fleet/fleetpb"
	"github.com/keepout-security/keepout/internal/fleet/spec"
)

func holdPB(h *conductor.Hold) *fleetpb.Hold {
	out := h.Spec.PB()
	out.SetBy, out.SetAt = h.Record.SetBy, stamp(h.Record.SetAt)
	return out
}

// SetHold implements the service.
func (p people) SetHold(
	ctx context.Context, req *connect.Request[fleetpb.SetHoldRequest],
) (*connect.Response[fleetpb.SetHoldResponse], error) {
	want := spec.HoldFromPB(req.Msg.GetHold())
	if err := checkLabels(want.Labels); err != nil {
		return nil, err
	}
	h, hosts, err := p.s.conductor.SetHold(ctx, want, callerOf(ctx).name())
	if err != nil {
		return nil, answer(err)
	}
	return connect.NewResponse(&fleetpb.SetHoldResponse{Hold: holdPB(&h), Hosts: uint32(hosts)}), nil
}

// RemoveHold implements the service.
func (p people) RemoveHold(
	ctx context.Context, req *connect.Request[fleetpb.RemoveHoldRequest],
) (*connect.Response[fleetpb.RemoveHoldResponse], error) {
	if len(req.Msg.GetReason()) > maxText {
		return nil, invalid("a reason has at most %d bytes", maxText)
	}
	err := p.s.conductor.RemoveHold(ctx, req.Msg.GetName(), callerOf(ctx).name(), req.Msg.GetReason())
	if err != nil {
		return nil, answer(err)
	}
	return connect.NewResponse(&fleetpb.RemoveHoldResponse{}), nil
}

// ListHolds implements the service.
func (p people) ListHolds(
	ctx context.Context, _ *connect.Request[fleetpb.ListHoldsRequest],
) (*connect.Response[fleetpb.ListHoldsResponse], error) {
	all, err := p.s.conductor.Holds(ctx)
	if err != nil {
		return nil, answer(err)
	}
	out := &fleetpb.ListHoldsResponse{}
	for i := range all {
		out.Holds = append(out.Holds, holdPB(&all[i]))
	}
	return connect.NewResponse(out), nil
}
