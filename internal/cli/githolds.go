package cli

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"time"

	"github.com/keepout-security/keepout/internal/config"
	"github.com/keepout-security/keepout/internal/fleet/fleetpb"
	"github.com/keepout-security/keepout/internal/fleet/fleetpb/fleetpbconnect"
	"github.com/keepout-security/keepout/internal/fleet/spec"
)

// What a file's steps are about.
const (
	kindRollout = "rollout"
	kindHold    = "hold"
)

// holdSteps compares the holds of a file with what there is. Those that are not in the file are left alone, unless they
// are to be pruned and the file says anything about holds.
func (f *fleetAPI) holdSteps(
	ctx context.Context, want []spec.Hold, prune bool, source *config.Source,
) (steps []step, err error) {
	if want == nil {
		return nil, nil // a file of rollouts alone asks for no right to see holds
	}
	have, err := ask(ctx, f, fleetpbconnect.FleetServiceClient.ListHolds, &fleetpb.ListHoldsRequest{})
	if err != nil {
		return nil, err
	}
	there := map[string]spec.Hold{}
	for _, h := range have.GetHolds() {
		there[h.GetName()] = spec.HoldFromPB(h)
	}
	var errs []error
	seen := map[string]bool{}
	for i := range want {
		h, at := &want[i], fmt.Sprintf("$.holds[%d]", i)
		var wrong *spec.Problem
		if errors.As(h.Check(), &wrong) {
			errs = append(errs, source.At(at+"."+wrong.Path, wrong.Path+": "+wrong.What, fileAdvice))
			continue
		}
		if seen[h.Name] {
			errs = append(errs, source.At(at+".name", "two holds have this name", "rename one"))
		}
		seen[h.Name] = true
		s := step{Kind: kindHold, Name: h.Name, Act: "unchanged", Detail: heldHow(h.PB())}
		if had, ok := there[h.Name]; !ok {
			s.Act = "create"
		} else if !sameHold(had, *h) {
			s.Act, s.Detail = "change", heldHow(had.PB())+" → "+s.Detail
		}
		steps = append(steps, s)
	}
	for _, h := range have.GetHolds() { // by name
		switch {
		case seen[h.GetName()]:
		case prune:
			steps = append(steps, step{Kind: kindHold, Name: h.GetName(), Act: "remove", Detail: heldHow(h)})
		default:
			steps = append(steps, step{
				Kind: kindHold, Name: h.GetName(), Act: "unchanged", Detail: "not in the file; --prune removes it",
			})
		}
	}
	return steps, errors.Join(errs...)
}

// sameHold compares what two holds do: the order of hosts, and how a time is written, are no difference.
func sameHold(a, b spec.Hold) bool {
	for _, h := range []*spec.Hold{&a, &b} {
		h.Hosts = slices.Sorted(slices.Values(h.Hosts))
		if len(h.Labels) == 0 {
			h.Labels = nil
		}
		h.Freezes = append([]spec.Freeze(nil), h.Freezes...)
		for i := range h.Freezes {
			for _, text := range []*string{&h.Freezes[i].From, &h.Freezes[i].To} {
				if at, err := time.Parse(time.RFC3339, *text); err == nil {
					*text = at.UTC().Format(time.RFC3339)
				}
			}
		}
	}
	return reflect.DeepEqual(a, b)
}

// holdAll does the steps about holds and stops at the first that is refused.
func (f *fleetAPI) holdAll(ctx context.Context, steps []step, want []spec.Hold, file string) error {
	for i := range steps {
		s := &steps[i]
		var err error
		switch s.Act {
		case "create", "change": // those of the file come first, in its order
			var out *fleetpb.SetHoldResponse
			out, err = ask(ctx, f, fleetpbconnect.FleetServiceClient.SetHold, &fleetpb.SetHoldRequest{Hold: want[i].PB()})
			s.Act += "d"
			s.Detail += fmt.Sprintf("; in force for %d hosts", out.GetHosts())
		case "remove":
			_, err = ask(ctx, f, fleetpbconnect.FleetServiceClient.RemoveHold, &fleetpb.RemoveHoldRequest{
				Name: s.Name, Reason: "no longer in " + filepath.Base(file),
			})
			s.Act += "d"
		}
		if err != nil {
			return fmt.Errorf("hold %s: %w", s.Name, err)
		}
	}
	return nil
}
