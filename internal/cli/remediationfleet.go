package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/keepout-security/keepout/internal/durable"
	"github.com/keepout-security/keepout/internal/fleet/fleetpb"
	"github.com/keepout-security/keepout/internal/fleet/fleetpb/fleetpbconnect"
)

// sendFix brings a signed fix to the control plane and says what comes next.
func (f *fleetAPI) sendFix(ctx context.Context, path string) (next string, err error) {
	sealed, fix, _, err := readFix(path)
	if err != nil {
		return "", err
	}
	out, err := ask(ctx, f, fleetpbconnect.FleetServiceClient.CreateRemediation,
		&fleetpb.CreateRemediationRequest{Envelope: sealed})
	if err != nil {
		return "", err
	}
	if out.GetRemediation().GetStatus() != "waiting" {
		return "it is in force", nil
	}
	return "another person: keepout remediation approve " + fix.ID + " --key KEY --yes --fleet", nil
}

// approveFix shows a fix that waits at the control plane, and with yes signs and approves it.
func (f *fleetAPI) approveFix(ctx context.Context, id, key string, yes bool) error {
	got, err := ask(ctx, f, fleetpbconnect.FleetServiceClient.GetRemediation, &fleetpb.GetRemediationRequest{Id: id})
	if err != nil {
		return err
	}
	fix, signers, err := parseFix(id, got.GetEnvelope())
	if err != nil {
		return err
	}
	if !yes {
		return f.a.showFix(&fix, "at the control plane: "+got.GetRemediation().GetStatus(),
			"if that is right: the same command with --yes")
	}
	req := &fleetpb.ApproveRemediationRequest{Id: id}
	if key != "" {
		if req.Envelope, err = cosign(got.GetEnvelope(), signers, key); err != nil {
			return err
		}
	}
	if _, err := ask(ctx, f, fleetpbconnect.FleetServiceClient.ApproveRemediation, req); err != nil {
		return err
	}
	return f.a.showFix(&fix, "at the control plane", "machines in recovery that it is for get it from now on")
}

// revokeFixes stops the control plane from serving fixes.
func (f *fleetAPI) revokeFixes(ctx context.Context, ids []string, reason string) error {
	if strings.TrimSpace(reason) == "" {
		return usageError{errors.New("say why: --reason TEXT")}
	}
	for _, id := range ids {
		_, err := ask(ctx, f, fleetpbconnect.FleetServiceClient.RevokeRemediation,
			&fleetpb.RevokeRemediationRequest{Id: id, Reason: reason})
		if err != nil {
			return err
		}
		if err := f.a.done(id + " is not served any more"); err != nil {
			return err
		}
	}
	return nil
}

// listFixes lists what the control plane has.
func (f *fleetAPI) listFixes(ctx context.Context) error {
	out, err := ask(ctx, f, fleetpbconnect.FleetServiceClient.ListRemediations, &fleetpb.ListRemediationsRequest{})
	if err != nil {
		return err
	}
	return f.a.printPB(out, func() error {
		return f.a.table("ID\tKIND\tSTATUS\tKEYS\tSERVED\tFOR\tDOES", func(line func(...any)) {
			for _, r := range out.GetRemediations() {
				line(r.GetId(), r.GetKind(), r.GetStatus(), len(r.GetSigners()), r.GetServed(), dashed(r.GetAudience()),
					strings.Join(r.GetActions(), ", "))
			}
		})
	})
}

func (f *fleetAPI) bundles() *cobra.Command {
	req := &fleetpb.ListBundlesRequest{}
	list := &cobra.Command{
		Use: "bundles", Short: "List diagnostics of machines that did not start", Args: exactArgs(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			out, err := ask(cmd.Context(), f, fleetpbconnect.FleetServiceClient.ListBundles, req)
			if err != nil {
				return err
			}
			return f.a.printPB(out, func() error {
				return f.a.table("DIGEST\tRECEIVED\tSIGNATURE\tHOST\tSUSPECT\tSIZE", func(line func(...any)) {
					for _, b := range out.GetBundles() {
						line(short(b.GetDigest()), b.GetReceived(), dashed(b.GetSignature()), dashed(b.GetHost()),
							dashed(b.GetSuspect()), b.GetSize())
					}
				})
			})
		},
	}
	list.Flags().StringVar(&req.Signature, "signature", "", "only of this failure")
	list.Flags().StringVar(&req.Machine, "machine", "", "only of the machine with this pseudonym")
	list.Flags().Uint32VarP(&req.Limit, "limit", "n", 100, "how many, up to 1000")
	list.AddCommand(f.bundleGet())
	return list
}

func (f *fleetAPI) bundleGet() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "get DIGEST --to FILE", Short: "Fetch one, sealed as it came",
		Long: "Fetch one, sealed as it came. DIGEST may be the report code from the screen. Read it with the\n" +
			"organisation's secret key: tail -n +2 FILE | age -d -i KEY",
		Args: exactArgs(1, "a digest, its beginning, or a report code"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if file == "" {
				return usageError{errors.New("name a file: --to FILE")}
			}
			out, err := ask(cmd.Context(), f, fleetpbconnect.FleetServiceClient.GetBundle,
				&fleetpb.GetBundleRequest{Digest: args[0]})
			if err != nil {
				return err
			}
			if err := durable.WriteFile(file, out.GetParcel(), 0o600); err != nil {
				return err
			}
			return f.a.done(fmt.Sprintf("%s: %d bytes", file, len(out.GetParcel())))
		},
	}
	cmd.Flags().StringVar(&file, "to", "", "file for it")
	return cmd
}

func (f *fleetAPI) groups() *cobra.Command {
	return &cobra.Command{
		Use: "groups", Short: "Group those diagnostics by failure, with the suspected change",
		Args: exactArgs(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			out, err := ask(cmd.Context(), f, fleetpbconnect.FleetServiceClient.ListGroups, &fleetpb.ListGroupsRequest{})
			if err != nil {
				return err
			}
			return f.a.printPB(out, func() error {
				return f.a.table("SIGNATURE\tBUNDLES\tMACHINES\tLAST\tSUSPECTED CHANGE\tVERSIONS", func(line func(...any)) {
					for _, g := range out.GetGroups() {
						line(g.GetSignature(), g.GetBundles(), g.GetMachines(), g.GetLast(), suspected(g), versionsOf(g))
					}
				})
			})
		},
	}
}

func suspected(g *fleetpb.Group) string {
	if g.GetSuspectedChange() == "" {
		return "-"
	}
	return fmt.Sprintf("%s (%.0f %%)", shortVersion(g.GetSuspectedChange()), 100*g.GetShare())
}

// shownVersions is how many versions of a group a table shows, the most frequent ones.
const shownVersions = 3

func versionsOf(g *fleetpb.Group) string {
	all := sortedKeys(g.GetVersions())
	slices.SortStableFunc(all, func(a, b string) int { return int(int64(g.GetVersions()[b]) - int64(g.GetVersions()[a])) })
	all = all[:min(len(all), shownVersions)]
	parts := make([]string, 0, len(all))
	for _, v := range all {
		parts = append(parts, fmt.Sprintf("%s: %d", shortVersion(v), g.GetVersions()[v]))
	}
	return dashed(strings.Join(parts, ", "))
}

// shortVersion is "acme content 0123456789ab".
func shortVersion(v string) string {
	i := strings.LastIndexByte(v, ' ')
	return v[:i+1] + short(v[i+1:])
}
