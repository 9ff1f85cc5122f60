package modindex

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
)

const maxDevices = 8192

// Devices lists what the devices below a folder of sysfs say they are.
func Devices(dir string) []string {
	var out []string
	seen := map[string]bool{}
	_ = filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() != "modalias" {
			return nil //nolint:nilerr // a device that went away meanwhile is of no interest
		}
		text, err := os.ReadFile(file) //nolint:gosec // sysfs is the kernel's: nobody can put links there
		if alias := string(bytes.TrimSpace(text)); err == nil && alias != "" && !seen[alias] {
			seen[alias] = true
			out = append(out, alias)
		}
		if len(out) >= maxDevices {
			return fs.SkipAll
		}
		return nil
	})
	return out
}
