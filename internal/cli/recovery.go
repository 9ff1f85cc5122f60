package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keepout-security/keepout/internal/boot"
	"github.com/keepout-security/keepout/internal/health"
	"github.com/keepout-security/keepout/internal/recovery/arming"
	"github.com/keepout-security/keepout/internal/recovery/bootguard"
	"github.com/keepout-security/keepout/internal/recovery/esp"
	"github.com/keepout-security/keepout/internal/recovery/intent"
	"github.com/keepout-security/keepout/internal/recovery/rehearsal"
)

func (a *app) recoveryCommand() *cobra.Command {
	return group("recovery", "Machines that do not start: arm the recovery, see how boots went",
		a.recoveryArmCommand(), a.recoveryDisarmCommand(), a.recoveryStatusCommand(), a.recoveryReleaseCommand(),
		a.recoveryImageCommand(), a.recoveryTestCommand())
}

// armFlags are what arm and disarm share.
type armFlags struct {
	opt arming.Options
	yes bool
}

func (f *armFlags) add(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.yes, "yes", false, "make the changes; without it, they are only shown")
	cmd.Flags().StringVar(&f.opt.Root, "root", "/", "the system in this folder in place of the running one")
}

func (a *app) recoveryArmCommand() *cobra.Command {
	var f armFlags
	cmd := &cobra.Command{
		Use: "arm", Short: "Show what makes a machine recover from boots that fail; with --yes, do it",
		Args: exactArgs(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.opt.Bin == "" {
				f.opt.Bin = besideThis()
			}
			plan, err := arming.Arm(f.opt)
			return a.carryOut(cmd.Context(), plan, err, &f, "arm")
		},
	}
	f.add(cmd)
	cmd.Flags().StringVar(&f.opt.Bin, "bin", "", "folder of Keepout's programs (default: that of this one)")
	cmd.Flags().StringVar(&f.opt.Installation, "installation", "",
		"machine id of the system that is meant, where the boot loader starts several")
	cmd.Flags().StringVar(&f.opt.Keys, "keys", "",
		"`folder` with the public keys of fixes: organisation.pem, PROVIDER.pem (default: "+arming.KeyFolder+")")
	return cmd
}

func (a *app) recoveryDisarmCommand() *cobra.Command {
	var f armFlags
	cmd := &cobra.Command{
		Use: "disarm", Short: "Show how to take back what arm changed; with --yes, do it",
		Args: exactArgs(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			plan, err := arming.Disarm(f.opt)
			return a.carryOut(cmd.Context(), plan, err, &f, "disarm")
		},
	}
	f.add(cmd)
	return cmd
}

func besideThis() string {
	if exe, err := os.Executable(); err == nil {
		return filepath.Dir(exe)
	}
	return "/usr/lib/keepout"
}

// carryOut shows a plan, and makes the changes where that is wanted.
func (a *app) carryOut(ctx context.Context, plan *arming.Plan, err error, f *armFlags, what string) error {
	var which *arming.WhichError
	switch {
	case errors.As(err, &which):
		return health.Problem{
			Code: "KO-2310", Severity: health.Failure, Title: which.Error(),
			Fix: fmt.Sprintf("keepout recovery %s --installation MACHINE-ID (this system is %s)", what, which.Own),
		}
	case err != nil:
		return health.Problem{
			Code: "KO-2311", Severity: health.Failure, Title: fmt.Sprintf("recovery cannot be %sed: %v", what, err),
			Fix: "run it as root, with the ESP mounted",
		}
	}
	fmt.Fprint(a.out, plan.Text())
	switch {
	case plan.Empty():
		fmt.Fprintf(a.out, "\nnothing to change: it is %sed\n", what)
		return nil
	case !f.yes:
		fmt.Fprintf(a.out, "\nnothing was changed; to do it: keepout recovery %s --yes\n", what)
		return nil
	}
	if err := plan.Apply(); err != nil {
		return health.Problem{
			Code: "KO-2311", Severity: health.Failure, Title: fmt.Sprintf("recovery cannot be %sed: %v", what, err),
			Fix: "keepout recovery disarm --yes takes back what was changed",
		}
	}
	if filepath.Clean(f.opt.Root) != "/" {
		fmt.Fprintf(a.out, "\n%sed; run the commands above on that system\n", what)
		return nil
	}
	return a.runAll(ctx, plan.Commands, what)
}

// commandTime bounds one command: grub-mkconfig looks at every disk.
const commandTime = 5 * time.Minute

func (a *app) runAll(ctx context.Context, commands [][]string, what string) error {
	for _, c := range commands {
		ctx, cancel := context.WithTimeout(ctx, commandTime)
		out, err := exec.CommandContext(ctx, c[0], c[1:]...).CombinedOutput()
		cancel()
		if err != nil {
			line := strings.Join(c, " ")
			return health.Problem{
				Code: "KO-2312", Severity: health.Failure, Title: fmt.Sprintf("%s: %v: %s", line, err, lastLine(out)),
				Fix: "the files are changed; run it again by hand: " + line,
			}
		}
	}
	fmt.Fprintf(a.out, "\n%sed; it is in force with the next boot\n", what)
	return nil
}

func lastLine(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return lines[len(lines)-1]
}

// recoveryReport is what "recovery status" tells. Field names are stable.
type recoveryReport struct {
	Armed      bool       `json:"armed"`
	Folder     string     `json:"folder"`
	Loader     string     `json:"loader"`
	Left       int        `json:"left"` // tries of the loader's counter, -1 where it does not count
	Attempt    int        `json:"attempt"`
	Mode       boot.Mode  `json:"mode"` // of this boot
	Next       boot.Mode  `json:"next"`
	Recoveries int        `json:"recoveries"`
	State      boot.State `json:"state"`
	Wrong      []string   `json:"wrong"`
	// Keys are the organisation's by which fixes are verified here, and Vendors how many providers' vendors have some.
	Keys    int `json:"keys"`
	Vendors int `json:"vendors"`
	// Rehearsal is the last one's report.
	Rehearsal *rehearsal.Report `json:"rehearsal,omitempty"`
}

// known fills in what lies in Keepout's folder; what cannot be read is not told.
func (r *recoveryReport) known() {
	dir := esp.Open(r.Folder)
	if text, err := readBounded(filepath.Join(dir.Join(esp.Trust), intent.TrustFile), maxKeys); err == nil {
		if trust, err := intent.ParseTrust(text); err == nil {
			r.Keys, r.Vendors = len(trust.Organisation.Keys), len(trust.Vendors)
		}
	}
	if last, err := rehearsal.Read(dir); err == nil {
		r.Rehearsal = &last
	}
}

// maxKeys bounds the file of keys, in bytes.
const maxKeys = 64 << 10

func (a *app) recoveryStatusCommand() *cobra.Command {
	var root string
	cmd := &cobra.Command{
		Use: "status", Short: "How the last boots went, and what the next will be (exit 3 when not as configured)",
		Args: exactArgs(0, "no arguments"),
		RunE: func(*cobra.Command, []string) error {
			r, err := recoveryStatus(root)
			if err != nil {
				return err
			}
			if a.output == "json" {
				err = printJSON(a.out, r)
			} else {
				a.printRecovery(r)
			}
			if err == nil && (!r.Armed || r.Mode != boot.Normal || len(r.Wrong) > 0) {
				return exit(exitDegraded)
			}
			return err
		},
	}
	cmd.Flags().StringVar(&root, "root", "/", "the system in this folder in place of the running one")
	return cmd
}

func recoveryStatus(root string) (*recoveryReport, error) {
	g := bootguard.Guard{Root: root, Now: time.Now}
	s, err := g.Status()
	if err != nil {
		return nil, fmt.Errorf("recovery status: %w", err)
	}
	armed, err := arming.Armed(root)
	if err != nil {
		return nil, fmt.Errorf("recovery status: %w", err)
	}
	r := &recoveryReport{
		Armed: armed, Folder: s.Dir, Loader: s.Loader, Left: s.Left, Attempt: s.State.Attempt(), Mode: s.State.Mode,
		Next: s.State.Next, Recoveries: s.State.Recoveries, State: s.State, Wrong: append([]string{}, s.Wrong...),
	}
	r.known()
	return r, nil
}

func (a *app) printRecovery(r *recoveryReport) {
	state := "armed"
	if !r.Armed {
		state = "not armed: keepout recovery arm"
	}
	fmt.Fprintf(a.out, "recovery    %s\nfolder      %s\n", state, r.Folder)
	counter := "it does not count"
	if r.Left >= 0 {
		counter = plural(r.Left, "try") + " left"
		if r.Left != 1 {
			counter = fmt.Sprintf("%d tries left", r.Left)
		}
	}
	fmt.Fprintf(a.out, "loader      %s, %s\nthis boot   attempt %d, %s\nnext boot   %s\n", r.Loader, counter, r.Attempt,
		r.Mode, r.Next)
	fmt.Fprintf(a.out, "recoveries  %d of %d\n", r.Recoveries, boot.MaxRecoveries)
	if s := r.State.Suspect.String(); s != "" {
		fmt.Fprintf(a.out, "suspect     %s\n", s)
	}
	if o := r.State.Orders; !o.None() {
		fmt.Fprintf(a.out, "orders      by %s: safe mode %v, not started: %v, last-known-good: %v\n", o.Source, o.Safe,
			o.Disabled, o.LastKnownGood)
	}
	fixes := "verified by " + plural(r.Keys, "key") + " of the organisation and of " + plural(r.Vendors, "vendor")
	if r.Keys < 2 && r.Vendors == 0 {
		fixes = "none is believed: keepout recovery arm says which keys are missing"
	}
	fmt.Fprintf(a.out, "fixes       %s\n", fixes)
	if t := r.Rehearsal; t != nil {
		result := "passed"
		if !t.Passed {
			result = "did not pass: " + t.Trouble
		}
		fmt.Fprintf(a.out, "rehearsal   %s, %s\n", t.Time.Format(time.RFC3339), result)
	}
	for _, e := range r.State.History {
		fmt.Fprintf(a.out, "%s  %s %s %s\n", e.At.Format(time.RFC3339), e.What, e.Mode, e.Why)
	}
	for _, wrong := range r.Wrong {
		fmt.Fprintln(a.out, a.paint.in(yellow, "! "+wrong))
	}
}

func (a *app) recoveryReleaseCommand() *cobra.Command {
	var root string
	cmd := &cobra.Command{
		Use: "release", Short: "Take back safe mode, orders and caution: the next boot is as configured",
		Args: exactArgs(0, "no arguments"),
		RunE: func(*cobra.Command, []string) error {
			g := bootguard.Guard{Root: root, Now: time.Now}
			if err := g.Release("a person asked for it"); err != nil {
				return health.Problem{
					Code: "KO-2313", Severity: health.Failure, Title: fmt.Sprintf("the boot state cannot be changed: %v", err),
					Fix: "run it as root, with the ESP mounted and writable",
				}
			}
			fmt.Fprintln(a.out, "the next boot is as configured")
			return nil
		},
	}
	cmd.Flags().StringVar(&root, "root", "/", "the system in this folder in place of the running one")
	return cmd
}
