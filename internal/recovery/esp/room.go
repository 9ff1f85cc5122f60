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

// WithRoom calls write, and where the file system is full again whenever fewer old bundles are left, but at least so
// many of the newest ones. The error is that of the last call.
//
// Nobody writes down which bundles were sent, so that each that goes may be the only copy. Of a visit to the
// recovery environment that found no server the newest one is all that people have: whoever can wait keeps that. In the
// recovery environment what is written is worth more, for the machine starts by it, and also the newest one may go.
func (d *Dir) WithRoom(least int, write func() error) error {
	err := write()
	for keep := max(MaxBundles/2, least); errors.Is(err, syscall.ENOSPC); keep = max(keep/2, least) {
		d.KeepBundles(keep)
		if err = write(); keep == least {
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
