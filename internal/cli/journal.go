package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/keepout-security/keepout/internal/health"
	"github.com/keepout-security/keepout/internal/journal"
)

var errBroken = health.Problem{
	Code: "KO-1402", Title: "the journal's chain is broken", Severity: health.Failure,
	Fix: "compare with a copy or a head that is kept elsewhere: keepout doctor --explain KO-1402",
}

func (a *app) journalCommand() *cobra.Command {
	return group("journal", "Check the journal's chain", &cobra.Command{
		Use: "verify DIR", Short: "Check that no line of a journal was changed, removed or moved",
		Args: exactArgs(1, "the journal's folder"),
		RunE: func(_ *cobra.Command, args []string) error {
			report, err := journal.Verify(args[0])
			if err != nil {
				return err
			}
			if a.output == "json" {
				if err := printJSON(a.out, report); err != nil || report.Intact() {
					return err
				}
				return errBroken
			}
			if report.Files == 0 {
				return usageError{fmt.Errorf("no journal in %s: the daemon keeps it in STATE-DIR/journal", args[0])}
			}
			for _, b := range report.Breaks {
				fmt.Fprintln(a.err, b)
			}
			if !report.Intact() {
				return errBroken
			}
			_, err = fmt.Fprintf(a.out, "%s in %s, the chain holds\n", plural(report.Lines, "line"),
				plural(report.Files, "file"))
			return err
		},
	})
}
