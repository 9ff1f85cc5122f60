package intent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/keepout-security/keepout/internal/durable"
	"github.com/keepout-security/keepout/internal/recovery/esp"
	"github.com/keepout-security/keepout/internal/recovery/remediation"
)

// unsent is how many bundles stay whatever the system wants to remember: the last visit to the recovery environment may
// have found nobody to send its own to, and then it is all that people have of it.
const unsent = 1

// memory is what was believed before. Last and Before let a fix be applied again whose orders a power cut may have
// lost.
type memory struct {
	State  remediation.State `json:"state"`
	Last   string            `json:"last,omitempty"` // SHA-256 of the envelope that led to State
	Before remediation.State `json:"before"`
}

func recall(read reading, dir *esp.Dir) (memory, error) {
	var m memory
	data, err := read(dir.Join(memoryFile), maxMemory)
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err != nil {
		return m, err
	}
	return decode(data)
}

// remembered is what was believed before. Where that is damaged it is an empty memory, and lost says so: a machine must
// be able to recover, and what is taken back now must hold at least. Where it cannot be read it is an error, for it may
// be whole: to write another one over it would forget what was taken, and what was taken back.
func remembered(read reading, dir *esp.Dir) (m memory, lost string, err error) {
	m, err = recall(read, dir)
	switch {
	case unread(err):
		return memory{}, "", unreadable("what was believed before", err)
	case err != nil:
		return memory{}, fmt.Sprintf("which fixes were taken, and taken back, is forgotten: %v", err), nil
	}
	return m, "", nil
}

func decode(data []byte) (m memory, err error) {
	if err := json.Unmarshal(data, &m); err != nil {
		return memory{}, fmt.Errorf("what was believed before: %w", err)
	}
	for _, s := range []remediation.State{m.State, m.Before} {
		text, err := json.Marshal(s)
		if err != nil {
			return memory{}, err
		}
		if _, err := remediation.Remember(text); err != nil {
			return memory{}, err
		}
	}
	return m, nil
}

// reading reads a file of at most limit bytes; read does.
type reading func(file string, limit int64) ([]byte, error)

func read(file string, limit int64) ([]byte, error) {
	info, err := os.Lstat(file)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > limit {
		return nil, fmt.Errorf("%s is no file of at most %d bytes", filepath.Base(file), limit)
	}
	return os.ReadFile(file)
}

// unread reports whether a file may be there and whole, and the disk does not give it: nothing follows from that.
func unread(err error) bool {
	var disk *fs.PathError
	return errors.As(err, &disk) && !errors.Is(err, fs.ErrNotExist)
}

func unreadable(what string, err error) error {
	return fmt.Errorf("%s cannot be read now: %w", what, cause(err))
}

// keep remembers. Old bundles may have to make room for that, but for so many of the newest.
func keep(dir *esp.Dir, m memory, least int) error {
	data, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("remember the fix: %w", err)
	}
	return dir.WithRoom(least, func() error {
		return durable.WriteFileOn(esp.Disk(), dir.Join(memoryFile), data, 0o600)
	})
}

// cause is what the system said, without the paths: a history of boots has few bytes for it.
func cause(err error) error {
	var no syscall.Errno
	if errors.As(err, &no) {
		return no
	}
	return err
}
