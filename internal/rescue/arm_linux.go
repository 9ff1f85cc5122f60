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
	return eachEntry(ctx, dir, c, func(folder string, name loader.EntryName) error {
		if name.Left > 0 {
			return nil
		}
		return loader.Count(folder, name, tries)
	})
}

// left is what the loader's counter stands at, -1 where it has none: with systemd-boot, the most tries that an entry of
// the system has. dir may be nil.
func left(ctx context.Context, dir *esp.Dir, c *settings.Config) (int, error) {
	if dir == nil {
		return -1, nil
	}
	if _, err := os.Stat(dir.Join(esp.GrubEnv)); err == nil {
		return loader.Detect("/", dir).Left(), nil
	}
	most := -1
	err := eachEntry(ctx, dir, c, func(_ string, name loader.EntryName) error {
		most = max(most, name.Left)
		return nil
	})
	return most, err
}

// eachEntry goes through the system's entries of systemd-boot that have a counter, also on the second file system,
// which is mounted for that only. It does all that it can, whatever fails.
func eachEntry(
	ctx context.Context, dir *esp.Dir, c *settings.Config, do func(folder string, name loader.EntryName) error,
) error {
	if c.Entries == "" {
		return nil
	}
	err := eachOn(filepath.Dir(dir.Path()), c.Entries, do)
	if c.Boot == (settings.Volume{}) {
		return err
	}
	if mountErr := mountVolume(ctx, c.Boot, bootDir); mountErr != nil {
		return errors.Join(err, mountErr)
	}
	return errors.Join(err, eachOn(filepath.Join(bootDir, c.Boot.Dir), c.Entries, do), unix.Unmount(bootDir, 0))
}

// eachOn goes through the entries on one file system.
func eachOn(volume, prefix string, do func(folder string, name loader.EntryName) error) error {
	var errs []error
	for _, folder := range []string{filepath.Join(volume, "loader", "entries"), filepath.Join(volume, "EFI", "Linux")} {
		files, err := os.ReadDir(folder)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		errs = append(errs, err)
		for _, f := range files {
			name, err := loader.ParseEntryName(f.Name())
			if err == nil && strings.HasPrefix(name.Stem, prefix) && name.Counted {
				errs = append(errs, do(folder, name))
			}
		}
	}
	return errors.Join(errs...)
}
