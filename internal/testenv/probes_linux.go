package testenv

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/internal/netlab"
)

// probeFanotify opens the kind of group that the sensor uses and closes it; without a mark it sees no event.
func probeFanotify() error {
	const flags = unix.FAN_CLASS_CONTENT | unix.FAN_REPORT_PIDFD | unix.FAN_CLOEXEC
	fd, err := unix.FanotifyInit(flags, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_LARGEFILE)
	if err != nil {
		return fmt.Errorf("fanotify_init: %w", err)
	}
	return unix.Close(fd)
}

// probeMountNS gives a child that does nothing a mount namespace of its own.
func probeMountNS() error {
	cmd := exec.Command("/bin/true") //nolint:noctx // it ends by itself at once
	cmd.SysProcAttr = privateMounts()
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("unshare mounts: %w", err)
	}
	return nil
}

// privateMounts makes the child unshare its mounts. The runtime then also makes "/" and all below it
// private in the child before it executes anything (syscall.forkAndExecInChild1), so no mount leaks back.
func privateMounts() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
}

// cgroupRoot is where the hierarchies of control groups are mounted.
const cgroupRoot = "/sys/fs/cgroup"

// probeCGroup1 makes a group in this process's own of two hierarchies, and removes it.
func probeCGroup1() error {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return fmt.Errorf("own control groups: %w", err)
	}
	found := 0
	for line := range strings.Lines(string(text)) { // hierarchy:controllers:path
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) < 3 || !slices.ContainsFunc([]string{"memory", "cpu", "pids"}, func(c string) bool {
			return slices.Contains(strings.Split(parts[1], ","), c)
		}) {
			continue
		}
		dir, err := os.MkdirTemp(filepath.Join(cgroupRoot, parts[1], parts[2]), "keepout-probe-")
		if err == nil {
			err = os.Remove(dir)
		}
		if err != nil {
			return fmt.Errorf("make a control group: %w", err)
		}
		found++
	}
	if found < 2 {
		return fmt.Errorf("%d hierarchies have limits for memory, processors or processes, want 2", found)
	}
	return nil
}

// probeNetNS makes two network namespaces and joins them.
func probeNetNS() error {
	star, err := netlab.NewStar(1)
	if err != nil {
		return err
	}
	return star.Close()
}

const (
	loopBytes    = 1 << 20 // size of the file that the probe attaches
	loopAttempts = 8       // another process may take the free device first
)

// probeLoop attaches a file to a free loop device and detaches it.
func probeLoop() error {
	backing, err := os.CreateTemp("", "keepout-loop-")
	if err != nil {
		return fmt.Errorf("make the loop file: %w", err)
	}
	defer func() { _ = backing.Close() }()
	if err := os.Remove(backing.Name()); err != nil {
		return fmt.Errorf("unlink the loop file: %w", err)
	}
	if err := backing.Truncate(loopBytes); err != nil {
		return fmt.Errorf("size the loop file: %w", err)
	}
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("open the loop control: %w", err)
	}
	defer func() { _ = control.Close() }()
	for range loopAttempts {
		if err = attachOnce(control, backing); !errors.Is(err, unix.EBUSY) {
			return err
		}
	}
	return err
}

func attachOnce(control, backing *os.File) error {
	number, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
	if err != nil {
		return fmt.Errorf("ask for a free loop device: %w", err)
	}
	device, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", number), os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("open the loop device: %w", err)
	}
	defer func() { _ = device.Close() }()
	if err := unix.IoctlSetInt(int(device.Fd()), unix.LOOP_SET_FD, int(backing.Fd())); err != nil {
		return fmt.Errorf("attach the loop device: %w", err)
	}
	if err := unix.IoctlSetInt(int(device.Fd()), unix.LOOP_CLR_FD, 0); err != nil {
		return fmt.Errorf("detach the loop device: %w", err)
	}
	return nil
}
