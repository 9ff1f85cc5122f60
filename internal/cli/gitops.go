package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/keepout-security/keepout/internal/config"
	"github.com/keepout-security/keepout/internal/fleet/fleetpb"
	"github.com/keepout-security/keepout/internal/fleet/fleetpb/fleetpbconnect"
	"github.com/keepout-security/keepout/internal/fleet/spec"
)

// desired is a file of rollouts and holds, kept under version control.
type desired struct {
	Rollouts []spec.Spec `yaml:"rollouts"`
	Holds    []spec.Hold `yaml:"holds"`
}

const fileAdvice = "docs/fleet.md shows a file with every key"

// step is what apply does about one entry of the file.
type step struct {
	Kind   string `json:"kind"` // rollout, hold
	Name   string `json:"name"`
	Act    string `json:"act"` // create, change, remove, unchanged; created, changed, removed once it was done
	ID     string `json:"id,omitempty"`
	Status string `json:"status,omitempty"`
	Detail string `json:"detail,omitempty"`
}

// apply makes plan and apply: the second does what the first only says.
func (f *fleetAPI) apply(really bool) *cobra.Command {
	file, prune := "", false
	cmd := &cobra.Command{
		Use: "plan -f FILE", Short: "Say what apply would do about a file of rollouts and holds",
		Args: exactArgs(0, "-f FILE"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if file == "" {
				return usageError{errors.New("name the file: -f FILE")}
			}
			steps, err := f.steps(cmd.Context(), file, prune, really)
			if err != nil {
				return err
			}
			if f.a.output == "json" {
				return printJSON(f.a.out, map[string]any{"steps": steps})
			}
			return f.a.table("KIND\tNAME\tACT\tID\tSTATUS\tDETAIL", func(line func(...any)) {
				for _, s := range steps {
					line(s.Kind, s.Name, s.Act, dashed(s.ID), dashed(s.Status), dashed(s.Detail))
				}
			})
		},
	}
	if really {
		cmd.Use, cmd.Short = "apply -f FILE", "Create the rollouts of a file that are not there yet, and set its holds"
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "YAML file with lists of rollouts and holds")
	cmd.Flags().BoolVar(&prune, "prune", false, "remove the holds that the file's list of holds does not name")
	return cmd
}

// steps compares a file with what there is. Nothing is done unless the whole file is fine. Holds are set before a
// rollout is created, so that they hold it from its first moment.
func (f *fleetAPI) steps(ctx context.Context, file string, prune, really bool) ([]step, error) {
	want := desired{}
	source, err := config.ReadStrict(file, codeFile, fileAdvice, &want)
	if err != nil {
		return nil, err
	}
	holds, wrongHolds := f.holdSteps(ctx, want.Holds, prune, source)
	rollouts, wrong := f.rolloutSteps(ctx, want.Rollouts, source)
	if err := errors.Join(wrong, wrongHolds); err != nil {
		return nil, err
	}
	if really {
		if err := f.holdAll(ctx, holds, want.Holds, file); err != nil {
			return nil, err
		}
		rollouts, err = f.perform(ctx, rollouts, want.Rollouts)
	} else {
		rollouts, err = f.planned(ctx, rollouts, want.Rollouts)
	}
	return append(holds, rollouts...), err
}

// rolloutSteps compares the rollouts of a file with what there is.
func (f *fleetAPI) rolloutSteps(ctx context.Context, want []spec.Spec, source *config.Source) ([]step, error) {
	have, err := ask(ctx, f, fleetpbconnect.FleetServiceClient.ListRollouts, &fleetpb.ListRolloutsRequest{})
	if err != nil {
		return nil, err
	}
	newest := map[string]*fleetpb.Rollout{}
	for _, r := range have.GetRollouts() {
		if newest[r.GetSpec().GetName()] == nil {
			newest[r.GetSpec().GetName()] = r
		}
	}
	var errs []error
	steps := make([]step, 0, len(want))
	seen := map[string]bool{}
	for i := range want {
		s, at := &want[i], fmt.Sprintf("$.rollouts[%d]", i)
		var wrong *spec.Problem
		if errors.As(s.Check(), &wrong) {
			errs = append(errs, source.At(at+"."+wrong.Path, wrong.Path+": "+wrong.What, fileAdvice))
			continue
		}
		if seen[s.Name] {
			errs = append(errs, source.At(at+".name", "two rollouts have this name", "rename one"))
		}
		seen[s.Name] = true
		there := newest[s.Name]
		if there == nil {
			steps = append(steps, step{Kind: kindRollout, Name: s.Name, Act: "create"})
			continue
		}
		if r := there.GetSpec().GetRelease(); r.GetDigest() != s.Digest || r.GetCounter() != s.Counter {
			errs = append(errs, source.At(at+".digest", "rollout "+there.GetId()+" has this name and another release",
				"a rollout does not change: choose another name"))
			continue
		}
		steps = append(steps, step{
			Kind: kindRollout, Name: s.Name, Act: "unchanged", ID: there.GetId(), Status: there.GetStatus(),
		})
	}
	return steps, errors.Join(errs...)
}

// planned asks the control plane what it would do about what is new.
func (f *fleetAPI) planned(ctx context.Context, steps []step, want []spec.Spec) ([]step, error) {
	for i := range steps {
		if steps[i].Act != "create" {
			continue
		}
		out, err := ask(ctx, f, fleetpbconnect.FleetServiceClient.PlanRollout,
			&fleetpb.PlanRolloutRequest{Spec: want[i].PB()})
		if err != nil {
			return nil, err
		}
		steps[i].Detail = strings.Join(out.GetNotes(), "; ")
	}
	return steps, nil
}

// perform creates what is new, in the order of the file, and stops at the first that is refused.
func (f *fleetAPI) perform(ctx context.Context, steps []step, want []spec.Spec) ([]step, error) {
	for i := range steps {
		if steps[i].Act != "create" {
			continue
		}
		out, err := ask(ctx, f, fleetpbconnect.FleetServiceClient.CreateRollout,
			&fleetpb.CreateRolloutRequest{Spec: want[i].PB()})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", want[i].Name, err)
		}
		steps[i].Act, steps[i].ID, steps[i].Status = "created", out.GetRollout().GetId(), out.GetRollout().GetStatus()
	}
	return steps, nil
}
