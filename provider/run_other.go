//go:build !linux

package provider

import (
	"context"
	"errors"
	"fmt"
	"os"
)

// Main reports that providers run on Linux only, and exits with 1.
func Main(e Engine) {
	fmt.Fprintln(os.Stderr, "provider:", Run(context.Background(), e, 0, 0))
	os.Exit(1)
}

// Run is not supported on this system.
func Run(context.Context, Engine, int, int) error { return errors.ErrUnsupported }

type descriptor int

func (descriptor) ReadAt([]byte, int64) (int, error) { return 0, errors.ErrUnsupported }
