package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/keepout-security/keepout/internal/journal"
)

var errBroken = errors.New("KO-1402: the journal's chain is broken")

func (a *app) journalCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "journal", Short: "Check the journal's chain"}
	cmd.AddCommand(&cobra.Command{
		Use: "verify DIR", Short: "Check that no line of a journal was changed, removed or moved",
		Args: exactArgs(1, "the journal's folder"),
		RunE: func(_ *cobra.Command, args []string) error {
			report, err := journal.Verify(args[0])
			if err != nil {
				return err
			}
			if a.output == "json" {
				return printJSON(a.out, report)
			}
			for _, b := range report.Breaks {
				fmt.Fprintln(a.err, b)
			}
			if len(report.Breaks) > 0 {
				return errBroken
			}
			_, err = fmt.Fprintf(a.out, "%d lines in %d files, the chain holds\n", report.Lines, report.Files)
			return err
		},
	})
	return cmd
}
