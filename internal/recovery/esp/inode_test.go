//go:build unix

package esp_test

import (
	"fmt"
	"io/fs"
	"syscall"
)

// inode tells a file from another one of the same name.
func inode(info fs.FileInfo) string {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return fmt.Sprint(s.Ino, info.Size())
	}
	return ""
}
