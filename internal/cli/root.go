package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/keepout-security/keepout/internal/control"
)

// Exit codes of keepout.
const (
	exitOK          = 0
	exitFailure     = 1
	exitUsage       = 2
	exitDegraded    = 3
	exitUnreachable = 4
	exitDenied      = 5
)

// exit is an error that has been told already and only carries a code.
type exit int

func (e exit) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// usageError marks what the person at the keyboard got wrong.
type usageError struct{ error }

func (u usageError) Unwrap() error { return u.error }

// app is what all commands share.
type app struct {
	out     io.Writer
	err     io.Writer
	runDir  string
	output  string // text or json
	version string
	paint   paint
	width   int  // columns of the terminal, 0 where there is none
	ascii   bool // no signs beyond ASCII
	begun   bool // a command runs: what goes wrong from here on is not the command line
}

// Main runs one command line and returns the exit code.
func Main(args []string, version string, stdout, stderr *os.File) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	a := &app{
		out: stdout, err: stderr, version: version, paint: paintFor(stdout), width: terminalWidth(stdout),
		ascii: asciiOnly(),
	}
	return a.run(ctx, args)
}

// run runs one command line and returns the exit code.
func (a *app) run(ctx context.Context, args []string) int {
	root := a.root()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if !a.begun && wantsJSON(args) {
		a.output = "json" // the command line is wrong before it was read
	}
	return a.report(err)
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use: "keepout", Short: "Endpoint security that keeps out of the kernel",
		Version: a.version, SilenceErrors: true, SilenceUsage: true,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			if a.output != "text" && a.output != "json" {
				return usageError{fmt.Errorf("output %q is not known: -o text or -o json", a.output)}
			}
			a.begun = true
			return nil
		},
	}
	root.SetOut(a.out)
	root.SetErr(a.err)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.PersistentFlags().StringVar(&a.runDir, "run-dir", control.DefaultDir, "directory of the daemon's admin socket")
	root.PersistentFlags().StringVarP(&a.output, "output", "o", "text", "text or json")
	root.AddCommand(
		a.statusCommand(), a.eventsCommand(), a.explainCommand(), a.modeCommand(), a.allowCommand(),
		a.providerCommand(), a.configCommand(), a.journalCommand(), a.topCommand(), a.doctorCommand(), a.demoCommand(),
		a.drillCommand(), a.recoveryCommand(), a.crashCommand(), a.diagnosticsCommand(), a.remediationCommand(),
	)
	return root
}

// group makes a command that only holds others. Cobra itself would answer an unknown one with the help and success.
func group(use, short string, commands ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("unknown command %q for %q", args[0], cmd.CommandPath())}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(commands...)
	return cmd
}

// exactArgs is cobra's, but as a usage error.
func exactArgs(n int, what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != n {
			return usageError{fmt.Errorf("want %s, got %s", what, plural(len(args), "argument"))}
		}
		return nil
	}
}

// ask sends one request to the daemon.
func (a *app) ask(ctx context.Context, req control.Request, each func(control.Reply) error) error {
	c, err := control.Dial(ctx, a.runDir)
	if err != nil {
		return err
	}
	err = c.Do(ctx, req, each)
	return errors.Join(err, c.Close())
}

// fetchStatus asks for the status.
func (a *app) fetchStatus(ctx context.Context) (*control.Status, error) {
	var s *control.Status
	err := a.ask(ctx, control.Request{Do: "status"}, func(r control.Reply) error {
		s = r.Status
		return nil
	})
	if err == nil && s == nil {
		err = errors.New("the daemon sent no status")
	}
	return s, err
}
