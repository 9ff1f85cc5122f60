package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keepout-security/keepout/internal/fleet/fleetpb"
	"github.com/keepout-security/keepout/internal/fleet/fleetpb/fleetpbconnect"
	"github.com/keepout-security/keepout/internal/health"
)

func decodeJSON(text []byte, v any) error {
	if err := json.Unmarshal(text, v); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

func (f *fleetAPI) enroll() *cobra.Command {
	req := &fleetpb.CreateEnrolTokenRequest{}
	var valid time.Duration
	cmd := &cobra.Command{
		Use: "enroll", Short: "Make a token with which one host can enrol, once", Args: exactArgs(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			req.ValidSeconds = uint32(valid / time.Second)
			out, err := ask(cmd.Context(), f, fleetpbconnect.FleetServiceClient.CreateEnrolToken, req)
			if err != nil {
				return err
			}
			return f.a.printPB(out, func() error {
				_, err := fmt.Fprintf(f.a.out, "%s\n", out.GetSecret())
				fmt.Fprintf(f.a.err, "shown once, good for one host until %s\n", out.GetToken().GetExpires())
				return err
			})
		},
	}
	cmd.Flags().DurationVar(&valid, "for", 24*time.Hour, "how long it is good, up to 720h")
	cmd.Flags().StringToStringVar(&req.Labels, "label", nil, "labels that the host gets, whatever it says: KEY=VALUE")
	cmd.Flags().StringArrayVar(&req.Scope, "scope", nil,
		"the only labels that the host may say itself: KEY=VALUE or KEY=*, once for each value")
	cmd.Flags().StringVar(&req.Note, "note", "", "what it is for")
	return cmd
}

// state makes the command that gives a host another state.
func (f *fleetAPI) state(verb, state, short string) *cobra.Command {
	req := &fleetpb.SetHostStateRequest{State: state}
	cmd := &cobra.Command{
		Use: verb + " HOST --reason TEXT", Short: short, Args: exactArgs(1, "a host's id"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if strings.TrimSpace(req.GetReason()) == "" {
				return usageError{errors.New("say why: --reason TEXT")}
			}
			req.Id = args[0]
			out, err := ask(cmd.Context(), f, fleetpbconnect.FleetServiceClient.SetHostState, req)
			if err != nil {
				return err
			}
			return f.a.printPB(out, func() error {
				_, err := fmt.Fprintf(f.a.out, "%s is %s\n", out.GetHost().GetId(), out.GetHost().GetState())
				return err
			})
		},
	}
	cmd.Flags().StringVar(&req.Reason, "reason", "", "why; it is kept in the audit trail")
	return cmd
}

func (f *fleetAPI) tokens() *cobra.Command {
	req := &fleetpb.CreateAccessTokenRequest{}
	var valid time.Duration
	create := &cobra.Command{
		Use: "create --person NAME --role ROLE", Short: "Make a token for a person or their tool",
		Args: exactArgs(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			req.ValidSeconds = uint32(valid / time.Second)
			out, err := ask(cmd.Context(), f, fleetpbconnect.FleetServiceClient.CreateAccessToken, req)
			if err != nil {
				return err
			}
			return f.a.printPB(out, func() error {
				_, err := fmt.Fprintln(f.a.out, out.GetSecret())
				return err
			})
		},
	}
	create.Flags().StringVar(&req.Person, "person", "", "who; four eyes are two persons")
	create.Flags().StringSliceVar(&req.Roles, "role", nil,
		"viewer, operator, approver, halter, vendor or admin; may be repeated")
	create.Flags().StringVar(&req.Vendor, "vendor", "", "with role vendor: the provider that is theirs")
	create.Flags().DurationVar(&valid, "for", 90*24*time.Hour, "how long it is good, up to 8784h")
	list := &cobra.Command{
		Use: "list", Short: "List tokens without their secrets", Args: exactArgs(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			out, err := ask(cmd.Context(), f, fleetpbconnect.FleetServiceClient.ListAccessTokens,
				&fleetpb.ListAccessTokensRequest{})
			if err != nil {
				return err
			}
			return f.a.printPB(out, func() error {
				return f.a.table("ID\tPERSON\tROLES\tEXPIRES\tREVOKED", func(line func(...any)) {
					for _, t := range out.GetTokens() {
						line(t.GetId(), t.GetPerson(), strings.Join(t.GetRoles(), ","), t.GetExpires(), t.GetRevoked())
					}
				})
			})
		},
	}
	revoke := &cobra.Command{
		Use: "revoke ID", Short: "End a token at once", Args: exactArgs(1, "a token's id"),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, err := ask(cmd.Context(), f, fleetpbconnect.FleetServiceClient.RevokeAccessToken,
				&fleetpb.RevokeAccessTokenRequest{Id: args[0]})
			if err != nil {
				return err
			}
			return f.a.done(args[0] + " is revoked")
		},
	}
	return group("token", "Tokens of people", create, list, revoke)
}

// codeAudit says that the audit trail is not what was written.
const codeAudit = "KO-2214"

func (f *fleetAPI) audit() *cobra.Command {
	req := &fleetpb.ListAuditRequest{}
	list := &cobra.Command{
		Use: "list", Short: "Read the audit trail, the oldest entry first", Args: exactArgs(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			out, err := ask(cmd.Context(), f, fleetpbconnect.FleetServiceClient.ListAudit, req)
			if err != nil {
				return err
			}
			return f.a.printPB(out, func() error {
				return f.a.table("NUMBER\tAT\tWHO\tWHAT\tSUBJECT\tDETAIL", func(line func(...any)) {
					for _, e := range out.GetEntries() {
						line(e.GetSeq(), e.GetAt(), e.GetActor(), e.GetAction(), dashed(e.GetSubject()), e.GetDetail())
					}
				})
			})
		},
	}
	list.Flags().Uint64Var(&req.After, "after", 0, "only entries after this number")
	list.Flags().Uint32VarP(&req.Limit, "limit", "n", 100, "how many, up to 1000")
	verify := &cobra.Command{
		Use: "verify", Short: "Recompute the audit trail's chain of hashes", Args: exactArgs(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			out, err := ask(cmd.Context(), f, fleetpbconnect.FleetServiceClient.VerifyAudit, &fleetpb.VerifyAuditRequest{})
			if err != nil {
				return err
			}
			if !out.GetIntact() {
				return health.Problem{
					Code: codeAudit, Title: fmt.Sprintf("audit entry %d: %s", out.GetBrokenAt(), out.GetWhat()),
					Severity: health.Failure, Fix: "compare with a copy of the database, and find out who wrote to it",
				}
			}
			return f.a.printPB(out, func() error {
				_, err := fmt.Fprintf(f.a.out, "%d entries, unbroken, head %s\n", out.GetEntries(), out.GetHead())
				return err
			})
		},
	}
	return group("audit", "The trail of every decision, grant and key use", list, verify)
}

func (f *fleetAPI) buckets() *cobra.Command {
	req := &fleetpb.ListBucketsRequest{}
	cmd := &cobra.Command{
		Use: "buckets", Short: "List crashes and would-be denials by signature", Args: exactArgs(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			out, err := ask(cmd.Context(), f, fleetpbconnect.FleetServiceClient.ListBuckets, req)
			if err != nil {
				return err
			}
			return f.a.printPB(out, func() error {
				return f.a.table("PROVIDER\tVERSION\tKIND\tSIGNATURE\tCOUNT\tHOSTS\tNEW\tLAST SEEN", func(line func(...any)) {
					for _, b := range out.GetBuckets() {
						line(b.GetProvider(), short(b.GetDigest()), b.GetKind(), b.GetSignature(), b.GetCount(), b.GetHosts(),
							b.GetNewInVersion(), b.GetLastSeen())
					}
				})
			})
		},
	}
	cmd.Flags().StringVar(&req.Provider, "provider", "", "only of this provider")
	cmd.Flags().StringVar(&req.Digest, "digest", "", "only of this version")
	return cmd
}

func (f *fleetAPI) beacons() *cobra.Command {
	return &cobra.Command{
		Use: "beacons", Short: "List hosts that came up in their recovery environment", Args: exactArgs(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			out, err := ask(cmd.Context(), f, fleetpbconnect.FleetServiceClient.ListBeacons, &fleetpb.ListBeaconsRequest{})
			if err != nil {
				return err
			}
			return f.a.printPB(out, func() error {
				return f.a.table("HOST\tVERSION\tAT\tSIGNATURE", func(line func(...any)) {
					for _, b := range out.GetBeacons() {
						line(b.GetHost(), short(b.GetDigest()), b.GetAt(), b.GetSignature())
					}
				})
			})
		},
	}
}
