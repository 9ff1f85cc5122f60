package rescue

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/internal/recovery/esp"
	"github.com/keepout-security/keepout/internal/recovery/loader"
	"github.com/keepout-security/keepout/internal/recovery/settings"
)

// arm lets the boot loader try the system again. With GRUB that is a number; with systemd-boot, which counts in the
// names of entries and has put the system's at 0, it is those names that begin as the settings say: another
// installation may lie on the same partition.
func arm(ctx context.Context, dir *esp.Dir, c *settings.Config, tries, visits int) error {
	if _, err := os.Stat(dir.Join(esp.GrubEnv)); err == nil {
		return loader.Detect("/", dir).Arm(tries, visits)
	}
	if c.Entries == "" {
		return nil
	}
	err := armVolume(filepath.Dir(dir.Path()), c.Entries, tries)
	if c.Boot != (settings.Volume{}) {
		err = errors.Join(err, armSecond(ctx, c, tries))
	}
	return err
}

// armSecond does the same on the second file system, which is mounted for that only.
func armSecond(ctx context.Context, c *settings.Config, tries int) error {
	if err := mountVolume(ctx, c.Boot, bootDir); err != nil {
		return err
	}
	err := armVolume(filepath.Join(bootDir, c.Boot.Dir), c.Entries, tries)
	return errors.Join(err, unix.Unmount(bootDir, 0))
}

// armVolume goes through the entries on one file system.
func armVolume(volume, entries string, tries int) error {
	return errors.Join(
		armEntries(filepath.Join(volume, "loader", "entries"), entries, tries),
		armEntries(filepath.Join(volume, "EFI", "Linux"), entries, tries))
}

func armEntries(folder, prefix string, tries int) error {
	files, err := os.ReadDir(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var errs []error
	for _, f := range files {
		name, err := loader.ParseEntryName(f.Name())
		if err != nil || !strings.HasPrefix(name.Stem, prefix) || !name.Counted || name.Left > 0 {
			continue
		}
		errs = append(errs, loader.Count(folder, name, tries))
	}
	return errors.Join(errs...)
}
