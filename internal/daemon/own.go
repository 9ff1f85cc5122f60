package daemon

import (
	"log/slog"
	"path/filepath"
)

// own lists what is the platform's own and may never be denied: a provider that could deny it could keep the platform
// from being repaired.
func (d *Daemon) own() []string {
	paths := []string{"/etc/keepout"}
	for _, path := range []string{d.opt.Config, d.opt.StateDir, d.opt.RunDir, d.opt.ProvidersDir} {
		if abs, err := filepath.Abs(path); err == nil && path != "" {
			paths = append(paths, abs)
		}
	}
	return paths
}

// loadPackages reads what the distribution's packages own. Until it has, nothing is owned.
func (d *Daemon) loadPackages() {
	if err := d.packages.Load("/"); err != nil {
		d.log.Warn("not all packages could be read", slog.Any("error", err))
	}
	d.log.Debug("packages read", slog.Int("paths", d.packages.Len()))
}
