package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/keepout-security/keepout/internal/fleet/fleetpb"
	"github.com/keepout-security/keepout/internal/fleet/fleetpb/fleetpbconnect"
	"github.com/keepout-security/keepout/internal/fleet/spec"
)

// rolloutAdminCommands are those that talk to a control plane.
func (a *app) rolloutAdminCommands() []*cobra.Command {
	f := &fleetAPI{a: a}
	commands := []*cobra.Command{
		f.create(), f.plan(), f.rolloutStatus(), f.explain(),
		f.verb("pause", "Let no host activate it until it is resumed", func(
			ctx context.Context, id, reason string,
		) (*fleetpb.Rollout, error) {
			out, err := ask(ctx, f, fleetpbconnect.FleetServiceClient.PauseRollout,
				&fleetpb.PauseRolloutRequest{Id: id, Reason: reason})
			return out.GetRollout(), err
		}),
		f.verb("resume", "Let a paused rollout go on", func(
			ctx context.Context, id, reason string,
		) (*fleetpb.Rollout, error) {
			out, err := ask(ctx, f, fleetpbconnect.FleetServiceClient.ResumeRollout,
				&fleetpb.ResumeRolloutRequest{Id: id, Reason: reason})
			return out.GetRollout(), err
		}),
		f.verb("halt", "End it for good; hosts that run it go back", func(
			ctx context.Context, id, reason string,
		) (*fleetpb.Rollout, error) {
			out, err := ask(ctx, f, fleetpbconnect.FleetServiceClient.HaltRollout,
				&fleetpb.HaltRolloutRequest{Id: id, Reason: reason})
			return out.GetRollout(), err
		}),
		f.verb("approve", "Say yes as the second person", func(
			ctx context.Context, id, reason string,
		) (*fleetpb.Rollout, error) {
			out, err := ask(ctx, f, fleetpbconnect.FleetServiceClient.ApproveRollout,
				&fleetpb.ApproveRolloutRequest{Id: id, Reason: reason})
			return out.GetRollout(), err
		}),
	}
	for _, c := range commands {
		f.flag(c)
	}
	return commands
}

// verb makes a command that does one thing to one rollout.
func (f *fleetAPI) verb(
	name, short string, do func(ctx context.Context, id, reason string) (*fleetpb.Rollout, error),
) *cobra.Command {
	reason := ""
	cmd := &cobra.Command{
		Use: name + " ROLLOUT --reason TEXT", Short: short, Args: exactArgs(1, "a rollout's id or name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if strings.TrimSpace(reason) == "" {
				return usageError{errors.New("say why: --reason TEXT")}
			}
			r, err := do(cmd.Context(), args[0], reason)
			if err != nil {
				return err
			}
			return f.a.printPB(r, func() error { return f.a.printRollout(r) })
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why; it is kept in the audit trail")
	return cmd
}

// specFlags fills in a spec from the command line.
func specFlags(cmd *cobra.Command, s *spec.Spec) {
	flags := cmd.Flags()
	flags.StringVar(&s.Name, "name", "", "a name for people")
	flags.StringVar(&s.Provider, "provider", "", "whose release it is")
	flags.StringVar(&s.Channel, "channel", "content", "content or engine")
	flags.StringVar(&s.Digest, "digest", "", "sha256: and 64 hexadecimal digits")
	flags.Uint64Var(&s.Counter, "counter", 0, "the signed release counter")
	flags.StringVar(&s.Version, "release", "", "the version, for people")
	flags.StringVar(&s.Previous, "previous", "", "the digest to go back to (default what most hosts run)")
	flags.StringToStringVar(&s.Target, "target", nil, "only hosts with these labels: KEY=VALUE")
	flags.BoolVar(&s.NewPath, "new-path", false,
		"this content first exercises a field or template path: treat it as an engine")
	flags.BoolVar(&s.Emergency, "emergency", false, "shorter soaks; needs a second person and a reason")
	flags.StringVar(&s.Reason, "reason", "", "why")
}

func (f *fleetAPI) create() *cobra.Command {
	s := &spec.Spec{}
	cmd := &cobra.Command{
		Use: "create", Short: "Begin a rollout", Args: exactArgs(0, "flags only"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := s.Check(); err != nil {
				return usageError{err}
			}
			out, err := ask(cmd.Context(), f, fleetpbconnect.FleetServiceClient.CreateRollout,
				&fleetpb.CreateRolloutRequest{Spec: s.PB()})
			if err != nil {
				return err
			}
			return f.a.printPB(out.GetRollout(), func() error { return f.a.printRollout(out.GetRollout()) })
		},
	}
	specFlags(cmd, s)
	return cmd
}

func (f *fleetAPI) plan() *cobra.Command {
	s := &spec.Spec{}
	cmd := &cobra.Command{
		Use: "plan", Short: "Say what create would do, and do nothing", Args: exactArgs(0, "flags only"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := s.Check(); err != nil {
				return usageError{err}
			}
			out, err := ask(cmd.Context(), f, fleetpbconnect.FleetServiceClient.PlanRollout,
				&fleetpb.PlanRolloutRequest{Spec: s.PB()})
			if err != nil {
				return err
			}
			return f.a.printPB(out, func() error {
				for _, n := range out.GetNotes() {
					fmt.Fprintln(f.a.out, harmless(n))
				}
				return f.a.printRings(out.GetRings())
			})
		},
	}
	specFlags(cmd, s)
	return cmd
}

func (f *fleetAPI) rolloutStatus() *cobra.Command {
	return &cobra.Command{
		Use: "status [ROLLOUT]", Short: "List rollouts, or show one with its rings",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				out, err := ask(cmd.Context(), f, fleetpbconnect.FleetServiceClient.GetRollout,
					&fleetpb.GetRolloutRequest{Id: args[0]})
				if err != nil {
					return err
				}
				return f.a.printPB(out.GetRollout(), func() error { return f.a.printRollout(out.GetRollout()) })
			}
			out, err := ask(cmd.Context(), f, fleetpbconnect.FleetServiceClient.ListRollouts,
				&fleetpb.ListRolloutsRequest{})
			if err != nil {
				return err
			}
			return f.a.printPB(out, func() error {
				return f.a.table("ID\tNAME\tPROVIDER\tCHANNEL\tVERSION\tSTATUS\tREASON", func(line func(...any)) {
					for _, r := range out.GetRollouts() {
						release := r.GetSpec().GetRelease()
						line(r.GetId(), r.GetSpec().GetName(), release.GetProvider(), channelName(release.GetChannel()),
							dashed(release.GetVersion()), r.GetStatus(), dashed(r.GetReason()))
					}
				})
			})
		},
	}
}

func (f *fleetAPI) explain() *cobra.Command {
	req := &fleetpb.ExplainRolloutRequest{}
	cmd := &cobra.Command{
		Use: "explain ROLLOUT [--host ID]", Short: "Say why a rollout, or a host in it, is where it is",
		Args: exactArgs(1, "a rollout's id or name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			req.Id = args[0]
			out, err := ask(cmd.Context(), f, fleetpbconnect.FleetServiceClient.ExplainRollout, req)
			if err != nil {
				return err
			}
			return f.a.printPB(out, func() error {
				for _, line := range out.GetLines() {
					fmt.Fprintln(f.a.out, harmless(line))
				}
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&req.Host, "host", "", "why is this host not updated?")
	return cmd
}

func (a *app) printRollout(r *fleetpb.Rollout) error {
	release := r.GetSpec().GetRelease()
	fmt.Fprintf(a.out, "%s  %s  %s %s %s  %s\n", r.GetId(), harmless(r.GetSpec().GetName()),
		harmless(release.GetProvider()), channelName(release.GetChannel()), short(release.GetDigest()), r.GetStatus())
	if r.GetReason() != "" {
		fmt.Fprintln(a.out, "because of", harmless(r.GetReason()))
	}
	if n := int(r.GetPeopleNeeded()) - len(r.GetApprovals()); n > 0 && r.GetStatus() == "draft" {
		fmt.Fprintf(a.out, "waits for another person: %s\n", "keepout rollout approve "+r.GetId()+" --reason TEXT")
	}
	return a.printRings(r.GetRings())
}

func (a *app) printRings(rings []*fleetpb.Ring) error {
	const header = "RING\tROLE\tHOSTS\tW\tGRANTED\tSOAKING\tCONFIRMED\tNEEDED\tSILENT\tFAILED\tBACK"
	return a.table(header, func(line func(...any)) {
		for _, r := range rings {
			line(r.GetRing(), r.GetRole(), r.GetMembers(), r.GetWindow(), r.GetGranted(), r.GetSoaking(), r.GetConfirmed(),
				r.GetNeeded(), r.GetSilent(), r.GetFailed(), r.GetRolledBack())
		}
	})
}
