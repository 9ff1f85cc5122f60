package cli

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/keepout-security/keepout/internal/demo"
	"github.com/keepout-security/keepout/internal/playground"
)

func (a *app) demoCommand() *cobra.Command {
	opt := demo.Options{Out: os.Stdout, Paint: a.paint.in}
	var stage string
	cmd := &cobra.Command{
		Use: "demo", Short: "Show it working on this machine, on a file system of its own (as root)",
		Args: exactArgs(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			exe, err := os.Executable()
			if err != nil {
				return fmt.Errorf("find this program: %w", err)
			}
			opt.Exe, opt.Width = exe, terminalWidth(opt.Out)
			opt.Live = func(ctx context.Context, runDir string) error { return runTop(ctx, runDir, opt.Out, a.paint) }
			if stage != "" {
				err = demo.Perform(cmd.Context(), opt, stage)
			} else {
				err = demo.Run(cmd.Context(), opt)
			}
			if errors.Is(err, demo.ErrTold) {
				return exit(exitFailure)
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&opt.Once, "once", false, "end after the story, without the live view")
	cmd.Flags().StringVar(&stage, playground.StageFlag, "", "the folder of a demonstration that is under way")
	if err := cmd.Flags().MarkHidden(playground.StageFlag); err != nil {
		panic(err) // only when there is no such flag
	}
	return cmd
}

// usualWidth is assumed of a terminal that does not know its own, such as a serial line.
const usualWidth = 80

// terminalWidth returns the columns of f, or 0 where it is not a terminal.
func terminalWidth(f *os.File) int {
	width, _, err := term.GetSize(int(f.Fd()))
	switch {
	case err != nil:
		return 0
	case width == 0:
		return usualWidth
	}
	return width
}
