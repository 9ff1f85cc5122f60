package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/arbiter"
	"github.com/keepout-security/keepout/internal/config"
	"github.com/keepout-security/keepout/internal/control"
	"github.com/keepout-security/keepout/internal/docket"
	"github.com/keepout-security/keepout/internal/durable"
	"github.com/keepout-security/keepout/internal/guard/link"
	"github.com/keepout-security/keepout/internal/health"
	"github.com/keepout-security/keepout/internal/journal"
	"github.com/keepout-security/keepout/internal/owned"
	"github.com/keepout-security/keepout/internal/pardon"
	"github.com/keepout-security/keepout/internal/roster"
	"github.com/keepout-security/keepout/internal/sandbox"
	"github.com/keepout-security/keepout/internal/sensor"
	"github.com/keepout-security/keepout/internal/sensor/fanotify"
	"github.com/keepout-security/keepout/internal/sensor/lease"
	"github.com/keepout-security/keepout/internal/store"
	"github.com/keepout-security/keepout/internal/supervisor"
	"github.com/keepout-security/keepout/internal/trail"
)

// Options are the command line of the daemon.
type Options struct {
	Config       string
	StateDir     string
	RunDir       string
	ProvidersDir string
	Version      string
}

// Daemon is the core.
type Daemon struct {
	opt   Options
	log   *slog.Logger
	since time.Time

	reloading sync.Mutex
	boot      bootOrder
	config    atomic.Pointer[config.Loaded]
	mode      atomic.Pointer[event.Mode] // set by an administrator since the last load; nil: as configured

	lock     *durable.FileLock
	journal  *journal.Journal
	trail    *trail.Trail
	pardons  *pardon.List
	packages *owned.Set
	store    *store.Store
	guard    *link.Link
	gap      link.Gap // before this core
	leases   *lease.Set
	docket   *docket.Docket
	roster   *roster.Roster
	updates  updates
	sensor   *sensor.Sensor
	control  *control.Server
	noticed  noticed
}

// Run runs the core until ctx ends; signals arrive on reload. Errors of the start are health.Problems or
// config.Errors.
func Run(ctx context.Context, opt Options, log *slog.Logger, reload <-chan os.Signal) error {
	d := &Daemon{opt: opt, log: log, since: time.Now(), packages: owned.New()}
	go d.loadPackages()
	if err := d.start(); err != nil {
		return errors.Join(err, d.stop())
	}
	d.tell(sd.SdNotifyReady)
	log.Info("watching", slog.String("mode", string(d.Policy().Mode)), slog.String("config", opt.Config))
	look := time.NewTicker(healthEvery)
	defer look.Stop()
	for {
		select {
		case <-look.C:
			d.status()
		case <-ctx.Done():
			d.tell(sd.SdNotifyStopping)
			log.Info("stopping")
			return d.stop()
		case <-reload:
			d.tell(sd.SdNotifyReloading)
			if err := d.reload(); err != nil {
				log.Error("configuration kept as it was", slog.Any("error", err))
			}
			d.tell(sd.SdNotifyReady)
		}
	}
}

// tell informs systemd, where it started us.
func (d *Daemon) tell(state string) {
	if state == sd.SdNotifyReloading {
		var ts unix.Timespec
		if unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) == nil {
			state += fmt.Sprintf("\nMONOTONIC_USEC=%d", ts.Nano()/1000)
		}
	}
	if _, err := sd.SdNotify(false, state); err != nil {
		d.log.Warn("systemd was not told", slog.Any("error", err))
	}
}

func (d *Daemon) start() error {
	loaded, installed, err := d.load()
	if err != nil {
		return err
	}
	d.boot = readBoot(d.opt.RunDir)
	// Before anything is made, which who may not watch may not make either.
	if d.guard, err = link.Attach(); err != nil {
		return guardProblem(err)
	}
	d.config.Store(loaded)
	if err := d.openState(loaded); err != nil {
		return err
	}
	if err := d.openSensor(loaded); err != nil {
		return err
	}
	d.roster, err = roster.New(roster.Config{
		StateDir: filepath.Join(d.opt.StateDir, "state"), Court: d.docket, Notes: d.updates.listen(d), Log: d.log,
		Supervisor: supervisor.Defaults(), Owned: d.packages.Owned, Store: d.store,
		Caution: d.boot.caution, Crumb: d.leaveCrumb,
	})
	if err != nil {
		return err
	}
	if err := d.roster.Apply(installed, loaded); err != nil {
		return err
	}
	if err := d.startUpdates(loaded); err != nil {
		return err
	}
	if d.gap, err = d.guard.TakeOver(); err != nil {
		return err
	}
	d.countStart(installed)
	d.sensor.SetPrescan(loaded.Prescan)
	if err := d.sensor.Start(watches(loaded)); err != nil {
		return watchProblem(err)
	}
	d.control, err = control.Listen(d.opt.RunDir, d.serve)
	if err != nil {
		return err
	}
	d.journal.Note(journal.Note{
		Code: "core.started", Title: "The platform started", Severity: journal.Informational,
		Detail: fmt.Sprintf("version %s, mode %s, %s", d.opt.Version, loaded.Mode, d.opt.Config),
	})
	d.noteGap()
	d.guard.Ready()
	return nil
}

// openSensor takes up the kernel's group, and makes what judges its events.
func (d *Daemon) openSensor(loaded *config.Loaded) error {
	pulse := d.guard.Pulse
	pulse.Limit.Store(int64(loaded.StallLimit))
	group, err := fanotify.Adopt(link.GroupFD, &pulse.Taken, &pulse.Answered, d.guard.Took)
	if err != nil {
		return sensorProblem(err)
	}
	kept, err := link.RaiseFiles() // the kernel opens a descriptor for every event
	if err != nil {
		return err
	}
	beat := func() { pulse.Beat.Add(1) }
	d.leases, err = lease.New(lease.Config{
		Marker: group, MaxEvent: link.MaxFiles, MaxKept: kept, Beat: beat,
		Held: func(kept int) { d.guard.Hold(kept > 0) },
	})
	if err != nil {
		return sensorProblem(err)
	}
	d.leases.Switch(loaded.KernelMemory)
	d.docket = docket.New(d, d.trail, d.leases, beat)
	d.sensor, err = sensor.New(sensor.Config{
		Group: group, Vital: d.vital(loaded), Own: d.own(), Provider: sandbox.IsProvider, Judge: d.docket,
		Keeper: d.leases, Prescanner: d.docket,
	})
	if err != nil {
		return sensorProblem(err)
	}
	d.docket.Look(d.sensor)
	return nil
}

// load reads the configuration and resolves its providers.
func (d *Daemon) load() (*config.Loaded, []config.Installed, error) {
	loaded, err := config.Load(d.opt.Config)
	if err != nil {
		return nil, nil, err
	}
	installed, err := loaded.Resolve(d.opt.ProvidersDir)
	return loaded, installed, err
}

// openState takes the state folder and opens what is kept there. Providers must be able to reach their own
// folders below it, and nothing else.
func (d *Daemon) openState(loaded *config.Loaded) error {
	state := filepath.Join(d.opt.StateDir, "state")
	for _, dir := range []string{d.opt.StateDir, state, filepath.Join(state, "providers")} {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return fmt.Errorf("state folder: %w", err)
		}
	}
	var err error
	d.lock, err = durable.Lock(filepath.Join(d.opt.StateDir, "lock"))
	if err != nil {
		return health.Problem{
			Code: "KO-1101", Title: err.Error(), Severity: health.Failure,
			Fix: "stop the other daemon, or choose another --state-dir",
		}
	}
	d.pardons, err = pardon.Load(filepath.Join(state, "allowances.json"), time.Now)
	if err != nil {
		return err
	}
	d.journal, err = journal.Open(filepath.Join(d.opt.StateDir, "journal"), journal.Limits{
		FileBytes: int64(loaded.Journal.FileSize), Files: loaded.Journal.Files,
	})
	if err != nil {
		return err
	}
	if d.store, err = store.Open(store.Config{Dir: filepath.Join(d.opt.StateDir, "store")}); err != nil {
		return err
	}
	d.trail = trail.New(trail.Config{Journal: d.journal, Comm: sensor.Comm, Keep: d.notable})
	return nil
}

// notable reports whether a record goes to the journal.
func (d *Daemon) notable(rec *event.Record) bool {
	v := &rec.Verdict
	switch {
	case d.config.Load().Journal.Record == "all", rec.Event.Type == event.Exec:
		return true
	case v.Allowed && v.Reason == event.ReasonBypassed:
		return false // the change journal says from when to when; each open would drown that
	}
	return v.Outcome != event.Allowed || v.Reason == event.ReasonAllowance
}

// stop undoes start, as far as it came. First nobody new waits, then those who wait are answered, then the
// providers may go.
func (d *Daemon) stop() error {
	var errs []error
	if d.control != nil {
		errs = append(errs, d.control.Close())
	}
	if d.sensor != nil {
		errs = append(errs, d.sensor.SetWatches(nil))
	}
	if d.docket != nil {
		d.docket.Close()
	}
	if d.leases != nil {
		d.leases.Close()
	}
	if d.sensor != nil {
		errs = append(errs, d.sensor.Stop())
		d.guard.Leave()
	}
	d.updates.close()
	if d.roster != nil {
		d.roster.Close()
	}
	if d.trail != nil {
		d.trail.Close()
	}
	if d.journal != nil {
		d.journal.Note(journal.Note{Code: "core.stopped", Title: "The platform stopped", Severity: journal.Informational})
		errs = append(errs, d.journal.Close())
	}
	if d.lock != nil {
		errs = append(errs, d.lock.Close())
	}
	return errors.Join(errs...)
}

// resolved returns the configuration in force with its providers.
func (d *Daemon) resolved() (*config.Loaded, []config.Installed, error) {
	old := d.config.Load()
	installed, err := old.Resolve(d.opt.ProvidersDir)
	return old, installed, err
}

// reload applies a changed configuration; on an error everything stays as it is.
func (d *Daemon) reload() error {
	d.reloading.Lock() // a signal and a request may come together
	defer d.reloading.Unlock()
	loaded, installed, err := d.load()
	if err != nil {
		d.journal.Note(journal.Note{
			Code: "config.refused", Title: "A changed configuration was refused", Severity: journal.Medium,
			Detail: err.Error(),
		})
		return err
	}
	// What can fail comes first. Providers that start before the paths are watched do no harm.
	if err := d.roster.Apply(installed, loaded); err != nil {
		return err
	}
	d.sensor.SetPrescan(loaded.Prescan)
	if err := d.sensor.SetWatches(watches(loaded)); err != nil {
		old, before, oldErr := d.resolved()
		if oldErr == nil {
			oldErr = d.roster.Apply(before, old)
		}
		return errors.Join(watchProblem(err), oldErr)
	}
	d.config.Store(loaded)
	d.mode.Store(nil)
	d.guard.Pulse.Limit.Store(int64(loaded.StallLimit))
	d.leases.Switch(loaded.KernelMemory)
	d.sensor.ResolveVital(d.vital(loaded))
	go d.loadPackages()
	d.log.Info("configuration reloaded", slog.String("mode", string(loaded.Mode)))
	d.journal.Note(journal.Note{
		Code: "config.reloaded", Title: "The configuration was reloaded", Severity: journal.Informational,
		Detail: "mode " + string(loaded.Mode),
	})
	return nil
}

func watches(l *config.Loaded) []sensor.Watch {
	out := make([]sensor.Watch, 0, len(l.Watch))
	for _, w := range l.Watch {
		out = append(out, sensor.Watch{Path: w.Path, Events: w.Types()})
	}
	return out
}

// Policy implements docket.Ruling.
func (d *Daemon) Policy() arbiter.Policy {
	c := d.config.Load()
	p := arbiter.Policy{Mode: c.Mode, Quorum: c.Quorum}
	if m := d.mode.Load(); m != nil {
		p.Mode = *m
	}
	if d.boot.failOpen() {
		p.Mode = event.Monitor
	}
	return p
}

// Pardons implements docket.Ruling.
func (d *Daemon) Pardons() bool { return d.pardons.Any() }

// Pardon implements docket.Ruling.
func (d *Daemon) Pardon(file int, size int64) (string, bool) { return d.pardons.Check(file, size) }

// Pardoned implements docket.Ruling.
func (d *Daemon) Pardoned(digest string) (string, bool) { return d.pardons.Allows(digest) }

// Digest implements docket.Ruling.
func (d *Daemon) Digest(file int, size int64) string {
	digest, err := pardon.Digest(file, size)
	if err != nil {
		return "" // the record says no digest; the verdict does not depend on it
	}
	return digest
}
