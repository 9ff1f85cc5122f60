package journal

import (
	"io"
	"os"

	"github.com/keepout-security/keepout/internal/durable"
)

// file is what the journal needs of an open file, so that tests can let a disk refuse.
type file interface {
	io.WriteCloser
	Sync() error
	Truncate(size int64) error
}

// disk opens files for appending.
type disk interface {
	create(path string) (file, error) // the file must not exist; its name is durable afterwards
	open(path string) (file, error)   // the file must exist
}

// fileMode keeps the journal from everybody but root and the daemon's group.
const fileMode = 0o640

type osDisk struct{}

func (osDisk) create(path string) (file, error) {
	f, err := durable.OpenAppend(path, fileMode)
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (osDisk) open(path string) (file, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return nil, err
	}
	return f, nil
}
