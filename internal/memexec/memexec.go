// Package memexec keeps a copy of a program in memory, to be executed from there: the program can be started when its
// file is gone, and starting it raises no event of any file system that is watched.
package memexec

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Load copies the program at path into memory. It is executed under its descriptor in /proc/self/fd, and is closed on
// exec. Nobody can change it any more, also not who executes it and comes by its descriptor.
// Load fails where the host forbids it (vm.memfd_noexec=2).
func Load(name, path string) (*os.File, error) {
	from, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("program: %w", err)
	}
	defer func() { _ = from.Close() }() // only read
	// Hosts with vm.memfd_noexec=1 want MFD_EXEC said; kernels before 6.3 do not know it.
	to, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) {
		to, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	for n := 1; n > 0; {
		if n, err = unix.Sendfile(to, int(from.Fd()), nil, 1<<30); err != nil {
			return nil, errors.Join(fmt.Errorf("copy %s into memory: %w", path, err), unix.Close(to))
		}
	}
	const seals = unix.F_SEAL_SEAL | unix.F_SEAL_WRITE | unix.F_SEAL_GROW | unix.F_SEAL_SHRINK
	if _, err := unix.FcntlInt(uintptr(to), unix.F_ADD_SEALS, seals); err != nil {
		return nil, errors.Join(fmt.Errorf("seal %s: %w", name, err), unix.Close(to))
	}
	return os.NewFile(uintptr(to), name), nil
}
