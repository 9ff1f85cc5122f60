package crash

import (
	"fmt"
	"os"
	"path/filepath"
)

// Folders are where the recovery environment leaves its records: keepout/diag on the ESP or the boot file system, at
// the places where distributions mount them.
func Folders() []string {
	points := []string{"/boot/efi", "/efi", "/boot"}
	out := make([]string, 0, len(points))
	for _, boot := range points {
		out = append(out, filepath.Join(boot, "keepout", "diag"))
	}
	return out
}

// Saved reads the records of a folder, or, if it is empty, of the first of Folders that has any; the newest come first.
// What cannot be read is an error only where nothing could.
func Saved(dir string) ([]Record, error) {
	dirs := []string{dir}
	if dir == "" {
		dirs = Folders()
	}
	var firstErr error
	for _, d := range dirs {
		list, err := List(os.DirFS(d))
		if len(list) > 0 {
			return list, nil
		}
		if err != nil && firstErr == nil {
			firstErr = fmt.Errorf("%s: %w", d, err)
		}
	}
	return nil, firstErr
}
