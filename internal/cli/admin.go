package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/config"
	"github.com/keepout-security/keepout/internal/control"
	"github.com/keepout-security/keepout/packaging"
	"github.com/keepout-security/keepout/wire"
)

// order sends a request that has no answer but success, and says what it did.
func (a *app) order(cmd *cobra.Command, req control.Request, done string) error {
	if err := a.ask(cmd.Context(), req, func(control.Reply) error { return nil }); err != nil {
		return err
	}
	return a.done(done)
}

// done says what was done.
func (a *app) done(what string) error {
	if a.output == "json" {
		return printJSON(a.out, map[string]string{"done": what})
	}
	_, err := fmt.Fprintln(a.out, what)
	return err
}

func (a *app) modeCommand() *cobra.Command {
	return &cobra.Command{
		Use: "mode monitor|enforce", Short: "Switch the host between recording and denying",
		Args: exactArgs(1, "monitor or enforce"), ValidArgs: []string{"monitor", "enforce"},
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.order(cmd, control.Request{Do: "mode", Mode: event.Mode(args[0])},
				"mode is "+args[0]+" until the next reload or restart; to keep it, write mode: "+args[0]+" in the configuration")
		},
	}
}

func (a *app) allowCommand() *cobra.Command {
	req := control.Request{Do: "allow"}
	var length time.Duration
	cmd := &cobra.Command{
		Use: "allow SHA256 --for 1h --reason TEXT", Short: "Let a content pass for a time, whatever providers say",
		Args: exactArgs(1, "the SHA-256 of a file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if strings.TrimSpace(req.Reason) == "" {
				return usageError{errors.New("say why: --reason TEXT")}
			}
			req.SHA256, req.Seconds = args[0], int64(length.Seconds())
			return a.order(cmd, req, fmt.Sprintf("allowed for %v: %s", length, args[0]))
		},
	}
	cmd.Flags().DurationVar(&length, "for", time.Hour, "for how long, 1m to 720h")
	cmd.Flags().StringVar(&req.Reason, "reason", "", "why; it is kept in the journal")
	return cmd
}

func (a *app) providerCommand() *cobra.Command {
	list := &cobra.Command{
		Use: "list", Short: "List providers", Args: exactArgs(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := a.fetchStatus(cmd.Context())
			if err != nil {
				return err
			}
			if a.output == "json" {
				return printJSON(a.out, s.Providers)
			}
			return a.printProviders(a.out, s.Providers, true)
		},
	}
	enable := &cobra.Command{
		Use: "enable ID", Short: "Start a provider", Args: exactArgs(1, "a provider's id"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.order(cmd, control.Request{Do: "provider", Provider: args[0], Enable: true}, args[0]+" is enabled")
		},
	}
	disable := &cobra.Command{
		Use: "disable ID", Short: "Stop a provider until it is enabled or keepoutd restarts",
		Args: exactArgs(1, "a provider's id"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.order(cmd, control.Request{Do: "provider", Provider: args[0]}, args[0]+" is disabled")
		},
	}
	limit := 0
	logs := &cobra.Command{
		Use: "logs ID", Short: "Print the end of what a provider wrote to standard error",
		Args: exactArgs(1, "a provider's id"),
		RunE: func(cmd *cobra.Command, args []string) error {
			req := control.Request{Do: "logs", Provider: args[0], Limit: limit}
			return a.ask(cmd.Context(), req, func(r control.Reply) error {
				if a.output == "json" {
					return printJSON(a.out, map[string]string{"provider": args[0], "line": r.Log})
				}
				// It is the provider's text: nothing in it may command the terminal.
				_, err := fmt.Fprintln(a.out, wire.Clip(strings.ReplaceAll(r.Log, "\t", "  ")))
				return err
			})
		},
	}
	logs.Flags().IntVar(&limit, "last", 0, "only the last so many lines")
	seal := &cobra.Command{
		Use: "seal DIR", Short: "Write the executable's digest into a provider's manifest",
		Args: exactArgs(1, "a provider's folder"),
		RunE: func(_ *cobra.Command, args []string) error {
			digest, err := config.Seal(args[0])
			if err != nil {
				return err
			}
			if a.output == "json" {
				return printJSON(a.out, map[string]string{"dir": args[0], "sha256": digest})
			}
			_, err = fmt.Fprintln(a.out, args[0], "sealed:", digest)
			return err
		},
	}
	return group("provider", "List providers, switch them on and off, choose their versions, read their logs",
		append(a.versionCommands(), list, enable, disable, logs, seal)...)
}

// checkProviders tells all that is wrong with manifests, executables and contents.
func checkProviders(ctx context.Context, loaded *config.Loaded, dir string) error {
	installed, err := loaded.Resolve(dir)
	errs := append(make([]error, 0, len(installed)+1), err)
	for i := range installed {
		errs = append(errs, installed[i].CheckContent(ctx))
	}
	return errors.Join(errs...)
}

// reloaded is said of a reload that was taken.
const reloaded = "reloaded; the mode is the configuration's again; new engines and contents are on trial first: " +
	"keepout provider versions"

func (a *app) configCommand() *cobra.Command {
	var providers string
	check := &cobra.Command{
		Use: "check FILE", Short: "Check a configuration file and the providers it names", Args: exactArgs(1, "a file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			loaded, err := config.Load(args[0])
			if err == nil && providers != "" {
				err = checkProviders(cmd.Context(), loaded, providers)
			}
			if err != nil {
				return err
			}
			if a.output == "json" {
				return printJSON(a.out, map[string]any{
					"file": args[0], "mode": loaded.Mode, "watched": len(loaded.Watch), "providers": len(loaded.Providers),
				})
			}
			_, err = fmt.Fprintf(a.out, "%s is fine: mode %s, %s, %s\n", args[0], loaded.Mode,
				plural(len(loaded.Watch), "watched path"), plural(len(loaded.Providers), "provider"))
			return err
		},
	}
	check.Flags().StringVar(&providers, "providers-dir", "",
		"also check manifests, digests and contents of the providers in this folder")
	explain := &cobra.Command{
		Use: "explain", Short: "Print a commented example with every key and its default", Args: exactArgs(0, "no arguments"),
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprint(a.out, config.Example)
			return err
		},
	}
	reload := &cobra.Command{
		Use: "reload", Short: "Make the daemon read its configuration and contents again", Args: exactArgs(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.order(cmd, control.Request{Do: "reload"}, reloaded)
		},
	}
	unit := &cobra.Command{
		Use: "unit", Short: "Print the systemd unit of keepoutd, for /etc/systemd/system/keepoutd.service",
		Args: exactArgs(0, "no arguments"),
		RunE: func(*cobra.Command, []string) error {
			program, err := os.Executable()
			if err != nil {
				return fmt.Errorf("find this program: %w", err)
			}
			_, err = a.out.Write(packaging.Daemon(filepath.Dir(program))) // keepoutd is beside it
			return err
		},
	}
	return group("config", "Check a configuration file, explain the keys, print the unit, reload",
		check, explain, unit, reload)
}
