// Command guest is the init of the machine that counts instructions. It runs the platform in each of the ways of
// /plans.json, measures opens and executions by the machine's clock, prints "RESULT " and the measurements as JSON on
// the serial line, and switches the machine off.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/internal/control"
	"github.com/keepout-security/keepout/internal/supervisor"
)

// plan is one way to run the platform.
type plan struct {
	Name      string
	Watch     string
	Config    string // empty: nobody watches
	Providers int
	Work      string // execs: no opens
	Repeat    int    // starts of the platform: where things come to lie in memory differs from start to start
}

func main() {
	if len(os.Args) == 4 && os.Args[1] == "work" {
		if err := work(os.Args[2], os.Args[3] == "execs"); err != nil {
			fmt.Fprintln(os.Stderr, "work:", err)
			os.Exit(1)
		}
		return
	}
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "guest: only as init of a machine of its own")
		os.Exit(2)
	}
	if err := all(); err != nil {
		fmt.Fprintln(os.Stdout, "FAILED", err)
	}
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

func all() error {
	if err := setUp(); err != nil {
		return err
	}
	text, err := os.ReadFile("/plans.json")
	if err != nil {
		return err
	}
	var plans []plan
	if err := json.Unmarshal(text, &plans); err != nil {
		return err
	}
	results := map[string][]json.RawMessage{}
	for i := range slices.MaxFunc(plans, func(x, y plan) int { return x.Repeat - y.Repeat }).Repeat {
		for _, p := range plans {
			if i >= p.Repeat {
				continue
			}
			took, err := p.run(fmt.Sprintf("%d-%s", i, p.Name))
			if err != nil {
				return fmt.Errorf("%s: %w", p.Name, err)
			}
			results[p.Name] = append(results[p.Name], took)
		}
	}
	out, err := json.Marshal(results)
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stdout, "RESULT %s\n", out)
	return nil
}

// setUp makes a system of what the kernel unpacked. The root that it unpacks into cannot be left by pivot_root(2),
// which the cages need: so everything moves to a tmpfs first.
func setUp() error {
	const root = "/new"
	if err := os.Mkdir(root, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("root", root, "tmpfs", 0, "mode=0755"); err != nil {
		return fmt.Errorf("mount the new root: %w", err)
	}
	for _, name := range []string{"init", "platform", "plans.json", "etc", "loop.ko", "watched.ext4"} {
		if err := move("/"+name, filepath.Join(root, name)); err != nil {
			return err
		}
	}
	if err := os.Chdir(root); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move the root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("enter the root: %w", err)
	}
	if err := mountAll(); err != nil {
		return err
	}
	module, err := os.ReadFile("/loop.ko")
	if err != nil {
		return err
	}
	if err := unix.InitModule(module, ""); err != nil {
		return fmt.Errorf("load loop.ko: %w", err)
	}
	return nil
}

// mountAll mounts what a system has.
func mountAll() error {
	for _, m := range [][3]string{
		{"proc", "/proc", ""},
		{"sysfs", "/sys", ""},
		{"devtmpfs", "/dev", ""},
		{"cgroup2", "/sys/fs/cgroup", ""},
		{"tmpfs", "/run", "mode=0755"},
		{"tmpfs", "/tmp", "mode=1777"},
		{"tmpfs", "/var", "mode=0755"},
	} {
		if err := os.MkdirAll(m[1], 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m[0], m[1], m[0], 0, m[2]); err != nil {
			return fmt.Errorf("mount %s: %w", m[1], err)
		}
	}
	return os.WriteFile("/sys/fs/cgroup/cgroup.subtree_control", []byte("+memory +pids +cpu"), 0)
}

// move copies a tree to another file system; what it leaves is never looked at again.
func move(from, to string) error {
	info, err := os.Stat(from)
	switch {
	case err != nil:
		return err
	case info.IsDir():
		return os.CopyFS(to, os.DirFS(from))
	}
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, content, info.Mode())
}

// startLimit is how long a platform may take until all providers are there, in the machine's time.
const startLimit = 2 * time.Minute

// run gives one start of the platform its turn; id names it.
func (p plan) run(id string) (json.RawMessage, error) {
	if err := os.MkdirAll(p.Watch, 0o755); err != nil {
		return nil, err
	}
	if err := mountImage(p.Watch); err != nil {
		return nil, fmt.Errorf("mount what is watched: %w", err)
	}
	if err := populate(p.Watch); err != nil {
		return nil, err
	}
	end, err := p.start(id)
	if err != nil {
		return nil, err
	}
	// What starting left behind ends meanwhile; an idle machine's time costs nothing.
	time.Sleep(3 * time.Second)
	cmd := exec.Command("/proc/self/exe", "work", p.Watch, p.Work) //nolint:noctx // the host ends the machine
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("work: %w %s", err, errs.Bytes())
	}
	return bytes.TrimSpace(out.Bytes()), errors.Join(end(), unix.Unmount(p.Watch, 0))
}

// mountImage mounts a new file system: a kind on which the platform remembers verdicts, as it does not on a tmpfs.
func mountImage(dir string) error {
	image := "/tmp/" + filepath.Base(dir)
	if err := move("/watched.ext4", image); err != nil {
		return err
	}
	backing, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { _ = backing.Close() }()
	devices, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { _ = devices.Close() }()
	n, err := unix.IoctlRetInt(int(devices.Fd()), unix.LOOP_CTL_GET_FREE)
	if err != nil {
		return fmt.Errorf("find a loop device: %w", err)
	}
	name := fmt.Sprintf("/dev/loop%d", n)
	device, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { _ = device.Close() }() // the mount keeps it, and it goes with the mount
	setup := unix.LoopConfig{Fd: uint32(backing.Fd())}
	setup.Info.Flags = unix.LO_FLAGS_AUTOCLEAR
	if err := unix.IoctlLoopConfigure(int(device.Fd()), &setup); err != nil {
		return fmt.Errorf("configure %s: %w", name, err)
	}
	return unix.Mount(name, dir, "ext4", unix.MS_NOATIME, "")
}

// start starts the platform and waits until it watches and each provider votes.
func (p plan) start(id string) (end func() error, err error) {
	if p.Config == "" {
		return func() error { return nil }, nil
	}
	state := "/var/" + id
	daemon := exec.Command("/platform/keepoutd", "--config", p.Config, "--state-dir", state, //nolint:noctx // end
		"--run-dir", "/run/"+id, "--providers-dir", "/platform/providers")
	var log bytes.Buffer
	daemon.Stdout, daemon.Stderr = &log, &log
	if err := daemon.Start(); err != nil {
		return nil, fmt.Errorf("start keepoutd: %w", err)
	}
	var s *control.Status
	for began := time.Now(); !p.ready(s); time.Sleep(50 * time.Millisecond) {
		if time.Since(began) > startLimit {
			_ = daemon.Process.Kill()
			_ = daemon.Wait()
			return nil, fmt.Errorf("not ready: %+v\n%s", s, log.String())
		}
		s, _ = ask("/run/" + id) // not there yet
	}
	for _, problem := range s.Problems {
		fmt.Fprintf(os.Stdout, "%s: %s %s\n", p.Name, problem.Code, problem.Title)
	}
	return func() error {
		if s, err := ask("/run/" + id); err == nil && p.ready(s) {
			err = daemon.Process.Signal(syscall.SIGTERM)
			return errors.Join(err, daemon.Wait())
		}
		return fmt.Errorf("a provider was lost or bypassed meanwhile\n%s", log.String())
	}, nil
}

// ready reports whether every provider runs and has answered whatever it was asked.
func (p plan) ready(s *control.Status) bool {
	if s == nil || len(s.Watching) != 1 || len(s.Providers) != p.Providers {
		return false
	}
	for i := range s.Providers {
		v := &s.Providers[i]
		if v.State != supervisor.Running || v.Demoted != nil || v.Counters.Late+v.Counters.Dropped+v.Counters.Skipped > 0 {
			return false
		}
	}
	return true
}

func ask(runDir string) (s *control.Status, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := control.Dial(ctx, runDir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Close() }()
	err = c.Do(ctx, control.Request{Do: "status"}, func(r control.Reply) error {
		if r.Status != nil {
			s = r.Status
		}
		return nil
	})
	return s, err
}
