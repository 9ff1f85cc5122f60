//go:build unix

package durable

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// Flags for opening what somebody else may have put there.
const (
	noFollow = syscall.O_NOFOLLOW
	noWait   = syscall.O_NONBLOCK
)

// errHeld is what hold says of a lock that somebody has.
const errHeld = syscall.EWOULDBLOCK

func rename(from, to string) error { return os.Rename(from, to) }

// SyncDir makes the names in dir durable: files created, renamed or removed there before the call stay so
// after a power cut. A file system that cannot sync a folder answers EINVAL (fsync(2)); there is nothing
// more to do there, so that is not an error.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	err = d.Sync()
	if errors.Is(err, syscall.EINVAL) {
		err = nil
	}
	if err := errors.Join(err, d.Close()); err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	return nil
}

// hold takes the lock of an open file, without waiting.
func hold(f *os.File) error {
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}
