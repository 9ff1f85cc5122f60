package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/keepout-security/keepout/internal/drill"
	"github.com/keepout-security/keepout/internal/health"
	"github.com/keepout-security/keepout/internal/playground"
)

// liveRefused says why a fault is not injected beside the host's own providers.
func liveRefused() error {
	return health.Problem{
		Code: "KO-2013", Severity: health.Failure, Fix: "keepout drill --all, which has a platform of its own",
		Title: "a drill on this host's own daemon is not possible: it takes no provider that its configuration does not name",
	}
}

func (a *app) drillCommand() *cobra.Command {
	opt := drill.Options{Out: os.Stdout, Paint: a.paint.in, Version: a.version}
	var all, live bool
	var stage string
	cmd := &cobra.Command{
		Use: "drill [NAME…]", Short: "Break something on purpose and report how it was contained (as root)",
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case live:
				return liveRefused()
			case all && len(args) > 0:
				return usageError{errors.New("name drills, or write --all, not both")}
			case !all && len(args) == 0:
				return a.listDrills()
			case opt.For < time.Second || opt.For > drill.MaxFor:
				return usageError{fmt.Errorf("--for %v: choose 1s to %v", opt.For, drill.MaxFor)}
			}
			if _, err := drill.Select(args); err != nil {
				return err
			}
			return a.drill(cmd, opt, args, stage)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&all, "all", false, "every drill, one after the other")
	f.BoolVar(&live, "live", false, "on this host's own daemon (not possible yet)")
	f.DurationVar(&opt.For, "for", drill.DefaultFor, "how long each fault lasts at least")
	f.StringVar(&opt.Report, "report", "", "also write a page with the timelines drawn to this file")
	f.StringVar(&stage, playground.StageFlag, "", "the folder of drills that are under way")
	if err := f.MarkHidden(playground.StageFlag); err != nil {
		panic(err) // only when there is no such flag
	}
	return cmd
}

func (a *app) listDrills() error {
	if a.output == "json" {
		return printJSON(a.out, drill.Names())
	}
	drill.List(a.out, a.paint.in)
	return nil
}

// drill runs the drills, or is the second process that does.
func (a *app) drill(cmd *cobra.Command, opt drill.Options, names []string, stage string) error {
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	opt.Exe, opt.Names, opt.JSON = exe, names, a.output == "json"
	if opt.Report != "" {
		if opt.Report, err = filepath.Abs(opt.Report); err != nil {
			return fmt.Errorf("report: %w", err)
		}
	}
	if stage != "" {
		err = drill.Perform(cmd.Context(), opt, stage)
	} else {
		err = drill.Run(cmd.Context(), opt, os.Args[1:])
	}
	if errors.Is(err, drill.ErrFailed) {
		return exit(exitFailure) // the report says why
	}
	return err
}
