//go:build linux

package bootguard

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/internal/boot"
)

// Exit codes.
const (
	exitOK      = 0
	exitFailure = 1
	exitUsage   = 2
)

const usage = `usage: keepout-bootguard [flags] begin|good|shutdown|deadline|revoke|release|status

begin     count this boot, decide how it runs, tell the core
good      wait until the boot is good, then mark it
shutdown  this boot ends in order
deadline  restart the machine if it has not come up
revoke    remember which fixes the control plane took back
release   take orders and caution back: the next boot is as configured
status    print what is known
`

// Main runs one command line and returns the exit code.
func Main(args []string, stdout, stderr io.Writer, verify Verifier, learn Revoker) int {
	g := Guard{Verify: verify, Learn: learn, Now: time.Now, Restart: restart, Bin: beside()}
	flags := flag.NewFlagSet("keepout-bootguard", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() { _, _ = io.WriteString(stderr, usage); flags.PrintDefaults() }
	flags.StringVar(&g.Root, "root", "/", "another `folder` in place of /")
	flags.StringVar(&g.RunDir, "run-dir", "/run/keepout", "`folder` of the core's admin socket")
	flags.StringVar(&g.Dir, "dir", "", "Keepout's `folder` on the ESP or /boot; without it, it is looked for")
	wait := flags.Duration("wait", time.Hour, "good: give up after this `time`")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return exitOK
	case err != nil || flags.NArg() != 1:
		flags.Usage()
		return exitUsage
	}
	err := g.do(flags.Arg(0), *wait, stdout)
	for _, what := range slices.Concat(g.trouble, g.notes) {
		_, _ = fmt.Fprintln(stderr, "keepout-bootguard:", what)
	}
	if err != nil {
		_, _ = fmt.Fprintln(stderr, "keepout-bootguard:", err)
		return exitFailure
	}
	return exitOK
}

func (g *Guard) do(what string, wait time.Duration, stdout io.Writer) error {
	switch what {
	case "begin":
		return g.Begin()
	case "good":
		ctx, cancel := context.WithTimeout(context.Background(), wait)
		defer cancel()
		return g.AwaitGood(ctx, boot.DefaultNumbers())
	case "shutdown":
		return g.ShutDown()
	case "deadline":
		return g.Deadline()
	case "revoke":
		return g.Revoke()
	case "release":
		return g.Release("a person asked for it")
	case "status":
		s, err := g.Status()
		if err != nil {
			return err
		}
		s.print(stdout)
		return nil
	default:
		return fmt.Errorf("%q is not known: begin, good, shutdown, deadline, revoke, release or status", what)
	}
}

func (s *Status) print(w io.Writer) {
	_, _ = fmt.Fprintf(w, "folder     %s\nloader     %s, %d tries left\n", s.Dir, s.Loader, s.Left)
	_, _ = fmt.Fprintf(w, "this boot  attempt %d, %s\nnext boot  %s\n", s.State.Attempt(), s.State.Mode, s.State.Next)
	_, _ = fmt.Fprintf(w, "recovery   %d of %d visits\n", s.State.Recoveries, boot.MaxRecoveries)
	if suspect := s.State.Suspect.String(); suspect != "" {
		_, _ = fmt.Fprintf(w, "suspect    %s\n", suspect)
	}
	if o := s.State.Orders; !o.None() {
		_, _ = fmt.Fprintf(w, "orders     safe mode %v, disabled %s, last-known-good %s (%s)\n", o.Safe,
			strings.Join(o.Disabled, " "), strings.Join(o.LastKnownGood, " "), o.Source)
	}
	for _, e := range s.State.History {
		_, _ = fmt.Fprintf(w, "%s  %-9s %-8s %s\n", e.At.Format(time.RFC3339), e.What, e.Mode, e.Why)
	}
}

// restart asks systemd, which ends everything in order, and where nobody is there to ask, the kernel.
func restart() error {
	ctx, cancel := context.WithTimeout(context.Background(), askTime)
	defer cancel()
	err := exec.CommandContext(ctx, "systemctl", "--no-block", "reboot").Run()
	if err == nil {
		return nil
	}
	unix.Sync()
	return errors.Join(err, unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART))
}
