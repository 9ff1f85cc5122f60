package testenv

import (
	"os"

	"golang.org/x/sys/unix"
)

// lock takes the file's exclusive lock without waiting, making the file if need be. Closing the file, or the
// end of the process, releases it.
func lock(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}
