package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/keepout-security/keepout/internal/drill"
	"github.com/keepout-security/keepout/internal/playground"
)

func (a *app) drillCommand() *cobra.Command {
	opt := drill.Options{Out: os.Stdout, Paint: a.paint.in, Version: a.version}
	var all, live bool
	var stage string
	cmd := &cobra.Command{
		Use: "drill [NAME…]", Short: "Break something on purpose and report how it was contained (as root)",
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case all && len(args) > 0:
				return usageError{errors.New("name drills, or write --all, not both")}
			case !all && len(args) == 0:
				return a.listDrills()
			case opt.For < time.Second || opt.For > drill.MaxFor:
				return usageError{fmt.Errorf("--for %v: choose 1s to %v", opt.For, drill.MaxFor)}
			}
			if !live && (opt.Yes || opt.Provider != "") {
				return usageError{errors.New("--yes and --provider belong to --live")}
			}
			if live {
				return a.drill(opt, args, func(opt drill.Options) error { return drill.Live(cmd.Context(), opt) })
			}
			if _, err := drill.Select(args); err != nil {
				return err
			}
			return a.drill(opt, args, func(opt drill.Options) error {
				if stage != "" {
					return drill.Perform(cmd.Context(), opt, stage)
				}
				return drill.Run(cmd.Context(), opt, os.Args[1:])
			})
		},
	}
	f := cmd.Flags()
	f.BoolVar(&all, "all", false, "every drill, one after the other")
	f.BoolVar(&live, "live", false, "on this host's own daemon, when the fault is a signal")
	f.StringVar(&opt.Provider, "provider", "",
		"with --live: which provider is hit (default: the first in audit, or else the first)")
	f.BoolVar(&opt.Yes, "yes", false, "with --live: yes, interrupt protection for a moment")
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

// drill completes the options, runs the drills and chooses the exit code.
func (a *app) drill(opt drill.Options, names []string, run func(drill.Options) error) error {
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	opt.Exe, opt.Names, opt.JSON, opt.RunDir = exe, names, a.output == "json", a.runDir
	if opt.Report != "" {
		if opt.Report, err = filepath.Abs(opt.Report); err != nil {
			return fmt.Errorf("report: %w", err)
		}
	}
	if err = run(opt); errors.Is(err, drill.ErrFailed) {
		return exit(exitFailure) // the report says why
	}
	return err
}
