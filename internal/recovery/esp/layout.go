//go:build unix

package esp

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/keepout-security/keepout/internal/durable"
)

// Names below Keepout's folder. The recovery images and their kernels are pairs: a and b are never both replaced
// before a boot was good.
const (
	StateA    = "state-a.json"
	StateB    = "state-b.json"
	CrumbFile = "crumb"   // what is being started; the core's
	GrubEnv   = "grubenv" // GRUB's own counter
	KernelA   = "vmlinuz-a"
	KernelB   = "vmlinuz-b"
	ImageA    = "recovery-a.cpio"
	ImageB    = "recovery-b.cpio"
	UnifiedA  = "recovery-a.efi" // kernel, archive and parameters in one file that the owner signs; may be missing
	UnifiedB  = "recovery-b.efi"
	Config    = "config.json" // of the recovery environment
	Trust     = "trust"       // folder: the keys that remediations are verified with
	Intents   = "intents"     // folder: verified remediations that bootguard applies
	Diag      = "diag"        // folder: diagnostics bundles and crash records
	Rehearsal = "rehearsal"   // the next visit to the recovery environment is a test
)

// folder is the name of Keepout's folder on its partition.
const folder = "keepout"

// mounts are where the partition may be mounted, the likeliest first. /boot itself is the place of a machine with no
// EFI system partition.
func mounts() []string { return []string{"efi", "boot/efi", "boot"} }

// Find returns Keepout's folder below root, which is "/" on a running system: the first one that is there. The error
// matches fs.ErrNotExist when recovery was never armed.
func Find(root string) (string, error) {
	for _, m := range mounts() {
		dir := filepath.Join(root, m, folder)
		if info, err := os.Lstat(dir); err == nil && info.IsDir() {
			return dir, nil
		}
	}
	return "", &fs.PathError{Op: "find Keepout's folder on", Path: filepath.Join(root, "boot"), Err: fs.ErrNotExist}
}

// Place returns where Keepout's folder belongs below root: beside the boot loader's files, or on /boot.
func Place(root string) string {
	for _, m := range mounts() {
		for _, mark := range []string{"EFI", "loader"} {
			if info, err := os.Stat(filepath.Join(root, m, mark)); err == nil && info.IsDir() {
				return filepath.Join(root, m, folder)
			}
		}
	}
	return filepath.Join(root, "boot", folder)
}

// Disk writes to a file system that may be FAT: a mode that it cannot keep is no error there.
func Disk() durable.Disk { return disk{durable.OS()} }

type disk struct{ durable.Disk }

func (d disk) CreateTemp(dir string) (durable.File, error) {
	f, err := d.Disk.CreateTemp(dir)
	if err != nil {
		return nil, err
	}
	return file{f}, nil
}

func (d disk) Create(name string, mode fs.FileMode) (durable.File, error) {
	f, err := d.Disk.Create(name, mode)
	if err != nil {
		return nil, err
	}
	return file{f}, nil
}

func (d disk) Chmod(name string, mode fs.FileMode) error {
	return unlessRefused(d.Disk.Chmod(name, mode))
}

type file struct{ durable.File }

func (f file) Chmod(mode fs.FileMode) error { return unlessRefused(f.File.Chmod(mode)) }

// unlessRefused forgives EPERM: vfat answers that to a mode it has no bits for (fat_allow_set_mode in the kernel).
func unlessRefused(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return nil
	}
	return err
}
