package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/spf13/cobra"

	"github.com/keepout-security/keepout/internal/health"
	"github.com/keepout-security/keepout/internal/recovery/esp"
	"github.com/keepout-security/keepout/internal/recovery/image"
	"github.com/keepout-security/keepout/internal/recovery/loader"
	"github.com/keepout-security/keepout/internal/recovery/rehearsal"
)

func (a *app) recoveryTestCommand() *cobra.Command {
	var root string
	var cancel, report bool
	cmd := &cobra.Command{
		Use:   "test",
		Short: "Go through the real recovery environment once at the next restart; it changes nothing and comes back",
		Args:  exactArgs(0, "no arguments"),
		RunE: func(*cobra.Command, []string) error {
			if report {
				return a.rehearsed(root)
			}
			err := a.rehearse(root, cancel)
			switch {
			case errors.Is(err, errNotJudged):
				return health.Problem{
					Code: "KO-2406", Severity: health.Failure, Title: fmt.Sprintf("no rehearsal yet: %v", err),
					Fix: "try again when keepout recovery status calls this boot good",
				}
			case err != nil:
				return health.Problem{
					Code: "KO-2404", Severity: health.Failure, Title: fmt.Sprintf("no rehearsal: %v", err),
					Fix: "keepout recovery arm --yes, then keepout recovery image build",
				}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&root, "root", "/", "the system in this folder in place of the running one")
	cmd.Flags().BoolVar(&cancel, "cancel", false, "take the wish back before the restart")
	cmd.Flags().BoolVar(&report, "report", false, "show what the last rehearsal found (exit 3 when it did not pass)")
	cmd.MarkFlagsMutuallyExclusive("cancel", "report")
	return cmd
}

// errNotJudged: the end of such a boot sets GRUB's counter anew, and with it takes the request back. So the next
// restart would be no rehearsal, but the next real visit would.
var errNotJudged = errors.New("this boot was not judged good yet, and its end would take the request back")

// rehearse asks for a rehearsal at the next restart, where an image is good.
func (a *app) rehearse(root string, cancel bool) error {
	path, err := esp.Find(root)
	if err != nil {
		return err
	}
	dir := esp.Open(path)
	if cancel {
		if err := rehearsal.Cancel(dir); err != nil {
			return err
		}
		fmt.Fprintln(a.out, "taken back; if the loader still starts the recovery environment once, it counts as a visit")
		return nil
	}
	if dir.State().State.Boot != "" {
		return errNotJudged
	}
	good := false
	for _, slot := range image.Slots() {
		_, err := image.Verify(path, slot)
		good = good || err == nil
	}
	if !good {
		return errors.New("no copy of the recovery image is good")
	}
	if err := rehearsal.Ask(dir, loader.Detect(root, dir)); err != nil {
		return err
	}
	fmt.Fprintln(a.out, "the next restart goes through the recovery environment and comes back: systemctl reboot")
	fmt.Fprintln(a.out, "then: keepout recovery test --report")
	return nil
}

// rehearsed shows the last rehearsal's report.
func (a *app) rehearsed(root string) error {
	path, err := esp.Find(root)
	var r rehearsal.Report
	if err == nil {
		r, err = rehearsal.Read(esp.Open(path))
	}
	if err != nil {
		title := fmt.Sprintf("the rehearsal's report: %v", err)
		if errors.Is(err, fs.ErrNotExist) {
			title = "there is no report of a rehearsal"
		}
		return health.Problem{
			Code: "KO-2405", Severity: health.Failure, Title: title, Fix: "keepout recovery test, then restart the machine",
		}
	}
	if a.output == "json" {
		err = printJSON(a.out, r)
	} else {
		a.printRehearsal(&r)
	}
	if err == nil && !r.Passed {
		return exit(exitDegraded)
	}
	return err
}

func (a *app) printRehearsal(r *rehearsal.Report) {
	result := "passed"
	if !r.Passed {
		result = "did not pass: " + r.Trouble
	}
	fmt.Fprintf(a.out, "rehearsal   %s, %s\n", r.Time.Format(time.RFC3339), result)
	if r.Kernel == "" { // the environment did not run
		return
	}
	fmt.Fprintf(a.out, "image       kernel %s, built %s\n", r.Kernel, r.Built.Format(time.DateOnly))
	for _, s := range r.Steps {
		mark := "done  "
		if !s.Done {
			mark = "FAILED"
		}
		detail := ""
		if s.Detail != "" {
			detail = ": " + s.Detail
		}
		fmt.Fprintf(a.out, "%s      %s%s\n", mark, s.Text, detail)
	}
	fmt.Fprintf(a.out, "times       screen %.1f s and restart %.1f s after the kernel's start\n", r.Screen, r.Whole)
}
