package rescue

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/internal/recovery/modindex"
	"github.com/keepout-security/keepout/internal/recovery/settings"
)

const (
	moduleRounds = 6 // a module may bring devices that other modules serve: bus, controller, disk
)

// LoadModules loads those of the image's modules that this machine's devices ask for, until no more devices show up.
// Its errors are for the log: a machine without one of its cards still recovers. root is where the image was
// unpacked.
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
		modules, err := index.For(modindex.Devices("/sys/devices"))
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
