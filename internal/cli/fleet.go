package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/keepout-security/keepout/internal/fleet/client"
	"github.com/keepout-security/keepout/internal/fleet/fleetpb"
	"github.com/keepout-security/keepout/internal/fleet/fleetpb/fleetpbconnect"
	"github.com/keepout-security/keepout/internal/health"
)

// loginVariable names the file with server, token and authority.
const loginVariable = "KEEPOUT_FLEET_LOGIN"

// The codes of what goes wrong before the control plane answers.
const (
	codeLogin       = "KO-2215"
	codeUnreachable = "KO-2216"
	codeFile        = "KO-2217"
)

// fleetAPI is how commands reach the control plane.
type fleetAPI struct {
	a     *app
	login string
}

// flag adds --login to a command and all below it.
func (f *fleetAPI) flag(cmd *cobra.Command) *cobra.Command {
	cmd.PersistentFlags().StringVar(&f.login, "login", os.Getenv(loginVariable),
		"file with server, token and authority (default $"+loginVariable+")")
	cmd.PersistentFlags().Lookup("login").DefValue = ""
	return cmd
}

func (f *fleetAPI) dial() (fleetpbconnect.FleetServiceClient, error) {
	next := "name the file that keepout-fleet wrote at its first start: --login FILE or " + loginVariable
	if f.login == "" {
		return nil, health.Problem{Code: codeLogin, Title: "no control plane is named", Severity: health.Failure, Fix: next}
	}
	login, err := client.LoadLogin(f.login)
	if err == nil {
		var api fleetpbconnect.FleetServiceClient
		if api, err = login.Dial(); err == nil {
			return api, nil
		}
	}
	return nil, health.Problem{Code: codeLogin, Title: err.Error(), Severity: health.Failure, Fix: next}
}

// ask calls one method.
func ask[Q, R any](
	ctx context.Context, f *fleetAPI,
	method func(fleetpbconnect.FleetServiceClient, context.Context, *connect.Request[Q]) (*connect.Response[R], error),
	req *Q,
) (*R, error) {
	api, err := f.dial()
	if err != nil {
		return nil, err
	}
	out, err := method(api, ctx, connect.NewRequest(req))
	if err != nil {
		return nil, fleetProblem(err)
	}
	return out.Msg, nil
}

// fleetError is a refusal with the exit code for it.
type fleetError struct {
	health.Problem

	code int
}

// Unwrap lets the report find the problem.
func (e *fleetError) Unwrap() error { return e.Problem }

// fleetExit is the exit code of an error.
func fleetExit(err error) int {
	var f *fleetError
	if errors.As(err, &f) {
		return f.code
	}
	return exitFailure
}

// fleetProblem takes the control plane's words apart.
func fleetProblem(err error) error {
	var refused *connect.Error
	if !errors.As(err, &refused) {
		return err
	}
	code, rest, ok := strings.Cut(refused.Message(), ": ")
	if !ok || !strings.HasPrefix(code, "KO-") {
		p := health.Problem{
			Code: codeUnreachable, Title: "the control plane does not answer: " + refused.Message(),
			Severity: health.Failure, Fix: "see that keepout-fleet runs where the login says",
		}
		return &fleetError{p, exitUnreachable}
	}
	p := health.Problem{Code: code, Severity: health.Failure}
	p.Title, p.Fix = health.Split(rest)
	exit := exitFailure
	switch refused.Code() {
	case connect.CodePermissionDenied, connect.CodeUnauthenticated:
		exit = exitDenied
	default:
	}
	return &fleetError{p, exit}
}

// printPB prints a message as JSON with its lower-case names, or says it in words.
func (a *app) printPB(m proto.Message, words func() error) error {
	if a.output != "json" {
		return words()
	}
	text, err := protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: true}.Marshal(m)
	if err != nil {
		return fmt.Errorf("print: %w", err)
	}
	var v any
	if err := decodeJSON(text, &v); err != nil {
		return err
	}
	return printJSON(a.out, v) // protojson's spaces are random on purpose, ours are not
}

func (a *app) table(header string, rows func(line func(cells ...any))) error {
	t := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, header)
	rows(func(cells ...any) {
		texts := make([]string, len(cells))
		for i, c := range cells {
			texts[i] = harmless(fmt.Sprint(c))
		}
		fmt.Fprintln(t, strings.Join(texts, "\t"))
	})
	return t.Flush()
}

// harmless is a host's or a person's text without what could command a terminal.
func harmless(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '?'
		}
		return r
	}, text)
}

func (a *app) fleetCommand() *cobra.Command {
	f := &fleetAPI{a: a}
	return f.flag(group("fleet", "The control plane: start it, enrol hosts, look after them",
		f.serve(), f.status(), f.hosts(), f.enroll(), f.state("quarantine", "quarantined", "Take a host's voice away"),
		f.state("release", "active", "Let a quarantined host count again"),
		f.state("retire", "retired", "Refuse a host's certificate for ever"),
		f.tokens(), f.hold(), f.audit(), f.buckets(), f.beacons(), f.bundles(), f.groups(), f.apply(false), f.apply(true),
		f.preview()))
}

// serve starts keepout-fleet, which has the database that this program does not link.
func (f *fleetAPI) serve() *cobra.Command {
	return &cobra.Command{
		Use: "serve [FLAGS OF keepout-fleet]", Short: "Run the control plane in the foreground", DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			name := "keepout-fleet"
			if exe, err := os.Executable(); err == nil {
				if beside := filepath.Join(filepath.Dir(exe), name); isThere(beside) {
					name = beside
				}
			}
			c := exec.CommandContext(cmd.Context(), name, args...)
			c.Stdout, c.Stderr = f.a.out, f.a.err
			c.Cancel = func() error { return c.Process.Signal(os.Interrupt) }
			c.WaitDelay = time.Minute
			err := c.Run()
			if errors.Is(err, context.Canceled) {
				return nil // somebody ended it, and it ended in order
			}
			var ended *exec.ExitError
			if errors.As(err, &ended) {
				return exit(max(ended.ExitCode(), exitFailure))
			}
			return err
		},
	}
}

func isThere(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func (f *fleetAPI) status() *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Count hosts and rollouts, and what needs somebody", Args: exactArgs(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := ask(cmd.Context(), f, fleetpbconnect.FleetServiceClient.GetSummary, &fleetpb.GetSummaryRequest{})
			if err != nil {
				return err
			}
			return f.a.printPB(s, func() error {
				return f.a.table("WHAT\tCOUNT", func(line func(...any)) {
					for _, k := range sortedKeys(s.GetHosts()) {
						line("hosts "+k, s.GetHosts()[k])
					}
					for _, k := range sortedKeys(s.GetRollouts()) {
						line("rollouts "+k, s.GetRollouts()[k])
					}
					line("waiting for approval", s.GetWaitingApprovals())
					line("recovery beacons", s.GetBeacons())
					line("long-polls", s.GetConnected())
					line("audit entries", s.GetAuditEntries())
				})
			})
		},
	}
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func (f *fleetAPI) hosts() *cobra.Command {
	req := &fleetpb.ListHostsRequest{}
	cmd := &cobra.Command{
		Use: "hosts", Short: "List hosts", Args: exactArgs(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			all := &fleetpb.ListHostsResponse{}
			req.Limit = 1000
			for req.After = ""; ; req.After = all.GetNext() {
				page, err := ask(cmd.Context(), f, fleetpbconnect.FleetServiceClient.ListHosts, req)
				if err != nil {
					return err
				}
				all.Hosts, all.Next = append(all.Hosts, page.GetHosts()...), page.GetNext()
				if all.GetNext() == "" {
					break
				}
			}
			return f.a.printPB(all, func() error {
				return f.a.table("ID\tHOST\tSTATE\tLAST SEEN\tRUNS", func(line func(...any)) {
					for _, h := range all.GetHosts() {
						line(h.GetId(), h.GetHostname(), h.GetState(), dashed(h.GetLastSeen()), runs(h))
					}
				})
			})
		},
	}
	cmd.Flags().StringVar(&req.State, "state", "", "only active, quarantined or retired ones")
	return cmd
}

// runs lists what is active on a host, shortened.
func runs(h *fleetpb.Host) string {
	var parts []string
	for _, i := range h.GetInstalled() {
		if i.GetSlot() == "active" {
			parts = append(parts, i.GetProvider()+" "+channelName(i.GetChannel())+" "+short(i.GetDigest()))
		}
	}
	return dashed(strings.Join(parts, ", "))
}

func channelName(c fleetpb.Channel) string {
	return strings.ToLower(strings.TrimPrefix(c.String(), "CHANNEL_"))
}

// short is enough of a digest to tell it from others.
func short(digest string) string {
	_, hex, ok := strings.Cut(digest, ":")
	if !ok {
		hex = digest
	}
	return hex[:min(len(hex), 12)]
}

// dashed stands in a table where there is nothing.
func dashed(text string) string {
	if text == "" {
		return "-"
	}
	return text
}
