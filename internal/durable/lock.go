package durable

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// ErrLocked matches (errors.Is) the error of Lock when another process owns the file.
var ErrLocked = errors.New("state folder in use")

// LockedError says who owns a lock.
type LockedError struct {
	Path string // the lock file
	PID  int    // the owner, as it wrote itself into the file; 0 when it cannot be read
}

// Error names the owner for people.
func (e *LockedError) Error() string {
	if e.PID == 0 {
		return "another keepoutd uses this state folder"
	}
	return fmt.Sprintf("another keepoutd (pid %d) uses this state folder", e.PID)
}

// Is makes errors.Is(err, ErrLocked) true.
func (e *LockedError) Is(target error) bool { return target == ErrLocked }

// maxPID bounds what is read from a lock file, in bytes.
const maxPID = 32

// A FileLock is an exclusive hold on a lock file. The kernel drops it when the process ends, however it
// ends, so a lock file that lies around means nothing. Keep it until the end: one that becomes garbage is
// closed.
type FileLock struct {
	file *os.File
}

// Lock takes the exclusive lock (flock(2); LockFileEx on Windows) of the lock file at path, creates the file if need
// be and writes this process's pid into it. It never waits: when another open file holds the lock, even one of this
// process, the error is a *LockedError, which matches ErrLocked. The descriptor is closed on exec, so children do
// not inherit the lock.
func Lock(path string) (*FileLock, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	if err := hold(f); err != nil {
		if errors.Is(err, errHeld) {
			err = &LockedError{Path: path, PID: owner(f)}
		} else {
			err = fmt.Errorf("lock %s: %w", path, err)
		}
		return nil, errors.Join(err, f.Close())
	}
	// The pid is for people. A full disk must not keep the daemon from starting, so its error does not count.
	if f.Truncate(0) == nil {
		_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	return &FileLock{file: f}, nil
}

// Close gives the lock up. The file stays: to remove it would let a process that has it open and one that
// creates it anew both hold "the" lock.
func (l *FileLock) Close() error {
	// Emptied while still held, so that nobody is told a pid that is gone.
	err := l.file.Truncate(0)
	return errors.Join(err, l.file.Close())
}

// owner reads the pid in a lock file, 0 when there is none.
func owner(f *os.File) int {
	text, err := io.ReadAll(io.NewSectionReader(f, 0, maxPID))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid < 0 {
		return 0
	}
	return pid
}
