package daemon

import (
	"math"
	"os"
	"path/filepath"
	"reflect"
	"syscall"
	"time"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/config"
	"github.com/keepout-security/keepout/internal/control"
	"github.com/keepout-security/keepout/internal/guard/link"
)

// provingTime is how long everything that is watched is marked after a checkup, whoever wants it: who asks for one is
// about to see whether his own acts are noticed.
const provingTime = 2 * time.Minute

// checkup gathers what "keepout doctor" must know. It reads the configuration, the manifests and the self-test files
// again, so it is for people's questions only.
func (d *Daemon) checkup() control.Checkup {
	d.sensor.Prove(provingTime)
	c := d.config.Load()
	out := control.Checkup{
		Watch:     make([]control.CheckupWatch, 0, len(c.Watch)),
		Providers: make([]control.CheckupProvider, 0, len(c.Providers)),
		ContentMS: time.Duration(c.Budgets.Content).Milliseconds(),
		StallMS:   time.Duration(c.StallLimit).Milliseconds(),
		Config:    configOnDisk(d.opt.Config, c),
		Files:     openFiles(),
		ElapsedMS: time.Since(d.since).Milliseconds(), // by the monotonic clock
		Disk: control.CheckupDisk{
			StateDir: absolute(d.opt.StateDir), JournalDir: absolute(d.journalDir()),
			JournalBytes: bytesIn(d.journalDir()), JournalMax: int64(c.Journal.FileSize) * int64(c.Journal.Files),
		},
	}
	for _, w := range c.Watch {
		out.Watch = append(out.Watch, control.CheckupWatch{Path: w.Path, Events: w.Types()})
	}
	for i := range c.Providers {
		out.Providers = append(out.Providers, d.checkupProvider(&c.Providers[i]))
	}
	return out
}

// checkupProvider reads one provider's self-test object.
func (d *Daemon) checkupProvider(p *config.Provider) control.CheckupProvider {
	out := control.CheckupProvider{ID: p.ID, Mode: p.Mode, Events: []event.Type{}, FailClosed: p.OnFailure == "deny"}
	m, err := config.LoadManifest(filepath.Join(d.opt.ProvidersDir, p.ID))
	if err != nil {
		out.Problem = err.Error()
		return out
	}
	for _, e := range m.Events {
		if t, err := event.ParseType(e.Type); err == nil {
			out.Events = append(out.Events, t)
		}
	}
	if out.Selftest, err = m.Selftest(); err != nil {
		out.Problem = err.Error()
	}
	return out
}

// configOnDisk compares the configuration in force with the file that a reload would read.
func configOnDisk(path string, inForce *config.Loaded) control.CheckupConfig {
	out := control.CheckupConfig{Mode: inForce.Mode}
	onDisk, err := config.Load(path)
	if err != nil {
		out.Wrong = err.Error()
		return out
	}
	out.Changed = !reflect.DeepEqual(onDisk.Config, inForce.Config)
	return out
}

// openFiles counts the core's descriptors.
func openFiles() control.CheckupFiles {
	out := control.CheckupFiles{Wanted: link.MaxFiles}
	var l syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l) == nil {
		out.Limit = min(l.Cur, math.MaxInt64) // "no limit" must fit into a reader's signed number
	}
	if entries, err := os.ReadDir("/proc/self/fd"); err == nil {
		out.Open = len(entries)
	}
	return out
}

// bytesIn adds up the files of a folder.
func bytesIn(dir string) (total int64) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() {
			total += info.Size()
		}
	}
	return total
}

func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}
