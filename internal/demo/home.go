package demo

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	homePattern = "keepout-demo-"
	lockName    = ".lock"
	reapTime    = 10 * time.Second // for what the stage started to end after it
)

// home is the folder of one demonstration.
type home struct {
	dir  string
	lock *os.File
}

// claim makes a folder below temp that providers can pass through, and locks it.
func claim(temp string) (*home, error) {
	dir, err := os.MkdirTemp(temp, homePattern)
	if err != nil {
		return nil, fmt.Errorf("make a folder: %w", err)
	}
	h := &home{dir: dir}
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, errors.Join(fmt.Errorf("make a folder: %w", err), os.RemoveAll(dir))
	}
	h.lock, err = lock(filepath.Join(dir, lockName))
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return h, nil
}

// lock takes a file's lock without waiting. It is held until the last copy of the descriptor is closed.
func lock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
	}
	return f, nil
}

// sweep removes the folders of demonstrations whose processes were all killed at once. It is best effort, and
// touches only what belongs to this user and what nobody holds.
func sweep(temp string) {
	dirs, _ := filepath.Glob(filepath.Join(temp, homePattern+"*")) // the pattern is well-formed
	for _, dir := range dirs {
		var st unix.Stat_t
		if unix.Lstat(dir, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR || int(st.Uid) != os.Geteuid() {
			continue
		}
		path := filepath.Join(dir, lockName)
		if _, err := os.Lstat(path); err != nil {
			continue // one that is being made has no lock yet
		}
		held, err := lock(path)
		if err != nil {
			continue
		}
		_ = os.RemoveAll(dir)
		_ = held.Close()
	}
}

// reap waits for every process that the stage started and left to us. Whoever is still there after patience
// is killed and named. It must be called when no child of ours is awaited elsewhere.
func (h *home) reap(patience time.Duration) (traces []string) {
	if waitAll(patience) {
		return nil
	}
	for _, p := range children(os.Getpid()) {
		traces = append(traces, fmt.Sprintf("process %d (%s), which had to be killed", p.pid, p.name))
		_ = unix.Kill(p.pid, unix.SIGKILL)
	}
	if !waitAll(patience) {
		traces = append(traces, "a process that cannot be killed")
	}
	return traces
}

// waitAll waits for children until the kernel says that there is none, at most d. Orphans count: we are their
// reaper.
func waitAll(d time.Duration) bool {
	for end := time.Now().Add(d); time.Now().Before(end); {
		pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
		if errors.Is(err, unix.ECHILD) {
			return true
		}
		if err == nil && pid == 0 {
			time.Sleep(5 * time.Millisecond)
		}
	}
	return false
}

// remove removes the folder and looks whether that is true, for the mounts too.
func (h *home) remove() (traces []string) {
	err := errors.Join(h.lock.Close(), os.RemoveAll(h.dir))
	if err != nil {
		traces = append(traces, err.Error())
	}
	if _, err := os.Lstat(h.dir); !errors.Is(err, os.ErrNotExist) {
		traces = append(traces, "folder "+h.dir)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		traces = append(traces, err.Error())
	}
	if strings.Contains(string(mounts), h.dir) {
		traces = append(traces, "a mount below "+h.dir)
	}
	return traces
}

type process struct {
	pid  int
	name string
}

// children lists the processes whose parent is the given one.
func children(parent int) (list []process) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat") // the pattern is well-formed
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		// "pid (name) state ppid …"; the name may hold anything, so the last parenthesis ends it (proc(5)).
		open, end := strings.IndexByte(string(text), '('), strings.LastIndexByte(string(text), ')')
		if open < 0 || end < open {
			continue
		}
		fields := strings.Fields(string(text[end+1:]))
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err == nil && len(fields) > 1 && fields[1] == strconv.Itoa(parent) {
			list = append(list, process{pid: pid, name: string(text[open+1 : end])})
		}
	}
	return list
}

// ended reports whether err is that of a command that we ended ourselves.
func ended(err error) bool {
	return errors.Is(err, os.ErrProcessDone) || errors.Is(err, syscall.ESRCH)
}
