//go:build linux

package loader

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/keepout-security/keepout/internal/durable"
	"github.com/keepout-security/keepout/internal/recovery/esp"
)

// Entries of the recovery environment. systemd-boot puts entries with a sort-key first and orders the others by name,
// the newest version first, and in a version nothing but "~" is older than "-" (UAPI.10). So these have no sort-key and
// begin with "-": they come after everything that still has tries, whatever it is called, and are no default before.
// "~" would do the same, but systemd's own tools take no entry with such a name. The first has one try, so that the
// second is started when the first does not come up; the second has no counter.
const (
	RecoveryPrefix = "-keepout-recovery"
	RecoveryEntry  = RecoveryPrefix + "-2.conf"
	RecoveryEntry2 = RecoveryPrefix + "-1.conf"
)

// leastSorting is the version of systemd-boot from which on names are compared so.
const leastSorting = 250

var bootVersion = regexp.MustCompile(`^systemd-boot (\d{1,6})`)

// Sorts reports whether a systemd-boot, by its LoaderInfo, puts the recovery environment's entries last. One whose
// version is not known is taken to be new.
func Sorts(info string) bool {
	m := bootVersion.FindStringSubmatch(info)
	if m == nil {
		return true
	}
	version, err := strconv.Atoi(m[1])
	return err == nil && version >= leastSorting
}

// systemdBoot is systemd-boot.
type systemdBoot struct {
	vars Variables
	dir  *esp.Dir
	root string
}

func (*systemdBoot) Kind() string { return SystemdBoot }

// booted is the entry this system was started with: its folder below the partition, and its name then.
// LoaderBootCountPath is set when it had a counter; LoaderEntrySelected names it without one.
func (s *systemdBoot) booted() (folder string, name EntryName, err error) {
	if file, err := s.vars.Get("LoaderBootCountPath"); err == nil {
		file = path.Clean("/" + strings.ReplaceAll(file, `\`, "/"))
		name, err := ParseEntryName(path.Base(file))
		return path.Dir(file), name, err
	}
	id, err := s.vars.Get("LoaderEntrySelected")
	if err != nil {
		return "", EntryName{}, err
	}
	name, err = ParseEntryName(id)
	if strings.EqualFold(name.Ext, ".efi") {
		return "/EFI/Linux", name, err
	}
	return "/loader/entries", name, err
}

// Left looks at the name that the entry has now: since this system was started with it, a good boot may have counted
// anew. Where it has no counter any more, or is not found, the name it was started with says what the loader counted.
func (s *systemdBoot) Left() int {
	folder, name, err := s.booted()
	if err != nil {
		return -1
	}
	for _, dir := range s.folders(folder) {
		names, err := NamesOf(dir, name)
		if err != nil {
			continue
		}
		if now, err := ParseEntryName(names[0]); err == nil && now.Counted {
			name = now
		}
		break
	}
	if !name.Counted {
		return -1
	}
	return name.Left
}

func (s *systemdBoot) Arm(tries, visits int) error {
	folder, name, err := s.booted()
	if err != nil {
		return fmt.Errorf("the entry of this system: %w", err)
	}
	if err := s.rename(folder, name, tries); err != nil {
		return err
	}
	if visits > 0 {
		return nil
	}
	recovery, err := ParseEntryName(RecoveryEntry)
	if err != nil {
		return err
	}
	err = Count(filepath.Join(filepath.Dir(s.dir.Path()), "loader", "entries"), recovery, 1)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // the recovery environment is not installed
	}
	return err
}

// folders are where a folder of the loader's may be mounted: on the ESP, or XBOOTLDR.
func (s *systemdBoot) folders(folder string) []string {
	folder = filepath.FromSlash(folder)
	return []string{
		filepath.Join(filepath.Dir(s.dir.Path()), folder), filepath.Join(s.root, "efi", folder),
		filepath.Join(s.root, "boot", folder), filepath.Join(s.root, "boot", "efi", folder),
	}
}

// rename gives the entry a counter, on the partition that has it.
func (s *systemdBoot) rename(folder string, name EntryName, tries int) error {
	for _, dir := range s.folders(folder) {
		if err := Count(dir, name, tries); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return fmt.Errorf("entry %s of systemd-boot: %w", name.Plain(), fs.ErrNotExist)
}

// Count gives the entry in dir a counter of that many tries. Of all names that it may have, with a counter or without,
// exactly one is left: two would be two entries for the loader, one of them without a counter (systemd issue 33504).
// The newest file wins. The error matches fs.ErrNotExist when there is none.
func Count(dir string, name EntryName, tries int) error {
	names, err := NamesOf(dir, name)
	if err != nil {
		return err
	}
	found, err := ParseEntryName(names[0]) // the loader tells names in lower case
	if err != nil {
		return err
	}
	target := found.With(tries)
	if names[0] != target {
		if err := os.Rename(filepath.Join(dir, names[0]), filepath.Join(dir, target)); err != nil {
			return fmt.Errorf("count tries: %w", err)
		}
	}
	var errs []error
	for _, other := range names[1:] {
		if other != target {
			errs = append(errs, os.Remove(filepath.Join(dir, other)))
		}
	}
	return errors.Join(append(errs, durable.SyncDir(dir))...)
}

// NamesOf lists the names that an entry has in dir, with and without a counter, the newest file first. The error
// matches fs.ErrNotExist when there is none.
func NamesOf(dir string, name EntryName) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("entries: %w", err)
	}
	var names []string
	var newest time.Time
	for _, e := range entries {
		other, err := ParseEntryName(e.Name())
		if err != nil || !strings.EqualFold(other.Plain(), name.Plain()) || !e.Type().IsRegular() {
			continue
		}
		info, err := e.Info()
		if err != nil {
			continue
		}
		if names = append(names, e.Name()); len(names) == 1 || info.ModTime().After(newest) {
			newest = info.ModTime()
			names[0], names[len(names)-1] = names[len(names)-1], names[0]
		}
	}
	if len(names) == 0 {
		return nil, &fs.PathError{Op: "find entry", Path: filepath.Join(dir, name.Plain()), Err: fs.ErrNotExist}
	}
	return names, nil
}

func (s *systemdBoot) CanRecover() bool {
	if !s.dir.Recoverable() {
		return false
	}
	_, err := s.recoveryEntry()
	return err == nil
}

// recoveryEntry names the entry as the loader does: without its counter.
func (s *systemdBoot) recoveryEntry() (string, error) {
	dir := filepath.Join(filepath.Dir(s.dir.Path()), "loader", "entries")
	for _, id := range []string{RecoveryEntry, RecoveryEntry2} {
		name, err := ParseEntryName(id)
		if err != nil {
			return "", err
		}
		if _, err := NamesOf(dir, name); err == nil {
			return id, nil
		}
	}
	return "", fmt.Errorf("no entry of the recovery environment in %s: %w", dir, fs.ErrNotExist)
}

func (s *systemdBoot) ToRecovery() error {
	id, err := s.recoveryEntry()
	if err != nil {
		return err
	}
	return s.vars.Set("LoaderEntryOneShot", id)
}

func (s *systemdBoot) ToMenu() error { return s.vars.Set("LoaderConfigTimeoutOneShot", "menu-force") }
