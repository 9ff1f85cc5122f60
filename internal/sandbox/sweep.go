package sandbox

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A folder of groups is locked by the daemon that it belongs to, for as long as that lives: this is how another one
// knows what nobody will remove any more.

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

// claim makes and locks this daemon's folder. Without the lock everything works, but others may take us for dead.
func (g *Groups) claim() {
	tops := g.tops(g.name)
	if len(tops) == 0 {
		return
	}
	for range claimTries {
		if os.MkdirAll(tops[0], 0o755) != nil {
			return
		}
		if f := lockFolder(tops[0]); f != nil {
			g.lock = f
			return
		}
		time.Sleep(claimWait)
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
	own := g.tops(g.name)
	if len(own) == 0 {
		return
	}
	others, _ := filepath.Glob(filepath.Join(filepath.Dir(own[0]), groupPrefix+"*")) // the pattern is well-formed
	for _, dir := range others {
		name := filepath.Base(dir)
		if name == g.name || strings.Contains(name, flatMark) {
			continue
		}
		f := lockFolder(dir)
		if f == nil {
			continue // it lives
		}
		for _, top := range g.tops(name) {
			empty(top)
			_ = unix.Rmdir(top)
		}
		closeFile(f)
	}
	for _, top := range own {
		empty(top)
	}
}

// empty ends who is left in the groups of a folder and removes them. A group that is not empty yet stays for the next
// time; its limits are set anew when it is used.
func empty(top string) {
	slots, _ := filepath.Glob(filepath.Join(top, "slot-*")) // the patterns are well-formed
	beside, _ := filepath.Glob(top + flatMark + "slot-*")
	for _, slot := range append(slots, beside...) {
		killAll(slot)
		_ = unix.Rmdir(slot)
	}
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

// Close removes the folder of this daemon's groups. Preconditions: its providers have ended.
func (g *Groups) Close() {
	for _, top := range g.tops(g.name) {
		_ = unix.Rmdir(top)
	}
	if g.lock != nil {
		closeFile(g.lock)
	}
}
