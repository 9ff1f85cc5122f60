package guard

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/internal/guard/link"
)

// raiseFiles sets the limit of open files that a core inherits: as many as it has use for, or, without CAP_SYS_RESOURCE
// and if that is enough, as many as it may have.
func raiseFiles() error {
	var have unix.Rlimit
	err := unix.Getrlimit(unix.RLIMIT_NOFILE, &have)
	for _, n := range []uint64{link.MaxFiles + link.MaxKept, max(have.Max, link.MaxFiles)} {
		if err = unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: n, Max: n}); err == nil {
			return nil
		}
	}
	return fmt.Errorf("%d open files, of at most %d: %w", link.MaxFiles, have.Max, err)
}
