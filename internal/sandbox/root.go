package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// stage is where the new root is put together: a folder that every host has, and that we see as long as our
// descriptors of it are open.
const stage = "/proc"

// The devices of a provider: enough for a C library.
var devices = []string{"/dev/null", "/dev/zero", "/dev/urandom", "/dev/random"}

// piece is one part of the host, taken out of its tree before there is a new one.
type piece struct {
	fd   int
	path string // of the piece, on the host and in the cage
	dir  bool
}

// newRoot replaces the host's files by an empty tree with what was granted. Everything is looked up first, with the
// rights of the provider's user where it has a user namespace, and only links of mounts are made: no file is opened, so
// the kernel asks nobody.
func newRoot(l launch) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	pieces, err := gather(l)
	if err != nil {
		return err
	}
	unix.Umask(0o022)
	options := "mode=0755,size=64k,nr_inodes=1024"
	if err := unix.Mount("cage", stage, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		return fmt.Errorf("mount the root: %w", err)
	}
	for _, p := range pieces {
		if err := p.place(); err != nil {
			return err
		}
	}
	if err := finishRoot(pieces); err != nil {
		return err
	}
	// The new root covers the old one in its place, then the old one goes; pivot_root(2), "pivot_root(".", ".")".
	if err := unix.Chdir(stage); err != nil {
		return fmt.Errorf("enter the root: %w", err)
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("leave the old root: %w", err)
	}
	return nil
}

// gather takes every granted path out of the host's tree. What does not exist, or what the provider's user may not
// reach, is left out: the provider knows best what it misses.
func gather(l launch) (pieces []piece, err error) {
	take := func(path string, set uint64) error {
		if path == "" {
			return nil
		}
		p, err := takeOut(path, set)
		switch {
		case err == nil:
			pieces = append(pieces, p)
			return nil
		case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EACCES), errors.Is(err, unix.ENOTDIR):
			return nil
		}
		return fmt.Errorf("mount %s: %w", path, err)
	}
	const readOnly = unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV
	for _, path := range l.Mounts {
		if path == ProcPath {
			continue // below
		}
		if err := take(path, readOnly); err != nil {
			return nil, err
		}
	}
	for _, path := range l.Sockets {
		if err := take(socketMount(path), readOnly|unix.MOUNT_ATTR_NOEXEC); err != nil {
			return nil, err
		}
	}
	for _, path := range devices {
		if err := take(path, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC); err != nil {
			return nil, err
		}
	}
	if err := take(l.Content, readOnly|unix.MOUNT_ATTR_NOEXEC); err != nil {
		return nil, err
	}
	state := uint64(unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC)
	if err := take(l.StateDir, state); err != nil {
		return nil, err
	}
	if slices.Contains(l.Mounts, ProcPath) || !l.Probe && isScript() {
		p, err := ownProc()
		if err != nil {
			// Without it a script cannot be read; everybody else can do without.
			fmt.Fprintln(os.Stderr, "launch: no /proc:", err)
		} else {
			pieces = append(pieces, p)
		}
	}
	return sortPieces(pieces), nil
}

// sortPieces puts what lies within another piece after it; of one path, the first stays: a grant to read wins over
// none, and the state folder lies nowhere else.
func sortPieces(pieces []piece) []piece {
	slices.SortStableFunc(pieces, func(a, b piece) int { return len(a.path) - len(b.path) })
	seen := map[string]bool{}
	return slices.DeleteFunc(pieces, func(p piece) bool {
		twice := seen[p.path]
		seen[p.path] = true
		return twice
	})
}

// takeOut makes a copy of the mounts at a path that is attached nowhere. Symbolic links are followed, so that /lib
// works where it is a link into /usr. Mounts below it come along: in a user namespace the kernel gives them only
// together (mount_namespaces(7)).
func takeOut(path string, set uint64) (piece, error) {
	path = filepath.Clean(path)
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_RECURSIVE | unix.AT_NO_AUTOMOUNT)
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, flags)
	if err != nil {
		return piece{}, fmt.Errorf("open_tree: %w", err)
	}
	attr := &unix.MountAttr{Attr_set: set}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, attr); err != nil {
		return piece{}, fmt.Errorf("mount_setattr: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return piece{}, fmt.Errorf("stat: %w", err)
	}
	return piece{fd: fd, path: path, dir: st.Mode&unix.S_IFMT == unix.S_IFDIR}, nil
}

// ownProc makes a procfs of this pid namespace that shows nothing but its processes: no sys, no kcore (proc(5),
// subset=pid), and of them only the caller's own.
func ownProc() (piece, error) {
	fs, err := unix.Fsopen("proc", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return piece{}, fmt.Errorf("fsopen: %w", err)
	}
	defer func() { _ = unix.Close(fs) }()
	for _, option := range [][2]string{{"subset", "pid"}, {"hidepid", "invisible"}} {
		if err := unix.FsconfigSetString(fs, option[0], option[1]); err != nil {
			return piece{}, fmt.Errorf("option %s: %w", option[0], err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return piece{}, fmt.Errorf("create: %w", err)
	}
	attr := unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attr)
	if err != nil {
		return piece{}, fmt.Errorf("fsmount: %w", err)
	}
	return piece{fd: fd, path: ProcPath, dir: true}, nil
}

// place attaches the piece in the new root, at the path that it had.
func (p piece) place() error {
	at := filepath.Join(stage, p.path)
	if err := makePoint(at, p.dir); err != nil {
		return fmt.Errorf("place %s: %w", p.path, err)
	}
	if err := unix.MoveMount(p.fd, "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("place %s: %w", p.path, err)
	}
	_ = unix.Close(p.fd) // the mount stays
	return nil
}

// makePoint makes the folder or file that a piece covers. It may be there already, in a piece that was placed before.
func makePoint(at string, dir bool) error {
	folder := at
	if !dir {
		folder = filepath.Dir(at)
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	if dir {
		return nil
	}
	var st unix.Stat_t
	if unix.Stat(at, &st) == nil {
		return nil
	}
	return unix.Mknod(at, unix.S_IFREG|0o444, 0) // makes a file without opening one
}

// finishRoot links /dev/fd for interpreters and lets nobody change the root.
func finishRoot(pieces []piece) error {
	if slices.ContainsFunc(pieces, func(p piece) bool { return p.path == ProcPath }) {
		err := os.Symlink("/proc/self/fd", filepath.Join(stage, "dev", "fd"))
		if err != nil && !errors.Is(err, os.ErrExist) {
			return fmt.Errorf("link descriptors: %w", err)
		}
	}
	attr := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOEXEC}
	if err := unix.MountSetattr(unix.AT_FDCWD, stage, 0, attr); err != nil {
		return fmt.Errorf("make the root read-only: %w", err)
	}
	return nil
}

// crowded are folders in which a socket has neighbours that are nobody's business.
var crowded = []string{"/", "/run", "/var/run", "/tmp", "/var/tmp", "/dev/shm", "/dev", "/etc", "/var", "/var/lib"}

// socketMount is what is mounted for a socket: its folder, because a server that is restarted makes a new socket; or
// the socket alone, where the folder is everybody's.
func socketMount(path string) string {
	path = filepath.Clean(path)
	if dir := filepath.Dir(path); !slices.Contains(crowded, dir) {
		return dir
	}
	return path
}
