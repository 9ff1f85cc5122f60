package fleet

import (
	"context"
	"encoding/json"
	"fmt"

	"connectrpc.com/connect"

	"github.com/keepout-security/keepout/internal/fleet/conductor"
	"github.com/keepout-security/keepout/internal/fleet/fleetpb"
	"github.com/keepout-security/keepout/internal/fleet/spec"
	"github.com/keepout-security/keepout/internal/rollout"
)

func rolloutPB(r *conductor.Rollout) *fleetpb.Rollout {
	out := &fleetpb.Rollout{
		Id: r.Record.ID, Spec: r.Spec.PB(), Status: string(r.View.Status), Reason: r.View.Because,
		CreatedBy: r.Record.CreatedBy, Created: stamp(r.Record.Created), PeopleNeeded: uint32(r.View.Approvals),
		Schedule: r.View.Schedule, Epoch: r.Epoch,
	}
	out.Spec.Previous = string(r.View.Previous)
	for _, a := range r.Record.Approvals {
		out.Approvals = append(out.Approvals, &fleetpb.Approval{Person: a.Person, At: stamp(a.At), Reason: a.Reason})
	}
	for i := range r.View.Rings {
		out.Rings = append(out.Rings, ringPB(&r.View.Rings[i]))
	}
	for i := range r.View.Gates {
		g := &r.View.Gates[i]
		out.Gates = append(out.Gates, &fleetpb.Gate{
			Name: g.Gate.String(), TreatedHits: uint32(g.Hits[0]), ControlHits: uint32(g.Hits[1]),
			TreatedExposure: g.Exposure[0], ControlExposure: g.Exposure[1], Score: g.Score, Limit: g.Limit, Action: g.Action,
		})
	}
	if r.View.Evidence != nil {
		text, err := json.Marshal(r.View.Evidence)
		if err == nil {
			out.Evidence = string(text)
		}
	}
	return out
}

func ringPB(f *rollout.Funnel) *fleetpb.Ring {
	return &fleetpb.Ring{
		Ring: uint32(f.Ring), Role: f.Role, Members: uint32(f.Members), Window: uint32(f.W),
		Outstanding: uint32(max(f.Outstanding, 0)), Granted: uint32(f.Granted), Soaking: uint32(max(f.Soaking, 0)),
		Confirmed: uint32(f.Confirmed), Needed: uint32(f.Needed), Silent: uint32(max(f.Silent, 0)),
		WrittenOff: uint32(f.WrittenOff), Failed: uint32(f.Failed), RolledBack: uint32(f.RolledBack), Waits: f.Waits,
	}
}

// PlanRollout implements the service.
func (p people) PlanRollout(
	ctx context.Context, req *connect.Request[fleetpb.PlanRolloutRequest],
) (*connect.Response[fleetpb.PlanRolloutResponse], error) {
	want := spec.FromPB(req.Msg.GetSpec())
	if vendor := vendorOf(ctx); vendor != "" && want.Provider != vendor {
		return nil, refusal(connect.CodePermissionDenied, codeRole, "plan your own", "this is not your provider")
	}
	plan, err := p.s.conductor.Plan(ctx, want)
	if err != nil {
		return nil, answer(err)
	}
	out := &fleetpb.PlanRolloutResponse{PeopleNeeded: uint32(plan.People), Existing: plan.Existing}
	for i, r := range plan.Rings {
		role := "ring"
		if i == len(plan.Rings)-1 {
			role = "control"
		}
		out.Rings = append(out.Rings, &fleetpb.Ring{
			Ring: uint32(i), Role: role, Members: uint32(r.Members), Window: uint32(r.W),
		})
	}
	out.Notes = append(out.Notes, fmt.Sprintf("for %d hosts, schedule %s", plan.Hosts, plan.Schedule),
		"hosts go back to "+plan.Previous)
	if plan.People > 1 {
		out.Notes = append(out.Notes, fmt.Sprintf("%d different people must want it", plan.People))
	}
	return connect.NewResponse(out), nil
}

// CreateRollout implements the service.
func (p people) CreateRollout(
	ctx context.Context, req *connect.Request[fleetpb.CreateRolloutRequest],
) (*connect.Response[fleetpb.CreateRolloutResponse], error) {
	r, err := p.s.conductor.Create(ctx, spec.FromPB(req.Msg.GetSpec()), callerOf(ctx).name())
	if err != nil {
		return nil, answer(err)
	}
	return connect.NewResponse(&fleetpb.CreateRolloutResponse{Rollout: rolloutPB(&r)}), nil
}

// ListRollouts implements the service. A vendor sees those of its own provider.
func (p people) ListRollouts(
	ctx context.Context, req *connect.Request[fleetpb.ListRolloutsRequest],
) (*connect.Response[fleetpb.ListRolloutsResponse], error) {
	all, err := p.s.conductor.List(ctx)
	if err != nil {
		return nil, answer(err)
	}
	out := &fleetpb.ListRolloutsResponse{}
	vendor := vendorOf(ctx)
	for i := range all {
		ended := all[i].View.Status == rollout.Stopped || all[i].View.Status == rollout.Complete
		if vendor != "" && all[i].Spec.Provider != vendor || req.Msg.GetOpen() && ended {
			continue
		}
		out.Rollouts = append(out.Rollouts, rolloutPB(&all[i]))
	}
	return connect.NewResponse(out), nil
}

// get finds a rollout that the caller may see.
func (p people) get(ctx context.Context, id string) (conductor.Rollout, error) {
	r, err := p.s.conductor.Get(ctx, id)
	if err != nil {
		return r, answer(err)
	}
	if vendor := vendorOf(ctx); vendor != "" && r.Spec.Provider != vendor {
		return r, refusal(connect.CodeNotFound, codeNotFound, "keepout rollout status lists them", "no rollout %q", id)
	}
	return r, nil
}

// GetRollout implements the service.
func (p people) GetRollout(
	ctx context.Context, req *connect.Request[fleetpb.GetRolloutRequest],
) (*connect.Response[fleetpb.GetRolloutResponse], error) {
	r, err := p.get(ctx, req.Msg.GetId())
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&fleetpb.GetRolloutResponse{Rollout: rolloutPB(&r)}), nil
}

// do applies a person's verb.
func (p people) do(ctx context.Context, verb conductor.Verb, id, reason string) (*fleetpb.Rollout, error) {
	if len(reason) > maxText {
		return nil, invalid("a reason has at most %d bytes", maxText)
	}
	if reason == "" && verb == conductor.Halt {
		return nil, invalid("say why it is halted: everybody will ask")
	}
	r, err := p.s.conductor.Do(ctx, verb, id, callerOf(ctx).name(), reason)
	if err != nil {
		return nil, answer(err)
	}
	return rolloutPB(&r), nil
}

// ApproveRollout implements the service.
func (p people) ApproveRollout(
	ctx context.Context, req *connect.Request[fleetpb.ApproveRolloutRequest],
) (*connect.Response[fleetpb.ApproveRolloutResponse], error) {
	r, err := p.do(ctx, conductor.Approve, req.Msg.GetId(), req.Msg.GetReason())
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&fleetpb.ApproveRolloutResponse{Rollout: r}), nil
}

// PauseRollout implements the service.
func (p people) PauseRollout(
	ctx context.Context, req *connect.Request[fleetpb.PauseRolloutRequest],
) (*connect.Response[fleetpb.PauseRolloutResponse], error) {
	r, err := p.do(ctx, conductor.Pause, req.Msg.GetId(), req.Msg.GetReason())
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&fleetpb.PauseRolloutResponse{Rollout: r}), nil
}

// ResumeRollout implements the service.
func (p people) ResumeRollout(
	ctx context.Context, req *connect.Request[fleetpb.ResumeRolloutRequest],
) (*connect.Response[fleetpb.ResumeRolloutResponse], error) {
	r, err := p.do(ctx, conductor.Resume, req.Msg.GetId(), req.Msg.GetReason())
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&fleetpb.ResumeRolloutResponse{Rollout: r}), nil
}

// HaltRollout implements the service.
func (p people) HaltRollout(
	ctx context.Context, req *connect.Request[fleetpb.HaltRolloutRequest],
) (*connect.Response[fleetpb.HaltRolloutResponse], error) {
	r, err := p.do(ctx, conductor.Halt, req.Msg.GetId(), req.Msg.GetReason())
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&fleetpb.HaltRolloutResponse{Rollout: r}), nil
}

// ExplainRollout implements the service.
func (p people) ExplainRollout(
	ctx context.Context, req *connect.Request[fleetpb.ExplainRolloutRequest],
) (*connect.Response[fleetpb.ExplainRolloutResponse], error) {
	r, err := p.get(ctx, req.Msg.GetId())
	if err != nil {
		return nil, err
	}
	lines := explain(&r)
	if host := req.Msg.GetHost(); host != "" {
		if vendorOf(ctx) != "" {
			return nil, refusal(connect.CodePermissionDenied, codeRole, "ask the fleet's operator", "hosts are not for vendors")
		}
		about, err := p.s.conductor.Where(ctx, r.Record.ID, host)
		if err != nil {
			return nil, answer(err)
		}
		lines = append(lines, about...)
	}
	return connect.NewResponse(&fleetpb.ExplainRolloutResponse{Lines: lines}), nil
}

// explain tells a rollout in sentences.
func explain(r *conductor.Rollout) []string {
	v := &r.View
	lines := []string{fmt.Sprintf("%s (%s): %s %s %s is %s", r.Record.Name, r.Record.ID, v.Provider, v.Channel,
		v.Digest, v.Status)}
	if v.Because != "" {
		lines = append(lines, "because of "+v.Because)
	}
	if v.Status == rollout.Draft {
		lines = append(lines, fmt.Sprintf("%d of %d people want it", len(v.Approved), v.Approvals))
	}
	for i := range v.Rings {
		f := &v.Rings[i]
		if f.W == 0 {
			continue
		}
		lines = append(lines, fmt.Sprintf("ring %d: %d of %d hosts granted, %d confirmed (%d needed), %d silent, "+
			"%d of at most %d outstanding", f.Ring, f.Granted, f.Members, f.Confirmed, f.Needed, f.Silent, f.Outstanding, f.W))
		if f.Waits != "" {
			lines = append(lines, "it waits for "+f.Waits)
		}
	}
	for i := range v.Gates {
		g := &v.Gates[i]
		if g.Score > 0 {
			lines = append(lines, fmt.Sprintf("gate %s: score %.1f of %.1f, then it would %s",
				g.Gate, g.Score, g.Limit, g.Action))
		}
	}
	if e := v.Evidence; e != nil {
		lines = append(lines, fmt.Sprintf("evidence: %s; hosts %v", e.Test, e.Hosts))
	}
	return lines
}
