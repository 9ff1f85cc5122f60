package cli

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/keepout-security/keepout/internal/playground"
	"github.com/keepout-security/keepout/internal/preview"
)

// preview shows a whole fleet on this machine.
func (f *fleetAPI) preview() *cobra.Command {
	opt := preview.Show{Out: os.Stdout, Result: os.Stdout}
	var stage string
	cmd := &cobra.Command{
		Use: "preview", Short: "Show a fleet of real hosts on this machine, and a rollout that stops itself (as root)",
		Args: exactArgs(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := opt.Check(); err != nil {
				return usageError{err}
			}
			exe, err := os.Executable()
			if err != nil {
				return fmt.Errorf("find this program: %w", err)
			}
			if opt.JSON = f.a.output == "json"; opt.JSON {
				opt.Out = os.Stderr
			}
			opt.Exe, opt.Paint, opt.Width = exe, paintFor(opt.Out).in, terminalWidth(opt.Out)
			if stage != "" {
				err = preview.Perform(cmd.Context(), opt, stage)
			} else {
				err = preview.Run(cmd.Context(), opt)
			}
			if errors.Is(err, playground.ErrTold) {
				return exit(exitFailure)
			}
			return err
		},
	}
	cmd.Flags().StringVar(&opt.Scenario, "scenario", preview.Scenarios()[0],
		"what the second release does: "+strings.Join(preview.Scenarios(), ", "))
	cmd.Flags().IntVar(&opt.Hosts, "hosts", preview.DefaultHosts,
		fmt.Sprintf("how many hosts, %d to %d", preview.MinHosts, preview.MaxHosts))
	cmd.Flags().StringVar(&stage, playground.StageFlag, "", "the folder of a preview that is under way")
	if err := cmd.Flags().MarkHidden(playground.StageFlag); err != nil {
		panic(err) // only when there is no such flag
	}
	return cmd
}
