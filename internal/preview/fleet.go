package preview

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/keepout-security/keepout/internal/fleet/fleetpb/fleetpbconnect"
	"github.com/keepout-security/keepout/internal/netlab"
)

// Bounds of a fleet.
const (
	MinHosts = 8  // so that ring 0 and the control group have two at least
	MaxHosts = 60 // of a Show: each is four processes, and somebody waits for it

	commandTime = 30 * time.Second // for one run of the keepout command
	settleTime  = 2 * time.Minute  // for what a whole fleet does at its start
	stopTime    = 10 * time.Second // for a process to end in order
	lookEvery   = 200 * time.Millisecond
	atOnce      = 4 // hosts that are started at one time
	port        = 8440
)

// Provider is the engine that the hosts run: the replica of the one of July 2024.
const Provider = "channel291"

// Options say what a fleet is made of.
type Options struct {
	Bin   string // keepout, keepoutd, keepout-core, keepout-fetch, keepout-fleet and hostile/channel291, as "make build"
	Dir   string // exists, is empty, and every user can pass through it
	Hosts int    // MinHosts to netlab.MaxLeaves
	Speed int    // by how much the times of rollouts are divided; at least 1
	// Ran is told each command that a person would have typed; nil tells nobody.
	Ran func(command string)
}

// Fleet is a control plane and hosts. Its methods are not for several goroutines at once, but for Touch and Running.
type Fleet struct {
	Hosts []*Host

	opt   Options
	net   *netlab.Star
	plane *process
	api   fleetpbconnect.FleetServiceClient
}

// New makes the network and the keys of a vendor and an operator, and starts nothing yet. The caller calls Close.
// Preconditions: root, in a mount namespace of its own.
func New(ctx context.Context, opt Options) (f *Fleet, err error) {
	if opt.Hosts < MinHosts || opt.Hosts > netlab.MaxLeaves || opt.Speed < 1 {
		return nil, fmt.Errorf("%d hosts at speed %d: want %d to %d, and 1 or more", opt.Hosts, opt.Speed, MinHosts,
			netlab.MaxLeaves)
	}
	if err := inPrivateMounts(); err != nil {
		return nil, err
	}
	if opt.Ran == nil {
		opt.Ran = func(string) {}
	}
	f = &Fleet{opt: opt}
	if f.net, err = netlab.NewStar(opt.Hosts); err != nil {
		return nil, err
	}
	if err := f.makeKeys(ctx); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// inPrivateMounts refuses where a mount would be everybody's, as far as that can be told: the caller knows.
func inPrivateMounts() error {
	ours, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return fmt.Errorf("read the mount namespace: %w", err)
	}
	if first, err := os.Readlink("/proc/1/ns/mnt"); err == nil && first == ours {
		return errors.New("not in a mount namespace of its own")
	}
	return nil
}

// Close ends every process of the fleet and takes its file systems away. What lies in Dir stays.
func (f *Fleet) Close() error {
	errs := make([]error, len(f.Hosts))
	var wg sync.WaitGroup
	for i, h := range f.Hosts {
		wg.Go(func() { errs[i] = h.close() })
	}
	if f.plane != nil {
		errs = append(errs, f.plane.stop())
	}
	wg.Wait()
	return errors.Join(append(errs, f.net.Close())...)
}

func (f *Fleet) in(name string) string { return filepath.Join(f.opt.Dir, name) }

// Keepout runs the keepout command as a person would, in the fleet's folder and beside the control plane, and returns
// what it prints. The command's words are in the error.
func (f *Fleet) Keepout(ctx context.Context, args ...string) (out []byte, err error) {
	f.opt.Ran("keepout " + strings.TrimPrefix(strings.Join(args, " "), "-o json "))
	err = f.net.Hub.Do(func() error {
		ctx, cancel := context.WithTimeout(ctx, commandTime)
		defer cancel()
		cmd := exec.CommandContext(ctx, filepath.Join(f.opt.Bin, "keepout"), args...)
		cmd.Dir, cmd.Env = f.opt.Dir, append(environment(), "KEEPOUT_FLEET_LOGIN="+f.in("fleet/admin.json"))
		cmd.WaitDelay = time.Second
		var said bytes.Buffer
		cmd.Stderr = &said
		if out, err = cmd.Output(); err != nil {
			return fmt.Errorf("keepout %s: %w: %s%s", strings.Join(args, " "), err, out, said.Bytes())
		}
		return nil
	})
	return out, err
}

// environment is ours without the way out: there is none, and a proxy is none to the control plane. No process of the
// fleet uses more than two processors, because there are many.
func environment() (out []string) {
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		if !strings.HasSuffix(strings.ToLower(name), "_proxy") {
			out = append(out, v)
		}
	}
	return append(out, fmt.Sprintf("GOMAXPROCS=%d", min(runtime.NumCPU(), 2)), "NO_COLOR=1", "LC_ALL=C")
}

// Until waits for a condition of the fleet, at most patience, and reports what the hosts run when it waited in vain.
func (f *Fleet) Until(ctx context.Context, what string, patience time.Duration, cond func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for !cond() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait until %s: %w; the hosts run %q", what, ctx.Err(), f.Running(context.WithoutCancel(ctx)))
		case <-tick.C:
		}
	}
	return nil
}
