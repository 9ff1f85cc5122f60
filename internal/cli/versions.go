package cli

import (
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/keepout-security/keepout/internal/control"
	"github.com/keepout-security/keepout/internal/roster"
	"github.com/keepout-security/keepout/wire"
)

// versionCommands are the subcommands of provider that are about what runs, is tried, and would be gone back to.
func (a *app) versionCommands() []*cobra.Command {
	versions := &cobra.Command{
		Use: "versions", Short: "Show which engine and content runs, is tried, and would be gone back to",
		Args: exactArgs(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := a.fetchStatus(cmd.Context())
			if err != nil {
				return err
			}
			if a.output == "json" {
				return printJSON(a.out, s.Providers)
			}
			return a.printVersions(s.Providers)
		},
	}
	back := control.Request{Do: "version", Action: "rollback"}
	rollback := &cobra.Command{
		Use: "rollback ID --reason TEXT", Short: "Go back to the version before",
		Long: "Go back to the last-known-good version, or to what was installed: of the part that changed\n" +
			"last, or of --part. What is gone back from is refused until keepout provider allow.",
		Args: exactArgs(1, "a provider's id"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if strings.TrimSpace(back.Reason) == "" {
				return usageError{errors.New("say why: --reason TEXT")}
			}
			back.Provider = args[0]
			return a.order(cmd, back, args[0]+" goes back; see keepout provider versions")
		},
	}
	rollback.Flags().StringVar(&back.Part, "part", "", "engine or content; default: what changed last")
	rollback.Flags().StringVar(&back.Reason, "reason", "", "why; it is kept in the journal")
	promote := &cobra.Command{
		Use: "promote ID", Short: "Do not wait for the rest of a candidate's trial",
		Args: exactArgs(1, "a provider's id"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.order(cmd, control.Request{Do: "version", Action: "promote", Provider: args[0]},
				args[0]+": the candidate becomes active once it has loaded and passed its checks")
		},
	}
	allow := &cobra.Command{
		Use: "allow ID DIGEST", Short: "Take the refusal of a version back and try it again",
		Args: exactArgs(2, "a provider's id and the beginning of a digest"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.order(cmd, control.Request{Do: "version", Action: "allow", Provider: args[0], SHA256: args[1]},
				args[0]+": "+args[1]+" is no longer refused; if it is what is configured, it is tried again")
		},
	}
	return []*cobra.Command{versions, rollback, promote, allow}
}

func (a *app) printVersions(list []roster.Status) error {
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "PROVIDER\tPART\tACTIVE\tCANDIDATE\tLAST-KNOWN-GOOD\tFACTORY")
	var more []string
	for i := range list {
		p := &list[i]
		if p.Versions == nil {
			fmt.Fprintf(w, "%s\t-\t-\t-\t-\t-\n", p.ID)
			continue
		}
		for _, part := range []struct {
			name string
			s    roster.Slots
		}{{"engine", p.Versions.Engine}, {"content", p.Versions.Content}} {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", p.ID, part.name, orNone(part.s.Active), orNone(part.s.Candidate),
				orNone(part.s.LKG), orNone(part.s.Factory))
		}
		for _, line := range []struct{ what, text string }{
			{"on trial", p.Versions.Trial}, {"in quarantine", p.Versions.Quarantine}, {"last rollback", p.Versions.Rollback},
		} {
			if line.text != "" {
				more = append(more, fmt.Sprintf("%s: %s: %s", p.ID, line.what, wire.Clip(line.text)))
			}
		}
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	for _, line := range more {
		fmt.Fprintln(a.out, line)
	}
	return nil
}

func orNone(text string) string {
	if text == "" {
		return "-"
	}
	return wire.Clip(text)
}
