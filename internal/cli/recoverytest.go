package cli

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/keepout-security/keepout/internal/durable"
	"github.com/keepout-security/keepout/internal/health"
	"github.com/keepout-security/keepout/internal/recovery/esp"
	"github.com/keepout-security/keepout/internal/recovery/image"
	"github.com/keepout-security/keepout/internal/recovery/loader"
)

func (a *app) recoveryTestCommand() *cobra.Command {
	var root string
	var cancel bool
	cmd := &cobra.Command{
		Use:   "test",
		Short: "Go through the real recovery environment once at the next restart; it changes nothing and comes back",
		Args:  exactArgs(0, "no arguments"),
		RunE: func(*cobra.Command, []string) error {
			if err := a.rehearse(root, cancel); err != nil {
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
	return cmd
}

// rehearse marks the next visit as a rehearsal, and only then asks the loader for it: a visit without the mark counts.
func (a *app) rehearse(root string, cancel bool) error {
	path, err := esp.Find(root)
	if err != nil {
		return err
	}
	dir := esp.Open(path)
	mark := dir.Join(esp.Rehearsal)
	if cancel {
		if err := os.Remove(mark); err != nil && !os.IsNotExist(err) {
			return err
		}
		fmt.Fprintln(a.out, "taken back; if the loader still starts the recovery environment once, it counts as a visit")
		return nil
	}
	good := false
	for _, slot := range image.Slots() {
		_, err := image.Verify(path, slot)
		good = good || err == nil
	}
	if !good {
		return fmt.Errorf("no copy of the recovery image is good")
	}
	if err := durable.WriteFileOn(esp.Disk(), mark, []byte("rehearsal\n"), 0o600); err != nil {
		return err
	}
	if err := loader.Detect(root, dir).ToRecovery(); err != nil {
		_ = os.Remove(mark) // without the loader's word there is no visit that it could be about
		return err
	}
	fmt.Fprintln(a.out, "the next restart goes through the recovery environment and comes back: systemctl reboot")
	return nil
}
