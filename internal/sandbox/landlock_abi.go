package sandbox

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// LandlockABI asks the kernel which version of Landlock it has, without using it: 1 and up, see
// landlock_create_ruleset(2). An error says that there is none: not built in, or not in the kernel's lsm= list.
func LandlockABI() (int, error) {
	version, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return 0, fmt.Errorf("landlock_create_ruleset: %w", errno)
	}
	return int(version), nil
}
