package sensor

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/sensor/fanotify"
)

// Watch is one watched path: the whole file system that holds it is marked, what lies under it is judged.
type Watch struct {
	Path   string
	Events []event.Type
}

// scope is what one configuration watches.
type scope struct {
	filesystems map[uint64]*filesystem // by device
}

// filesystem is one marked file system.
type filesystem struct {
	dev    uint64
	kind   string // "ext4", "fuse", …
	remote bool   // FUSE or network: another party answers for its content
	stable bool   // a read lease keeps its files from being changed unseen
	timed  bool   // and each change is seen in their times
	scans  bool   // what is written on it is offered to the providers
	path   string // one path on it, for marking
	fsid   [2]int32
	watch  []watched
	marked atomic.Pointer[Types] // of what is watched here; nil: none; written with the sensor's mu held
}

// asks are the types of events that are marked where they are watched.
func (f *filesystem) asks() Types {
	if types := f.marked.Load(); types != nil {
		return *types
	}
	return Types{}
}

// watched is one watch on a file system.
type watched struct {
	path   string
	whole  bool   // path is the root of its file system, so every path on it counts
	mount  uint64 // mount id through which path was resolved
	events map[event.Type]bool
}

// remoteKinds are the file systems whose content somebody else can change behind the kernel's back, or whose
// server can make any access wait. Magic numbers: linux/magic.h and the file systems' own headers.
var remoteKinds = map[int64]string{
	unix.FUSE_SUPER_MAGIC:  "fuse",
	unix.NFS_SUPER_MAGIC:   "nfs",
	unix.SMB_SUPER_MAGIC:   "smb",
	unix.SMB2_SUPER_MAGIC:  "smb2",
	unix.CIFS_SUPER_MAGIC:  "cifs",
	unix.AFS_SUPER_MAGIC:   "afs",
	unix.V9FS_MAGIC:        "9p",
	unix.CODA_SUPER_MAGIC:  "coda",
	unix.OCFS2_SUPER_MAGIC: "ocfs2",
	0x00C36400:             "ceph",
	0x01161970:             "gfs2",
}

// stableKinds are the file systems on which what a provider voted may be remembered: nobody changes a file but through
// this kernel's open files. Where the value is true, each change is seen in the file's times, too. On tmpfs it is not:
// it has no page_mkwrite, so a page that a writable shared mapping has read from can be stored to without anybody
// noticing (vma_wants_writenotify in mm/mmap.c; test/root holds it). An overlay is not among them: who maps a file of
// an overlay for writing has the one below open.
var stableKinds = map[int64]bool{
	unix.EXT4_SUPER_MAGIC: true, unix.XFS_SUPER_MAGIC: true, unix.BTRFS_SUPER_MAGIC: true, unix.TMPFS_MAGIC: false,
	unix.F2FS_SUPER_MAGIC: true, unix.SQUASHFS_MAGIC: true, unix.EROFS_SUPER_MAGIC_V1: true,
}

// newScope resolves the watches. A path that does not exist is an error: a watch that silently covers nothing
// is worse than none.
func newScope(watches []Watch) (*scope, error) {
	s := &scope{filesystems: map[uint64]*filesystem{}}
	for _, w := range watches {
		if err := s.add(w); err != nil {
			return nil, fmt.Errorf("watch %s: %w", w.Path, err)
		}
	}
	return s, nil
}

func (s *scope) add(w Watch) error {
	path, err := filepath.EvalSymlinks(w.Path)
	if err != nil {
		return fmt.Errorf("resolve: %w", err)
	}
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, unix.AT_STATX_DONT_SYNC, statMask, &st); err != nil {
		return fmt.Errorf("statx: %w", err)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		return fmt.Errorf("statfs: %w", err)
	}
	dev := unix.Mkdev(st.Dev_major, st.Dev_minor)
	f := s.filesystems[dev]
	if f == nil {
		f = &filesystem{dev: dev, path: path, fsid: fs.Fsid.Val, kind: "local"}
		if kind, ok := remoteKinds[fs.Type]; ok {
			f.kind, f.remote = kind, true
		}
		f.timed, f.stable = stableKinds[fs.Type]
		s.filesystems[dev] = f
	}
	wd := watched{path: path, mount: st.Mnt_id, events: map[event.Type]bool{}}
	// STATX_ATTR_MOUNT_ROOT says that path is where something is mounted; a bind mount of a folder would pass
	// for a whole file system, which judges more than was asked for, never less.
	wd.whole = st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0
	for _, t := range w.Events {
		wd.events[t] = true
	}
	f.watch = append(f.watch, wd)
	return nil
}

// The mark bits of each event type.
var (
	permBits   = map[event.Type]uint64{event.Open: fanotify.OpenPerm, event.Exec: fanotify.OpenExecPerm}
	notifyBits = map[event.Type]uint64{
		event.CloseWrite: fanotify.CloseWrite, event.Create: fanotify.Create,
		event.Rename: fanotify.Rename, event.Delete: fanotify.Delete,
	}
)

// mask gathers the bits that this file system's watches need for events of these types, out of one of the tables above.
func (f *filesystem) mask(bits map[event.Type]uint64, types *Types) (mask uint64) {
	for _, w := range f.watch {
		for t, bit := range bits {
			if w.events[t] && types[t] {
				mask |= bit
			}
		}
	}
	return mask
}

// masks are what both groups must see if these types are wanted.
func (f *filesystem) masks(types Types) (perm, notify uint64) {
	return f.mask(permBits, &types), f.notifyMask(&types)
}

// notifyMask is what the notify group must see if these types are wanted.
func (f *filesystem) notifyMask(types *Types) uint64 {
	mask := f.mask(notifyBits, types)
	if f.prescanned() && (types[event.Open] || types[event.Exec]) {
		mask |= fanotify.CloseWrite
	}
	return mask
}

// prescanned reports whether files are offered when their writers close them: where something is watched about which
// votes can be remembered.
func (f *filesystem) prescanned() bool {
	return f.scans && f.timed && !f.remote && (f.watches(event.Open) || f.watches(event.Exec))
}

// watches reports whether any watch on it wants events of type t.
func (f *filesystem) watches(t event.Type) bool {
	return slices.ContainsFunc(f.watch, func(w watched) bool { return w.events[t] })
}

// leads reports whether the path through which this file system was marked still leads to it. Where another one was
// mounted on it, a mark that is taken away by that path is the other's.
func (f *filesystem) leads() bool {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, f.path, unix.AT_STATX_DONT_SYNC, statMask, &st)
	return err == nil && unix.Mkdev(st.Dev_major, st.Dev_minor) == f.dev
}

// covers reports whether an event is to be judged. An object reached through another mount than the watch's own
// (a bind mount, another mount namespace) has a path that proves nothing, and one whose path is too long to be read
// has none, so they are judged.
func (f *filesystem) covers(t event.Type, path string, mount uint64) bool {
	for i := range f.watch {
		w := &f.watch[i]
		if !w.events[t] {
			continue
		}
		if w.whole || mount != w.mount || path == "" || under(path, w.path) {
			return true
		}
	}
	return false
}

// under reports whether path is dir or below it, by whole components.
func under(path, dir string) bool {
	if dir == "/" {
		return true
	}
	return strings.HasPrefix(path, dir) && (len(path) == len(dir) || path[len(dir)] == '/')
}

// knows reports whether a path that was read through this mount can be trusted.
func (f *filesystem) knows(path string, mount uint64) bool {
	return path != "" && slices.ContainsFunc(f.watch, func(w watched) bool { return w.mount == mount })
}

// find returns the file system of a file. Some (btrfs) give files another device number than the mount has;
// there the path decides.
func (s *scope) find(file *event.File) *filesystem {
	if f := s.filesystems[file.Dev]; f != nil {
		return f
	}
	for _, f := range s.filesystems {
		for i := range f.watch {
			if file.Path == "" || under(file.Path, f.watch[i].path) {
				return f
			}
		}
	}
	return nil
}

// notifies reports whether anything is watched for acts that have already happened.
func (s *scope) notifies() bool {
	all := allTypes()
	for _, f := range s.filesystems {
		if f.mask(notifyBits, &all) != 0 {
			return true
		}
	}
	return false
}

// byFSID returns the file system with the id that notify events carry.
func (s *scope) byFSID(id [2]int32) *filesystem {
	for _, f := range s.filesystems {
		if f.fsid == id {
			return f
		}
	}
	return nil
}
