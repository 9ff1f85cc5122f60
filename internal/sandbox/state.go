package sandbox

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/internal/beat"
)

// How often a state folder is looked after. What a provider can write between two looks is what it can be over its
// limit.
const (
	stateLook  = time.Second           // at the free space of its file system, which is one system call
	stateRest  = 4 * time.Second       // the same, while nobody writes to that file system
	stateHurry = 50 * time.Millisecond // at the folder, while it grows
	stateCount = 10 * time.Second      // at the folder, when little space was taken, or some was given back
	stateAgain = time.Minute           // the same, when the file system is as it was at the last count
)

// maxEntries bounds the files and folders below a state folder: each costs the file system an inode, and us a look.
const maxEntries = 10_000

// room is what a file system has left.
type room struct {
	bytes, entries uint64
	known          bool // some file systems do not say
}

func roomOf(dir string) room {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil || st.Blocks == 0 {
		return room{}
	}
	return room{bytes: st.Bfree * uint64(st.Bsize), entries: st.Ffree, known: true}
}

// less reports whether so much was taken since before that a folder with this limit must be looked at.
func (r room) less(before room, limit uint64) bool {
	return !r.known || !before.known || r.bytes+limit/16 < before.bytes || r.entries+maxEntries/16 < before.entries
}

// due reports whether a folder with this limit is to be counted again: since then is since the last count, when its
// file system had so much room before. What others remove from that file system can hide what is written to it, so any
// change counts, later.
func due(now, before room, limit uint64, since time.Duration) bool {
	switch {
	case now.less(before, limit):
		return true
	case now == before:
		return since > stateAgain
	}
	return since > stateCount
}

// watchState ends the provider when what it keeps on disk exceeds its limit. Counting a folder costs too much to do it
// every second for nothing.
func (p *Process) watchState(dir string, limit uint64, pid int, stop <-chan struct{}) {
	timer := time.NewTimer(stateHurry)
	defer timer.Stop()
	var counted time.Time
	var before, last room
	used, grows, look := uint64(0), false, stateLook
	for {
		select {
		case <-stop:
			return
		case <-timer.C:
		}
		now := roomOf(dir)
		if now == last {
			look = min(2*look, stateRest)
		} else {
			look = stateLook
		}
		last = now
		if grows || due(now, before, limit, time.Since(counted)) {
			bytes, entries := stateSize(dir, pid, limit)
			if reason := overLimit(bytes, entries, limit); reason != "" {
				p.end(reason)
				return
			}
			grows = bytes > used+limit/64
			used, counted, before = bytes, time.Now(), now
		}
		if grows {
			timer.Reset(stateHurry)
		} else {
			timer.Reset(beat.Next(look))
		}
	}
}

// overLimit says by how much a folder is over its limit, or "".
func overLimit(bytes uint64, entries int, limit uint64) string {
	switch {
	case bytes > limit:
		return fmt.Sprintf("state folder over its limit: %d bytes, limit %d", bytes, limit)
	case entries > maxEntries:
		return fmt.Sprintf("state folder over its limit: more than %d files", maxEntries)
	}
	return ""
}

// stateSize is what the folder takes up on disk, with files that were removed but that the provider's first process
// still holds open. It ends early when a limit is exceeded.
func stateSize(dir string, pid int, limit uint64) (bytes uint64, entries int) {
	var root unix.Stat_t
	if unix.Lstat(dir, &root) != nil {
		return 0, 0
	}
	// An error is a file that was removed meanwhile.
	_ = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // see above
		}
		entries++
		if info, err := e.Info(); err == nil {
			if st, ok := info.Sys().(*syscall.Stat_t); ok {
				bytes += uint64(st.Blocks) * blockSize // a file with two names counts twice
			}
		}
		if bytes > limit || entries > maxEntries {
			return filepath.SkipAll
		}
		return nil
	})
	return bytes + removedSize(pid, root.Dev), entries
}

// blockSize is the unit of st_blocks; stat(2).
const blockSize = 512

// removedSize is the size of files on a device that have no name any more and that a process holds open.
func removedSize(pid int, dev uint64) (bytes uint64) {
	links, err := os.Open("/proc/" + strconv.Itoa(pid) + "/fd")
	if err != nil {
		return 0 // it has ended
	}
	defer func() { _ = links.Close() }()
	names, _ := links.Readdirnames(-1) // what it has read is enough
	seen := map[uint64]bool{}
	for _, name := range names {
		// The descriptors that come with events may be of a server's file system, which is not to be asked.
		var st unix.Statx_t
		if unix.Statx(int(links.Fd()), name, unix.AT_STATX_DONT_SYNC, unix.STATX_BASIC_STATS, &st) != nil {
			continue
		}
		if st.Nlink == 0 && unix.Mkdev(st.Dev_major, st.Dev_minor) == dev && !seen[st.Ino] {
			seen[st.Ino] = true
			bytes += st.Blocks * blockSize
		}
	}
	return bytes
}
