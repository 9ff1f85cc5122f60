package playground

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
	// LockName is the lock in a playground's folder: whoever holds it uses the folder.
	LockName = ".lock"

	reapTime = 10 * time.Second // for what the stage started to end after it
)

// Home is the folder of one performance.
type Home struct {
	Dir string

	lock *os.File
}

// Claim makes a folder below temp that providers can pass through, and locks it. Its name begins with prefix.
func Claim(temp, prefix string) (*Home, error) {
	dir, err := os.MkdirTemp(temp, prefix)
	if err != nil {
		return nil, fmt.Errorf("make a folder: %w", err)
	}
	h := &Home{Dir: dir}
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, errors.Join(fmt.Errorf("make a folder: %w", err), os.RemoveAll(dir))
	}
	h.lock, err = lock(filepath.Join(dir, LockName))
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

// Sweep removes the folders below temp of performances whose processes were all killed at once. It is best effort, and
// touches only what belongs to this user and what nobody holds.
func Sweep(temp, prefix string) {
	dirs, _ := filepath.Glob(filepath.Join(temp, prefix+"*")) // the pattern is well-formed
	for _, dir := range dirs {
		var st unix.Stat_t
		if unix.Lstat(dir, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR || int(st.Uid) != os.Geteuid() {
			continue
		}
		path := filepath.Join(dir, LockName)
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

// Leave waits for the end of everything that the stage started, removes the folder, and names what is left behind. It
// must be called when no child of this process is awaited elsewhere.
func (h *Home) Leave() (traces []string) {
	return append(h.reap(reapTime), h.remove()...)
}

// reap waits for every process that the stage started and left to us. Whoever is still there after patience
// is killed and named. It must be called when no child of ours is awaited elsewhere.
func (h *Home) reap(patience time.Duration) (traces []string) {
	if WaitAll(patience) {
		return nil
	}
	for _, p := range Children(os.Getpid()) {
		traces = append(traces, fmt.Sprintf("process %d (%s), which had to be killed", p.PID, p.Name))
		_ = unix.Kill(p.PID, unix.SIGKILL)
	}
	if !WaitAll(patience) {
		traces = append(traces, "a process that cannot be killed")
	}
	return traces
}

// WaitAll waits for children until the kernel says that there is none, at most d, and reports that. Orphans count
// where this process is their reaper.
func WaitAll(d time.Duration) bool {
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
func (h *Home) remove() (traces []string) {
	err := errors.Join(h.lock.Close(), os.RemoveAll(h.Dir))
	if err != nil {
		traces = append(traces, err.Error())
	}
	if _, err := os.Lstat(h.Dir); !errors.Is(err, os.ErrNotExist) {
		traces = append(traces, "folder "+h.Dir)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		traces = append(traces, err.Error())
	}
	if strings.Contains(string(mounts), h.Dir) {
		traces = append(traces, "a mount below "+h.Dir)
	}
	return traces
}

// Process is one process.
type Process struct {
	PID  int
	Name string
}

// Children lists the processes whose parent is the given one.
func Children(parent int) (list []Process) {
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
			list = append(list, Process{PID: pid, Name: string(text[open+1 : end])})
		}
	}
	return list
}

// ended reports whether err is that of a command that has ended already.
func ended(err error) bool {
	return errors.Is(err, os.ErrProcessDone) || errors.Is(err, syscall.ESRCH)
}
