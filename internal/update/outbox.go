package update

import (
	"errors"
	"fmt"
	"os"
)

// MakeOutbox makes the folder from which the fetcher's user and group may send and in which only root may write: what
// is put there belongs to that group. Who is not root makes a folder of its own.
func MakeOutbox(dir string, user int) error {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return fmt.Errorf("outbox: %w", err)
	}
	if os.Geteuid() != 0 {
		return nil
	}
	if err := errors.Join(os.Lchown(dir, 0, user), os.Chmod(dir, 0o750|os.ModeSetgid)); err != nil {
		return fmt.Errorf("outbox: %w", err)
	}
	return nil
}
