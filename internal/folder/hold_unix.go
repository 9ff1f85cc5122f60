//go:build linux || darwin

package folder

import (
	"errors"
	"fmt"
	"io"
	"syscall"
)

func (f *Folder) hold(alone bool) (io.Closer, error) {
	dir, err := f.root.Open(".")
	if err != nil {
		return nil, fmt.Errorf("hold the folder: %w", err)
	}
	how := syscall.LOCK_SH
	if alone {
		how = syscall.LOCK_EX
	}
	for {
		err = syscall.Flock(int(dir.Fd()), how|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	switch {
	case err == nil:
		return dir, nil
	case errors.Is(err, syscall.EWOULDBLOCK):
		err = ErrHeld
	}
	return nil, errors.Join(fmt.Errorf("hold the folder: %w", err), dir.Close())
}
