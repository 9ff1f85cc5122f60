package sandbox

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A folder of groups is locked in each hierarchy by the daemon that it belongs to, for as long as that lives: this is
// how another one knows what nobody will remove any more. It looks in each hierarchy, too: a process may be in a group
// of its own in one of them and share a group with many in another, as where a service manager puts memory aside only.

// claimTries and claimWait bound the waiting for another daemon that is just looking whether we live.
const (
	claimTries = 20
	claimWait  = 10 * time.Millisecond
)

// tops lists the folders of a daemon's groups, one for each hierarchy.
func (g *Groups) tops(name string) (dirs []string) {
	if g.unified != "" {
		return []string{filepath.Join(cgroupRoot, g.unified, name)}
	}
	for _, c := range controllers {
		if dir, err := g.splitDir(c); err == nil && g.usable[c] == nil {
			dirs = append(dirs, filepath.Join(filepath.Dir(dir), name))
		}
	}
	return dirs
}

// claim makes and locks this daemon's folders. Without the locks everything works, but others may take us for dead.
func (g *Groups) claim() {
	for _, top := range g.tops(g.name) {
		for range claimTries {
			if os.MkdirAll(top, 0o755) != nil {
				break
			}
			if f := lockFolder(top); f != nil {
				g.locks = append(g.locks, f)
				break
			}
			time.Sleep(claimWait)
		}
	}
}

// lockFolder locks a folder without waiting, or returns nil. It may have been removed, and made anew, since it was
// opened: then the lock is that of nobody's folder.
func lockFolder(dir string) *os.File {
	f, err := os.Open(dir)
	if err != nil {
		return nil
	}
	var held, there unix.Stat_t
	if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil && unix.Fstat(int(f.Fd()), &held) == nil &&
		unix.Stat(dir, &there) == nil && held.Ino == there.Ino && held.Dev == there.Dev {
		return f
	}
	closeFile(f)
	return nil
}

// sweep ends what daemons that were killed left in their groups, and removes the groups.
func (g *Groups) sweep() {
	for _, name := range others(g.tops(g.name)) {
		if name != g.name {
			g.bury(name)
		}
	}
	for _, f := range g.locks { // what is not locked may be another one's of the same name, in another container
		empty(f.Name())
	}
}

// others names the daemons that have something beside our folders, in whatever hierarchy: our parent in one may be that
// of daemons whose parent in another is not ours.
func others(own []string) (names []string) {
	for _, top := range own {
		found, _ := filepath.Glob(filepath.Join(filepath.Dir(top), groupPrefix+"*")) // the pattern is well-formed
		for _, dir := range found {
			name, _, _ := strings.Cut(filepath.Base(dir), flatMark)
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// bury removes the groups of a daemon, unless it lives. The first hierarchy, whose folder says that the daemon was one
// of our parent's, comes last, and only once nothing is left in the others.
func (g *Groups) bury(name string) {
	tops := g.tops(name)
	locks, ok := lockAll(tops)
	defer closeAll(locks)
	if !ok {
		return // it lives
	}
	held := func(top string) bool { // one that is made meanwhile is that of a daemon that starts
		return slices.ContainsFunc(locks, func(f *os.File) bool { return f.Name() == top })
	}
	ours := held(tops[0]) // otherwise nobody is ended: what is empty goes
	gone := true
	for i, top := range slices.Backward(tops) {
		for _, slot := range slots(top) {
			if ours {
				killAll(slot)
			}
			gone = removed(slot) && gone
		}
		if held(top) && (i > 0 || gone) {
			gone = removed(top) && gone
		}
	}
}

// lockAll locks those of the folders that are there, and reports whether it could.
func lockAll(dirs []string) (locks []*os.File, ok bool) {
	for _, dir := range dirs {
		if _, err := os.Lstat(dir); err != nil {
			continue
		}
		f := lockFolder(dir)
		if f == nil {
			return locks, false
		}
		locks = append(locks, f)
	}
	return locks, true
}

func closeAll(files []*os.File) {
	for _, f := range files {
		closeFile(f)
	}
}

// empty ends who is left in the groups of a folder and removes them. A group that is not empty yet stays for the next
// time; its limits are set anew when it is used.
func empty(top string) {
	for _, slot := range slots(top) {
		killAll(slot)
		_ = unix.Rmdir(slot)
	}
}

// slots lists the groups of a folder, in it and beside it.
func slots(top string) []string {
	in, _ := filepath.Glob(filepath.Join(top, "slot-*")) // the patterns are well-formed
	beside, _ := filepath.Glob(top + flatMark + "slot-*")
	return append(in, beside...)
}

// removed removes an empty group, and reports whether there is none now.
func removed(dir string) bool {
	err := unix.Rmdir(dir)
	return err == nil || errors.Is(err, unix.ENOENT)
}

// killAll ends who is left in a group of ours.
func killAll(dir string) {
	text, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return
	}
	for _, field := range strings.Fields(string(text)) {
		if pid, err := strconv.Atoi(field); err == nil && pid > 1 {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
}

// Close removes the folders of this daemon's groups that it could lock, the first hierarchy's last. Preconditions: its
// providers have ended.
func (g *Groups) Close() {
	for _, f := range slices.Backward(g.locks) {
		empty(f.Name()) // what a core before this one left, and could not be removed while its processes were ending
		_ = unix.Rmdir(f.Name())
	}
	closeAll(g.locks)
}
