package cli

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/keepout-security/keepout/internal/fleet/fleetpb"
	"github.com/keepout-security/keepout/internal/fleet/fleetpb/fleetpbconnect"
	"github.com/keepout-security/keepout/internal/fleet/spec"
)

// hold are the commands for what the operator of some hosts wants for them.
func (f *fleetAPI) hold() *cobra.Command {
	return group("hold", "Keep hosts from anything new: pauses, freezes, one release behind", f.holdSet(), f.holdList(),
		f.holdRemove())
}

func (f *fleetAPI) holdSet() *cobra.Command {
	h := &fleetpb.Hold{}
	var freezes []string
	cmd := &cobra.Command{
		Use: "set NAME --label KEY=VALUE --pause --reason TEXT", Short: "Make a hold, or replace the one of that name",
		Long: "Make a hold, or replace the one of that name. It is for every rollout, now and later, and always wins: " +
			"what the hosts run goes on, and still goes back when it is halted. Of several that fit a host, all hold.",
		Args: exactArgs(1, "a name for the hold"),
		RunE: func(cmd *cobra.Command, args []string) error {
			h.Name = args[0]
			for _, text := range freezes {
				from, to, ok := strings.Cut(text, "/")
				if !ok {
					return usageError{fmt.Errorf("--freeze %q: write FROM/TO, both like 2026-12-24T00:00:00Z", text)}
				}
				h.Freezes = append(h.Freezes, &fleetpb.Freeze{From: from, To: to})
			}
			want := spec.HoldFromPB(h)
			if err := want.Check(); err != nil {
				return usageError{err}
			}
			out, err := ask(cmd.Context(), f, fleetpbconnect.FleetServiceClient.SetHold, &fleetpb.SetHoldRequest{Hold: h})
			if err != nil {
				return err
			}
			return f.a.printPB(out, func() error {
				return f.a.done(fmt.Sprintf("%s is in force for %d hosts", out.GetHold().GetName(), out.GetHosts()))
			})
		},
	}
	flags := cmd.Flags()
	flags.StringToStringVar(&h.Labels, "label", nil, "the hosts with all of these labels: KEY=VALUE")
	flags.StringSliceVar(&h.Hosts, "host", nil, "and this host, by its id; may be repeated")
	flags.BoolVar(&h.Paused, "pause", false, "let them activate nothing until the hold is removed")
	flags.StringSliceVar(&freezes, "freeze", nil, "let them activate nothing between two times: FROM/TO, RFC 3339")
	flags.BoolVar(&h.Previous, "previous", false, "stay one release behind (N-1)")
	flags.Uint32Var(&h.AlertHours, "alert-after", 0, "tell somebody when they have waited for so many hours")
	flags.StringVar(&h.Reason, "reason", "", "why; it is kept in the audit trail")
	return cmd
}

func (f *fleetAPI) holdList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the holds", Args: exactArgs(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			out, err := ask(cmd.Context(), f, fleetpbconnect.FleetServiceClient.ListHolds, &fleetpb.ListHoldsRequest{})
			if err != nil {
				return err
			}
			return f.a.printPB(out, func() error {
				return f.a.table("NAME\tHOSTS\tHOLDS\tBY\tAT\tREASON", func(line func(...any)) {
					for _, h := range out.GetHolds() {
						line(h.GetName(), heldHosts(h), heldHow(h), h.GetSetBy(), h.GetSetAt(), harmless(h.GetReason()))
					}
				})
			})
		},
	}
}

func heldHosts(h *fleetpb.Hold) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(h.GetLabels())) {
		parts = append(parts, harmless(k+"="+h.GetLabels()[k]))
	}
	return strings.Join(append(parts, h.GetHosts()...), ",")
}

func heldHow(h *fleetpb.Hold) string {
	var parts []string
	if h.GetPaused() {
		parts = append(parts, "paused")
	}
	for _, w := range h.GetFreezes() {
		parts = append(parts, w.GetFrom()+"/"+w.GetTo())
	}
	if h.GetPrevious() {
		parts = append(parts, "one behind")
	}
	return strings.Join(parts, ",")
}

func (f *fleetAPI) holdRemove() *cobra.Command {
	req := &fleetpb.RemoveHoldRequest{}
	cmd := &cobra.Command{
		Use: "remove NAME --reason TEXT", Short: "End a hold", Args: exactArgs(1, "a hold's name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if strings.TrimSpace(req.GetReason()) == "" {
				return usageError{errors.New("say why: --reason TEXT")}
			}
			req.Name = args[0]
			_, err := ask(cmd.Context(), f, fleetpbconnect.FleetServiceClient.RemoveHold, req)
			if err != nil {
				return err
			}
			return f.a.done(args[0] + " is removed")
		},
	}
	cmd.Flags().StringVar(&req.Reason, "reason", "", "why; it is kept in the audit trail")
	return cmd
}
