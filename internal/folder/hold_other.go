//go:build !linux && !darwin

package folder

import (
	"errors"
	"io"
)

// hold is not to be had: nothing is tidied up there.
func (*Folder) hold(bool) (io.Closer, error) { return nil, errors.ErrUnsupported }
