package rescue

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/internal/recovery/modindex"
	"github.com/keepout-security/keepout/internal/recovery/settings"
)

const (
	maxDevices   = 8192
	moduleRounds = 6 // a module may bring devices that other modules serve: bus, controller, disk
)

// LoadModules loads those of the image's modules that this machine's devices ask for, until no more devices show up. Its
// errors are for the log: a machine without one of its cards still recovers. root is where the image was unpacked.
func LoadModules(root string, log func(format string, args ...any)) {
	data, err := os.ReadFile(filepath.Join(root, settings.ModulesFile))
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil {
		log("modules: %v", err)
		return
	}
	index, err := modindex.Parse(data)
	if err != nil {
		log("modules: %v", err)
		return
	}
	loaded := map[string]bool{}
	for range moduleRounds {
		modules, err := index.For(modaliases("/sys/devices"))
		if err != nil {
			log("modules: %v", err)
		}
		more := 0
		for _, m := range modules {
			if loaded[m.Name] {
				continue
			}
			loaded[m.Name] = true
			more++
			// Without such a device or such firmware, some modules refuse to be loaded.
			if err := loadModule(filepath.Join(root, m.File)); err != nil && !errors.Is(err, unix.ENODEV) {
				log("module %s: %v", m.Name, err)
			}
		}
		if more == 0 {
			return
		}
	}
}

// loadModule hands a module to the kernel, which checks its signature.
func loadModule(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("load: %w", err)
	}
	return nil
}

// modaliases lists what the devices below a folder of sysfs say they are.
func modaliases(dir string) []string {
	var out []string
	seen := map[string]bool{}
	_ = filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() != "modalias" {
			return nil //nolint:nilerr // a device that went away meanwhile is of no interest
		}
		text, err := os.ReadFile(file)
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

// commandLine returns the kernel's parameters.
func commandLine() []string {
	text, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return nil
	}
	return strings.Fields(string(text))
}
