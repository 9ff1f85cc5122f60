package durable

import (
	"fmt"
	"os"

	"golang.org/x/sys/windows"
)

// Windows opens what a link leads to. The control plane's folders are its own, so nobody else puts links there.
const (
	noFollow = 0
	noWait   = 0
)

// errHeld is what hold says of a lock that somebody has (LockFileEx).
const errHeld = windows.ERROR_LOCK_VIOLATION

// lockAt is where the lock lies: far behind the process's number, which others may read meanwhile.
const lockAt = 1 << 30

// rename returns when the new name is on the disk (MoveFileEx, MOVEFILE_WRITE_THROUGH), because a folder cannot be
// synced here.
func rename(from, to string) error {
	source, err := windows.UTF16PtrFromString(from)
	if err != nil {
		return fmt.Errorf("rename %s: %w", from, err)
	}
	target, err := windows.UTF16PtrFromString(to)
	if err != nil {
		return fmt.Errorf("rename to %s: %w", to, err)
	}
	const how = windows.MOVEFILE_REPLACE_EXISTING | windows.MOVEFILE_WRITE_THROUGH
	if err := windows.MoveFileEx(source, target, how); err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return nil
}

// SyncDir is for systems on which a folder can be synced. Windows has no such call: NTFS keeps its names in a journal,
// and renames are written through.
func SyncDir(string) error { return nil }

// hold takes the lock of an open file, without waiting.
func hold(f *os.File) error {
	const how = windows.LOCKFILE_EXCLUSIVE_LOCK | windows.LOCKFILE_FAIL_IMMEDIATELY
	return windows.LockFileEx(windows.Handle(f.Fd()), how, 0, 1, 0, &windows.Overlapped{Offset: lockAt})
}
