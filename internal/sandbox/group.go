package sandbox

import (
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/containerd/cgroups/v3"
	"github.com/containerd/cgroups/v3/cgroup1"
	"github.com/containerd/cgroups/v3/cgroup2"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// cgroupRoot is where a host has its control groups, in all arrangements of versions 1 and 2.
const cgroupRoot = "/sys/fs/cgroup"

// groupPrefix is how the folder of one daemon's groups begins.
const groupPrefix = "keepout-"

// cpuPeriod is the time in which a provider may use its share of the processors, in µs. The kernel's own 100 ms would
// hold up a provider that has used its share for longer than a vote may take.
const cpuPeriod = 20_000

// controller is one kind of limit of control groups.
type controller string

// The controllers that a provider's limits need.
const (
	memoryController controller = "memory"
	cpuController    controller = "cpu"
	pidsController   controller = "pids"
)

var controllers = []controller{memoryController, cpuController, pidsController}

// Groups makes control groups below the one that this process is in, so that limits that were set on it hold for
// providers, too. It is safe for concurrent use.
type Groups struct {
	name    string // of the folder that holds this daemon's groups
	unified string // version 2: the folder of our own group, below the mount point; empty: version 1
	usable  map[controller]error
	// locks are held on the folders as long as this process lives; of one that cannot be made or locked there is none.
	locks []*os.File

	mu   sync.Mutex
	live int // groups in the folder
}

// NewGroups looks what this host allows, and removes what a daemon that was killed has left. owner tells daemons of
// one host apart: two that run at one time must not have the same.
func NewGroups(owner string) *Groups {
	h := fnv.New32a()
	_, _ = h.Write([]byte(filepath.Clean(owner))) // it cannot fail
	g := &Groups{name: fmt.Sprintf("%s%08x", groupPrefix, h.Sum32()), usable: map[controller]error{}}
	if cgroups.Mode() == cgroups.Unified {
		g.probeUnified()
	} else {
		g.probeSplit()
	}
	g.claim()
	g.sweep()
	return g
}

// probeSplit looks at version 1, and at both at one time, where the controllers usually are with version 1.
func (g *Groups) probeSplit() {
	for _, c := range controllers {
		dir, err := g.splitDir(c)
		if err == nil {
			err = os.MkdirAll(dir, 0o755)
		}
		g.usable[c] = err
	}
}

// splitDir is the folder of this daemon's groups in one controller's hierarchy.
func (g *Groups) splitDir(c controller) (string, error) {
	own, err := ownGroup(string(c))
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cgroupRoot, string(c), own)
	if _, err := os.Stat(filepath.Join(dir, "cgroup.procs")); err != nil {
		return "", fmt.Errorf("no group of this process: %w", err)
	}
	return filepath.Join(dir, g.name), nil
}

// slotDir is a slot's folder, from this daemon's in the hierarchy of a controller of version 1. That of the cpu
// controller lies beside the daemon's: providers that share a parent share its turns on a processor, so that whoever
// wakes when one of them goes to sleep waits for the one that computes.
func slotDir(c controller, dir, slot string) string {
	if c == cpuController {
		return dir + flatMark + slot
	}
	return filepath.Join(dir, slot)
}

// flatMark stands between the name of a daemon's folder and that of a slot beside it.
const flatMark = "."

// ownGroup is this process's group in the hierarchy of a controller, or of version 2 for "".
func ownGroup(controller string) (string, error) {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", fmt.Errorf("own control group: %w", err)
	}
	for line := range strings.Lines(string(text)) { // hierarchy:controllers:path
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) == 3 && slices.Contains(strings.Split(parts[1], ","), controller) {
			return parts[2], nil
		}
	}
	return "", fmt.Errorf("the host has no controller %q", controller)
}

// probeUnified looks at version 2. There only a group without processes may pass controllers on, so this process moves
// into a group of its own below the one that it was given.
func (g *Groups) probeUnified() {
	fail := func(err error) {
		for _, c := range controllers {
			g.usable[c] = err
		}
	}
	own, err := ownGroup("")
	if err != nil {
		fail(err)
		return
	}
	own = strings.TrimSuffix(own, "/"+coreGroup) // we moved before
	dir := filepath.Join(cgroupRoot, own)
	if own != "/" {
		if err := moveSelf(dir); err != nil {
			fail(err)
			return
		}
	}
	text, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		fail(fmt.Errorf("controllers: %w", err))
		return
	}
	g.unified = own
	for _, c := range controllers {
		g.usable[c] = nil
		if !slices.Contains(strings.Fields(string(text)), string(c)) {
			g.usable[c] = errors.New("not delegated to " + own)
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+string(c)), 0); err != nil {
			g.usable[c] = fmt.Errorf("pass on: %w", err)
		}
	}
}

// coreGroup is the group of this process below the one that it was started in.
const coreGroup = "core"

// moveSelf leaves dir, if nobody else is in it.
func moveSelf(dir string) error {
	text, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return fmt.Errorf("group's processes: %w", err)
	}
	self := strconv.Itoa(os.Getpid())
	for _, pid := range strings.Fields(string(text)) {
		if pid != self {
			return errors.New("the group is shared with other processes; let the service manager delegate one")
		}
	}
	core := filepath.Join(dir, coreGroup)
	if err := os.MkdirAll(core, 0o755); err != nil {
		return fmt.Errorf("own group: %w", err)
	}
	if err := os.WriteFile(filepath.Join(core, "cgroup.procs"), []byte(self), 0); err != nil {
		return fmt.Errorf("move into own group: %w", err)
	}
	return nil
}

// group is one provider's control group. A nil one is allowed, and does nothing.
type group struct {
	split   cgroup1.Cgroup
	unified *cgroup2.Manager
	of      *Groups
	gone    atomic.Bool
	why     string   // what of the limits it does not hold
	dirs    []string // where its counters are: one in version 2, one for each controller in version 1
	cpu     string   // of these the one of the cpu controller; empty: it is not usable
}

// create makes the group of a slot with its limits. What the host does not allow is left out and said in why.
func (g *Groups) create(slot int, limits Limits) (*group, error) {
	name := "slot-" + strconv.Itoa(slot)
	out := &group{of: g}
	var missing []string
	var usable []controller
	for _, c := range controllers {
		if err := g.usable[c]; err != nil {
			missing = append(missing, fmt.Sprintf("no %s limit (%v)", c, err))
			continue
		}
		usable = append(usable, c)
	}
	out.why = strings.Join(missing, ", ")
	if len(usable) == 0 {
		return out, nil
	}
	var err error
	if g.unified != "" {
		out.dirs = []string{filepath.Join(cgroupRoot, g.unified, g.name, name)}
		if slices.Contains(usable, cpuController) {
			out.cpu = out.dirs[0]
		}
		out.unified, err = cgroup2.NewManager(cgroupRoot, filepath.Join(g.unified, g.name, name),
			unifiedLimits(usable, limits))
	} else {
		for _, c := range usable {
			if dir, err := g.splitDir(c); err == nil {
				out.dirs = append(out.dirs, slotDir(c, dir, name))
				if c == cpuController {
					out.cpu = slotDir(c, dir, name)
				}
			}
		}
		out.split, err = cgroup1.New(g.splitPath(name), splitLimits(limits), cgroup1.WithHierarchy(hierarchy(usable)))
	}
	if err != nil {
		return nil, fmt.Errorf("control group: %w", err)
	}
	if out.cpu != "" { // of a core that died it may be here still, and make way for ever
		_ = out.idle(false) // an error leaves it as it was
	}
	g.weigh(1)
	return out, nil
}

func (g *Groups) splitPath(name string) cgroup1.Path {
	return func(c cgroup1.Name) (string, error) {
		own, err := ownGroup(string(c))
		return slotDir(controller(c), filepath.Join(own, g.name), name), err
	}
}

func hierarchy(usable []controller) cgroup1.Hierarchy {
	return func() (out []cgroup1.Subsystem, err error) {
		for _, c := range usable {
			switch c {
			case memoryController:
				out = append(out, cgroup1.NewMemory(cgroupRoot, cgroup1.OptionalSwap()))
			case cpuController:
				out = append(out, cgroup1.NewCpu(cgroupRoot))
			case pidsController:
				out = append(out, cgroup1.NewPids(cgroupRoot))
			}
		}
		return out, nil
	}
}

// quota is the time on processors in a period, in µs.
func quota(percent uint64) int64 { return int64(max(percent*cpuPeriod/100, 1000)) }

func splitLimits(l Limits) *specs.LinuxResources {
	r := &specs.LinuxResources{}
	if l.Memory > 0 {
		bytes := int64(l.Memory)
		r.Memory = &specs.LinuxMemory{Limit: &bytes, Swap: &bytes} // memory and swap together: no swap
	}
	if l.CPU > 0 {
		share, period := quota(l.CPU), uint64(cpuPeriod)
		r.CPU = &specs.LinuxCPU{Quota: &share, Period: &period}
	}
	if l.Processes > 0 {
		count := int64(l.Processes)
		r.Pids = &specs.LinuxPids{Limit: &count}
	}
	return r
}

func unifiedLimits(usable []controller, l Limits) *cgroup2.Resources {
	r := &cgroup2.Resources{}
	if slices.Contains(usable, memoryController) && l.Memory > 0 {
		bytes, none := int64(l.Memory), int64(0)
		r.Memory = &cgroup2.Memory{Max: &bytes, Swap: &none}
	}
	if slices.Contains(usable, cpuController) && l.CPU > 0 {
		share, period := quota(l.CPU), uint64(cpuPeriod)
		r.CPU = &cgroup2.CPU{Max: cgroup2.NewCPUMax(&share, &period)}
	}
	if slices.Contains(usable, pidsController) && l.Processes > 0 {
		r.Pids = &cgroup2.Pids{Max: int64(l.Processes)}
	}
	return r
}

func (g *group) empty() bool { return g == nil || g.split == nil && g.unified == nil }

// add puts a process into the group.
func (g *group) add(pid int) (err error) {
	switch {
	case g.empty():
		return nil
	case g.unified != nil:
		err = g.unified.AddProc(uint64(pid))
	default:
		err = g.split.AddProc(uint64(pid))
	}
	if err != nil {
		return fmt.Errorf("control group: %w", err)
	}
	return nil
}

// remove removes the group. Preconditions: its processes have ended. An error leaves it to the next start's sweep.
func (g *group) remove() {
	if g.empty() || g.gone.Swap(true) {
		return
	}
	g.of.weigh(-1)
	switch {
	case g.unified != nil:
		_ = g.unified.Delete()
	default:
		_ = g.split.Delete()
	}
}
