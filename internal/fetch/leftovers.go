package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/keepout-security/keepout/internal/durable"
	"github.com/keepout-security/keepout/internal/folder"
)

// heldPause is between two looks whether another process has cleaned up, which takes a moment.
const heldPause = 10 * time.Millisecond

// begin removes the temporary files that a power cut left, unless another process of this program is at work, whose
// files they may be, as with --from beside the service. Until what it returns is closed no other process removes those
// of this one. The error is about what stays; where the file system has no locks, that is all.
func (o *Options) begin(ctx context.Context) (io.Closer, error) {
	if err := os.MkdirAll(o.own(), 0o700); err != nil {
		return nil, fmt.Errorf("its folder: %w", err)
	}
	dir, err := folder.Open(o.own())
	if err != nil {
		return nil, err
	}
	defer func() { _ = dir.Close() }() // the hold lasts without it
	var errs []error
	alone, err := dir.Tidying()
	switch {
	case err == nil:
		for _, name := range []string{o.Staging, o.own()} {
			_, err := durable.CleanTemps(name)
			errs = append(errs, err)
		}
		errs = append(errs, alone.Close())
	case !errors.Is(err, folder.ErrHeld):
		return nil, err
	}
	for {
		hold, err := dir.Reading()
		if !errors.Is(err, folder.ErrHeld) {
			return hold, errors.Join(append(errs, err)...)
		}
		select { // another process begins, and cleans up
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(heldPause):
		}
	}
}
