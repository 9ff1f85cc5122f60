package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/internal/control"
	"github.com/keepout-security/keepout/internal/crash"
	"github.com/keepout-security/keepout/internal/sandbox"
	"github.com/keepout-security/keepout/internal/sensor"
)

// gatherKernel asks the kernel what it can. It changes nothing.
func gatherKernel() kernelFacts {
	var k kernelFacts
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		k.release = unix.ByteSliceToString(name.Release[:])
	}
	if os.Geteuid() == 0 {
		k.events = sensor.Probe()
	} else {
		k.eventsUntry = "only root can make a group"
	}
	k.landlock, k.landlockErr = sandbox.LandlockABI()
	k.seccomp, k.seccompErr = line("/proc/sys/kernel/seccomp/actions_avail")
	var text string
	if text, k.usernsErr = line("/proc/sys/user/max_user_namespaces"); k.usernsErr == nil {
		k.userns, k.usernsErr = strconv.Atoi(text)
	}
	k.lsm, k.lsmErr = line("/sys/kernel/security/lsm")
	k.cgroup = cgroupVersion()
	return k
}

// cgroupVersion tells by the file system that is mounted at the usual place.
func cgroupVersion() int {
	var s unix.Statfs_t
	if unix.Statfs("/sys/fs/cgroup", &s) != nil {
		return 0
	}
	if s.Type == unix.CGROUP2_SUPER_MAGIC {
		return 2
	}
	if info, err := os.Stat("/sys/fs/cgroup/memory"); err == nil && info.IsDir() {
		return 1
	}
	return 0
}

// line reads the one line of a file in /proc or /sys.
func line(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// gatherHost looks at clock and descriptors, and at the disk where the core writes, if it has told where.
func gatherHost(c *control.Checkup) hostFacts {
	h := hostFacts{clock: gatherClock()}
	if c != nil {
		h.state, h.stateFound = disk(c.Disk.StateDir), true
	}
	text, err := line("/proc/sys/fs/file-nr") // open, unused, limit; proc(5)
	if err == nil {
		var unused uint64
		_, err = fmt.Sscan(text, &h.fileOpen, &unused, &h.fileMax)
	}
	h.fileNrErr = err
	h.crashes, _ = crash.Saved("") // unreadable without root, and then there is nothing to tell
	return h
}

func disk(path string) diskFacts {
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		return diskFacts{path: path, err: fmt.Errorf("statfs: %w", err)}
	}
	block := uint64(max(s.Bsize, 1))
	return diskFacts{
		path: path, free: s.Bavail * block, total: s.Blocks * block, freeInodes: s.Ffree, maxInode: s.Files,
	}
}

// The status bit and state of adjtimex(2) for a clock that nobody disciplines; linux/timex.h.
const (
	staUnsync = 0x0040
	timeError = 5
)

func gatherClock() clockFacts {
	var c clockFacts
	var boot, mono unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot) == nil && unix.ClockGettime(unix.CLOCK_MONOTONIC, &mono) == nil {
		c.suspended = max(time.Duration(boot.Nano()-mono.Nano()), 0)
	}
	var x unix.Timex // no modes: it only reads, which everybody may
	state, err := unix.Adjtimex(&x)
	if err != nil {
		c.syncErr = fmt.Errorf("adjtimex: %w", err)
		return c
	}
	c.synced = state != timeError && x.Status&staUnsync == 0
	return c
}

// gatherSocket looks at the admin socket's owner and mode.
func gatherSocket(runDir string) socketFacts {
	s := socketFacts{path: filepath.Join(runDir, control.SocketName), group: -1}
	info, err := os.Lstat(s.path)
	if err != nil {
		s.err = err
		return s
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		s.err = errors.New("no owner is known")
		return s
	}
	s.mode, s.uid, s.gid = info.Mode(), owner.Uid, owner.Gid
	if dir, err := os.Stat(runDir); err == nil {
		s.dirMode = dir.Mode() & (fs.ModePerm | fs.ModeSticky)
	}
	if g, err := user.LookupGroup("keepout"); err == nil {
		if n, err := strconv.Atoi(g.Gid); err == nil {
			s.group = n
		}
	}
	return s
}
