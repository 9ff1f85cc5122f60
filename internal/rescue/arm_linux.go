package rescue

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/keepout-security/keepout/internal/recovery/esp"
	"github.com/keepout-security/keepout/internal/recovery/loader"
)

// arm lets the boot loader try the system again. With GRUB that is a number; with systemd-boot, which counts in the
// names of entries and has put the system's at 0, it is those names that begin as the settings say: another
// installation may lie on the same partition.
func arm(dir *esp.Dir, entries string, tries, visits int) error {
	if _, err := os.Stat(dir.Join(esp.GrubEnv)); err == nil {
		return loader.Detect("/", dir).Arm(tries, visits)
	}
	if entries == "" {
		return nil
	}
	volume := filepath.Dir(dir.Path())
	var errs []error
	for _, folder := range []string{filepath.Join(volume, "loader", "entries"), filepath.Join(volume, "EFI", "Linux")} {
		errs = append(errs, armEntries(folder, entries, tries))
	}
	return errors.Join(errs...)
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
