//go:build unix

package esp

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// Diagnostics bundles in the folder Diag. Their names go on with the time, so that they sort by age.
const (
	BundlePrefix = "bundle-"
	MaxBundles   = 8 // that stay
)

// WithRoom calls write, and where the file system is full again whenever fewer old bundles are left: it is small, and
// they were sent or are of no more use. The error is that of the last call.
func (d *Dir) WithRoom(write func() error) error {
	err := write()
	for keep := MaxBundles / 2; errors.Is(err, syscall.ENOSPC); keep /= 2 {
		d.KeepBundles(keep)
		if err = write(); keep == 0 {
			break
		}
	}
	return err
}

// KeepBundles removes all but so many of the newest bundles. What cannot be listed or removed stays.
func (d *Dir) KeepBundles(most int) {
	entries, _ := os.ReadDir(d.Join(Diag)) // sorted by name
	entries = slices.DeleteFunc(entries, func(e fs.DirEntry) bool {
		return !strings.HasPrefix(e.Name(), BundlePrefix) || !e.Type().IsRegular()
	})
	for _, e := range entries[:max(0, len(entries)-most)] {
		_ = os.Remove(filepath.Join(d.Join(Diag), e.Name()))
	}
}
