package preview

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"

	"github.com/keepout-security/keepout/internal/control"
	"github.com/keepout-security/keepout/internal/fleet/fleetpb"
	"github.com/keepout-security/keepout/internal/playground"
	"github.com/keepout-security/keepout/internal/supervisor"
	"github.com/keepout-security/keepout/internal/update"
)

// Host is one host: a file system, a network namespace, and the processes on them.
type Host struct {
	Name  string // host01 and so on
	Files string // the folder that is watched: a file system of its own

	*playground.Platform

	number int
	state  string
	fetch  *process
}

// hostConfig is a host's configuration. The checks before an engine gets new content are off, and so is the trial in
// audit: each of them would refuse the content of July 2024 before any ring could show what it does. A release is
// last-known-good after 25 s, which is longer than a halt takes to come back to its hosts.
const hostConfig = `version: 1
mode: enforce
watch:
  - {path: %q, events: [open, exec]}
budgets: {metadata: 10s, content: 10s}
updates: {trial: 0s, trial_idle: 0s, samples: 0, settle: 0s, soak: 25s, schema: false, load: false, trust: %q}
providers:
  - {id: ` + Provider + `, mode: enforce, content: %q}
`

// StartHosts starts all hosts on the content of release 1, and waits until the control plane has heard of each.
func (f *Fleet) StartHosts(ctx context.Context) error {
	return f.startAll(ctx, func(h *Host) error {
		if err := f.startCore(ctx, h); err != nil {
			return err
		}
		return f.startFetch(ctx, h)
	})
}

// StartFetchers starts hosts that are a fetcher each and nothing else: what a core would report is written once by
// report. It waits until the control plane has heard of each.
func (f *Fleet) StartFetchers(ctx context.Context, report update.Report) error {
	return f.startAll(ctx, func(h *Host) error {
		if err := os.MkdirAll(filepath.Join(f.in(h.Name), playground.StateDir, update.ReportDir), 0o755); err != nil {
			return err
		}
		if err := h.Report(report); err != nil {
			return err
		}
		return f.startFetch(ctx, h)
	})
}

// Report writes what a core would, on a host that has none.
func (h *Host) Report(r update.Report) error {
	return update.WriteReport(filepath.Join(h.state, update.ReportDir), &r)
}

// Orders is what the host's fetcher has brought, and when it wrote that.
func (h *Host) Orders() (o update.Orders, at time.Time, err error) {
	dir := filepath.Join(h.state, update.StagingDir)
	info, err := os.Stat(filepath.Join(dir, update.OrdersFile))
	if err != nil {
		return o, at, fmt.Errorf("%s: %w", h.Name, err)
	}
	o, err = update.ReadOrders(os.DirFS(dir))
	return o, info.ModTime(), err
}

// startAll makes all hosts and has start bring each to life, a few at a time.
func (f *Fleet) startAll(ctx context.Context, start func(*Host) error) error {
	errs := make([]error, f.opt.Hosts)
	gate := make(chan struct{}, atOnce)
	var wg sync.WaitGroup
	for i := range f.opt.Hosts {
		name := fmt.Sprintf("host%02d", i+1)
		h := &Host{Name: name, number: i, state: filepath.Join(f.in(name), playground.StateDir)}
		f.Hosts = append(f.Hosts, h)
		wg.Go(func() {
			gate <- struct{}{}
			defer func() { <-gate }()
			if errs[i] = ctx.Err(); errs[i] == nil {
				errs[i] = start(h)
			}
			if errs[i] != nil {
				errs[i] = fmt.Errorf("%s: %w", h.Name, errs[i])
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return f.Until(ctx, "every host has reported", settleTime, func() bool { return f.reported(ctx) == len(f.Hosts) })
}

// startCore makes the file system of a host, starts its daemon, and waits until its engine votes.
func (f *Fleet) startCore(ctx context.Context, h *Host) error {
	home := f.in(h.Name)
	if err := os.Mkdir(home, 0o755); err != nil {
		return err
	}
	files := filepath.Join(home, "files")
	if err := playground.Mount(files); err != nil {
		return err
	}
	h.Files = files
	text := fmt.Sprintf(hostConfig, h.Files, f.in("ops/metadata/1.root.json"), f.in(contentName(1)))
	if err := os.WriteFile(filepath.Join(home, playground.ConfigFile), []byte(text), 0o644); err != nil {
		return err
	}
	p, err := playground.StartIn(f.net.Leaves[h.number].Enter, f.opt.Bin, home, f.in("engines"))
	if err != nil {
		return err
	}
	h.Platform = p
	_, err = h.Until(ctx, "its engine votes", func(s *control.Status) error {
		if e := playground.Find(s, Provider); e == nil || e.State != supervisor.Running {
			return errors.New("it does not run")
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("%w\n%s", err, p.LastLog())
	}
	return nil
}

// startFetch starts the fetcher of a host with a token of its own.
func (f *Fleet) startFetch(ctx context.Context, h *Host) error {
	token, err := f.api.CreateEnrolToken(ctx, connect.NewRequest(&fleetpb.CreateEnrolTokenRequest{}))
	if err != nil {
		return err
	}
	home := f.in(h.Name)
	file := filepath.Join(home, "token")
	if err := os.WriteFile(file, []byte(token.Msg.GetSecret()), 0o600); err != nil {
		return err
	}
	h.fetch, err = start(f.net.Leaves[h.number], filepath.Join(home, "keepout-fetch.log"),
		filepath.Join(f.opt.Bin, "keepout-fetch"), "--state-dir", h.state, "--server", f.server(), "--token-file", file,
		"--machine-id", "preview-"+h.Name, "--hostname", h.Name)
	return err
}

// close ends the host.
func (h *Host) close() error {
	var errs []error
	if h.fetch != nil {
		errs = append(errs, h.fetch.stop())
	}
	if h.Platform != nil {
		errs = append(errs, h.Stop())
	}
	if h.Files != "" {
		errs = append(errs, playground.Unmount(h.Files))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%s: %w", h.Name, err)
	}
	return nil
}

// FetchPID is the process of the host's fetcher.
func (h *Host) FetchPID() int { return h.fetch.cmd.Process.Pid }

// Log are the last lines of the host's daemon and of its fetcher.
func (h *Host) Log() string {
	out := h.Name + ":\n"
	if h.Platform != nil {
		out += h.LastLog()
	}
	if h.fetch != nil {
		out += h.fetch.logEnd()
	}
	return out
}

// engine is how a host's engine is.
type engine struct {
	Content  string // what it has loaded: the name of a file; empty while it is not running
	Proven   string // the release that is last-known-good, as its maker calls it
	Restarts int
	Cause    string // why it stopped last
}

// engine asks the host's core.
func (h *Host) engine(ctx context.Context) (e engine, ok bool) {
	s, err := h.Status(ctx)
	if err != nil {
		return e, false
	}
	p := playground.Find(s, Provider)
	if p == nil {
		return e, false
	}
	e = engine{Restarts: p.Restarts, Cause: p.Cause}
	if p.Versions != nil {
		e.Proven = p.Versions.Content.LKG
	}
	if p.State == supervisor.Running {
		e.Content = p.Content
	}
	return e, true
}

// Running is what each host's engine has loaded, by the name of its file; empty while an engine does not run.
func (f *Fleet) Running(ctx context.Context) []string {
	out := make([]string, len(f.Hosts))
	for i, h := range f.Hosts {
		if h.Platform != nil {
			e, _ := h.engine(ctx)
			out[i] = e.Content
		}
	}
	return out
}

// Touch writes and opens a file on each host, as any program would: what a channel file may be about.
func (f *Fleet) Touch() {
	for _, h := range f.Hosts {
		h.touch()
	}
}

func (h *Host) touch() {
	path := filepath.Join(h.Files, "good-morning")
	_ = os.WriteFile(path, []byte("x"), 0o644) // whatever the verdict is
	if file, err := os.Open(path); err == nil {
		_ = file.Close()
	}
}

// KeepBusy touches every host every so often, each by itself, until stop is called.
func (f *Fleet) KeepBusy(every time.Duration) (stop func()) {
	over := make(chan struct{})
	var wg sync.WaitGroup
	for _, h := range f.Hosts {
		wg.Go(func() {
			tick := time.NewTicker(every)
			defer tick.Stop()
			for {
				select {
				case <-over:
					return
				case <-tick.C:
					h.touch()
				}
			}
		})
	}
	return sync.OnceFunc(func() { close(over); wg.Wait() })
}

// Cut takes a host off the network; it goes on by itself.
func (f *Fleet) Cut(h *Host) error { return f.net.Cut(h.number) }

// Heal undoes Cut.
func (f *Fleet) Heal(h *Host) error { return f.net.Heal(h.number) }

// release is the number of the release whose content has this name, or 0.
func release(content string) (n int) {
	digits, ok := strings.CutPrefix(content, contentPrefix)
	if _, err := fmt.Sscanf(digits, "%d", &n); err != nil || !ok {
		return 0
	}
	return n
}
