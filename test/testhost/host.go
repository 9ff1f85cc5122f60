// Package testhost runs the real daemon for tests and benchmarks: on a file system of its own, in a private
// mount namespace, with a watchdog that ends it.
package testhost

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/config"
	"github.com/keepout-security/keepout/internal/control"
	"github.com/keepout-security/keepout/internal/health"
	"github.com/keepout-security/keepout/internal/testenv"
)

// Options say what the host runs.
type Options struct {
	Mode      event.Mode // default: enforce
	Events    string     // default: "open, exec"
	Providers []Provider
	Extra     string        // further lines of the configuration
	Life      time.Duration // of the watchdog; default: one minute
	Wait      bool          // do not wait until it is healthy
	Watch     string        // default: a tmpfs of its own
	Updates   string        // keys of updates:; default: no time and no samples for a trial
}

// Provider is one provider of the host.
type Provider struct {
	ID      string // its folder is a copy of Source under this name
	Source  string // "subject", "steady", "aloof", or one of the shipped providers
	Mode    event.Mode
	Content string
	Fault   string
	Delay   time.Duration
	Extra   string // further keys, as "key: value, key: value"
}

// Host is a running daemon.
type Host struct {
	Dir       string // watched
	State     string
	Run       string
	Config    string
	Providers string
	Bin       string
	PID       int

	t      testing.TB
	cmd    *exec.Cmd
	log    lockedBuffer
	exited chan struct{}
}

// Start runs a daemon and ends it with the test. Preconditions: root, in private mounts.
func Start(t testing.TB, opt Options) *Host {
	t.Helper()
	testenv.Need(t, testenv.Root, testenv.Fanotify, testenv.MountNS)
	h := Prepare(t, opt)
	h.Launch(opt)
	return h
}

// Prepare makes everything but starts nothing.
func Prepare(t testing.TB, opt Options) *Host {
	t.Helper()
	h := &Host{t: t, Bin: testenv.Build(t, "./cmd/keepoutd", "./cmd/keepout-core", "./cmd/keepout"), Dir: opt.Watch}
	if h.Dir == "" {
		h.Dir = testenv.Tmpfs(t, "512m")
	}
	base := openDir(t)
	h.State, h.Run = filepath.Join(base, "state"), filepath.Join(base, "run")
	h.Providers = filepath.Join(base, "providers")
	h.Config = filepath.Join(base, "keepout.yaml")
	for _, p := range opt.Providers {
		h.install(p)
	}
	h.Write(h.Config, h.configText(opt))
	return h
}

// openDir makes a folder that providers can pass through.
func openDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "keepout-host-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func (h *Host) configText(opt Options) string {
	mode, events := opt.Mode, opt.Events
	if mode == "" {
		mode = event.Enforce
	}
	if events == "" {
		events = "open, exec"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "version: 1\nmode: %s\nwatch:\n  - {path: %s, events: [%s]}\n", mode, h.Dir, events)
	if opt.Extra != "" {
		b.WriteString(opt.Extra + "\n")
	}
	if opt.Updates == "" {
		opt.Updates = "trial: 0s, trial_idle: 0s, samples: 0, settle: 0s" // a change of content is in force at once
	}
	fmt.Fprintf(&b, "updates: {%s}\n", opt.Updates)
	for i, p := range opt.Providers {
		if i == 0 {
			b.WriteString("providers:\n")
		}
		if p.Mode == "" {
			p.Mode = event.Enforce
		}
		fmt.Fprintf(&b, "  - {id: %s, mode: %s", p.ID, p.Mode)
		if p.Content != "" {
			fmt.Fprintf(&b, ", content: %s", p.Content)
		}
		switch {
		case p.Fault != "":
			fmt.Fprintf(&b, ", settings: {fault: %q, delay: %q}", p.Fault, p.Delay.String())
		case p.Delay > 0:
			fmt.Fprintf(&b, ", settings: {delay: %q}", p.Delay.String())
		}
		if p.Extra != "" {
			b.WriteString(", " + p.Extra)
		}
		b.WriteString("}\n")
	}
	return b.String()
}

// source returns the folder of a provider's source in the module, and its program, which it builds.
func (h *Host) source(name string) (pkg, executable string) {
	h.t.Helper()
	switch name {
	case "subject", "steady", "aloof":
		pkg, executable = "./test/providers/"+name, filepath.Join(h.Bin, name)
	case "python": // a script
		pkg = "./examples/python"
		return pkg, filepath.Join(testenv.ModuleRoot(h.t), pkg, "provider.py")
	default:
		pkg, executable = "./providers/"+name, filepath.Join(h.Bin, "providers", name, "keepout-"+name)
	}
	testenv.Build(h.t, pkg)
	return pkg, executable
}

// install copies a provider's folder under the id that the host gives it.
func (h *Host) install(p Provider) {
	h.t.Helper()
	pkg, executable := h.source(p.Source)
	to := filepath.Join(h.Providers, p.ID)
	h.must(os.MkdirAll(to, 0o755))
	manifest := filepath.Join(testenv.ModuleRoot(h.t), strings.TrimPrefix(pkg, "./"), config.ManifestFile)
	text, err := os.ReadFile(manifest)
	h.must(err)
	program, err := os.ReadFile(executable)
	h.must(err)
	h.must(os.WriteFile(filepath.Join(to, filepath.Base(executable)), program, 0o755))
	text = bytes.Replace(text, []byte("id: "+p.Source), []byte("id: "+p.ID), 1)
	h.Write(filepath.Join(to, config.ManifestFile), string(text))
	tests, err := filepath.Glob(filepath.Join(filepath.Dir(manifest), "selftest.*"))
	h.must(err)
	for _, file := range tests {
		object, err := os.ReadFile(file)
		h.must(err)
		h.Write(filepath.Join(to, filepath.Base(file)), string(object))
	}
	_, err = config.Seal(to)
	h.must(err)
}

// Launch starts the daemon and waits until it is healthy.
func (h *Host) Launch(opt Options) {
	h.t.Helper()
	h.log.reset()
	// Not the test's context: a cleanup that asks the daemon to stop runs after that has ended.
	h.cmd = exec.CommandContext(context.Background(), filepath.Join(h.Bin, "keepoutd"), "--config", h.Config,
		"--state-dir", h.State, "--run-dir", h.Run, "--providers-dir", h.Providers, "--verbose")
	h.cmd.Stderr = &h.log
	h.must(h.cmd.Start())
	h.PID, h.exited = h.cmd.Process.Pid, make(chan struct{})
	go func(cmd *exec.Cmd, exited chan struct{}) {
		_ = cmd.Wait() // how it ended is read from cmd
		close(exited)
	}(h.cmd, h.exited)
	life := opt.Life
	if life == 0 {
		life = time.Minute
	}
	cmd := h.cmd
	testenv.Watchdog(h.t, life, func() { _ = cmd.Process.Kill() })
	h.t.Cleanup(func() {
		h.Stop()
		if h.t.Failed() {
			h.t.Logf("log of the daemon:\n%s", h.Log())
		}
	})
	if !opt.Wait {
		h.Until("the daemon is healthy", func() bool {
			s, err := h.TryStatus()
			return err == nil && !health.Degraded(s.Problems)
		})
	}
}

// Stop ends the daemon in the normal way and returns its exit code.
func (h *Host) Stop() int {
	select {
	case <-h.exited:
		return h.cmd.ProcessState.ExitCode()
	default:
	}
	_ = h.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-h.exited:
	case <-time.After(15 * time.Second):
		h.t.Error("the daemon does not stop")
		_ = h.cmd.Process.Kill()
		<-h.exited
	}
	return h.cmd.ProcessState.ExitCode()
}

// Exited waits for the end of the daemon and returns its exit code and log.
func (h *Host) Exited() (int, string) {
	h.t.Helper()
	select {
	case <-h.exited:
	case <-time.After(20 * time.Second):
		h.t.Fatal("the daemon does not end")
	}
	return h.cmd.ProcessState.ExitCode(), h.Log()
}

// Log returns what the daemon wrote.
func (h *Host) Log() string { return h.log.String() }

// Signal sends the daemon a signal.
func (h *Host) Signal(s os.Signal) { h.must(h.cmd.Process.Signal(s)) }

// TryStatus asks for the status.
func (h *Host) TryStatus() (*control.Status, error) {
	var s *control.Status
	err := h.Do(control.Request{Do: "status"}, func(r control.Reply) { s = r.Status })
	if err == nil && s == nil {
		err = errors.New("no status")
	}
	return s, err
}

// Status asks for the status and fails the test without one.
func (h *Host) Status() *control.Status {
	h.t.Helper()
	s, err := h.TryStatus()
	h.must(err)
	return s
}

// Do sends a request to the daemon.
func (h *Host) Do(req control.Request, each func(control.Reply)) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	c, err := control.Dial(ctx, h.Run)
	if err != nil {
		return err
	}
	err = c.Do(ctx, req, func(r control.Reply) error { each(r); return nil })
	return errors.Join(err, c.Close())
}

// Records returns what the daemon remembers about a path, oldest first.
func (h *Host) Records(path string) []event.Record {
	h.t.Helper()
	var out []event.Record
	h.must(h.Do(control.Request{Do: "events"}, func(r control.Reply) {
		if r.Record != nil && r.Record.Event.File.Path == path {
			out = append(out, *r.Record)
		}
	}))
	return out
}

// Record waits for the newest record of a path.
func (h *Host) Record(path string) event.Record {
	h.t.Helper()
	var got []event.Record
	h.Until("a record of "+path, func() bool { got = h.Records(path); return len(got) > 0 })
	return got[len(got)-1]
}

// Until waits for a condition, at most 20 s.
func (h *Host) Until(what string, cond func() bool) {
	h.t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if cond() {
			return
		}
	}
	h.t.Fatalf("waited in vain until %s\nlog of the daemon:\n%s", what, h.Log())
}

// Write writes a file that everybody may read.
func (h *Host) Write(path, text string) {
	h.t.Helper()
	h.must(os.MkdirAll(filepath.Dir(path), 0o755))
	h.must(os.WriteFile(path, []byte(text), 0o644))
}

// File writes a file into the watched folder and returns its path.
func (h *Host) File(name, text string) string {
	h.t.Helper()
	path := filepath.Join(h.Dir, name)
	h.Write(path, text)
	return path
}

func (h *Host) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

// lockedBuffer is a buffer that a process writes and a test reads.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *lockedBuffer) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b.Reset()
}
