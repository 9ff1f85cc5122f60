package store

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

// walk feeds a tree from a folder or a single file of the real file system, by descriptors: whatever happens to the
// names meanwhile, no link is followed and no other mount is entered.
func walk(t *tree, name string) error {
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ELOOP) {
		return t.refuse(CodeForbidden, "", "is a symbolic link", "name what it points to")
	}
	if err != nil {
		return unreadable(t.source, "", err)
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return unreadable(t.source, "", err)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return walkFolder(t, f, ".")
	}
	t.list.single = true
	return walkFile(t, f, path.Base(name))
}

// batch is how many names are read at once.
const batch = 256

func walkFolder(t *tree, dir *os.File, at string) error {
	for {
		names, err := dir.Readdirnames(batch)
		for _, name := range names {
			if err := walkEntry(t, dir, name, path.Join(at, name)); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return unreadable(t.source, at, err)
		}
	}
}

// walkEntry looks before it opens, because opening a device can do something, and again afterwards.
func walkEntry(t *tree, dir *os.File, name, at string) error {
	if why := wrongName(name); why != "" { // before it is joined to a path, which would tidy it up
		return t.refuse(CodeName, name, why, "rename it: packages take printable UTF-8")
	}
	var st unix.Stat_t
	if err := unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return vanished(t, at, err)
	}
	if err := allowed(t, at, &st); err != nil {
		return err
	}
	fd, err := unix.Openat2(int(dir.Fd()), name, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
	})
	switch {
	case errors.Is(err, unix.EXDEV):
		return t.refuse(CodeForbidden, at, "is another file system", "unmount it, or copy what it holds")
	case err != nil:
		return vanished(t, at, err)
	}
	f := os.NewFile(uintptr(fd), at)
	defer f.Close()
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		if err := t.folder(at); err != nil {
			return err
		}
		return walkFolder(t, f, at)
	}
	return walkFile(t, f, at)
}

// vanished tells an entry that was just listed and is gone or another from one that cannot be read.
func vanished(t *tree, at string, err error) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.EAGAIN) {
		return t.changed(at)
	}
	return unreadable(t.source, at, err)
}

// allowed refuses everything but folders and plain files of one name.
func allowed(t *tree, at string, st *unix.Stat_t) error {
	kind, next := "", "remove it from the package"
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return nil
	case unix.S_IFREG:
	case unix.S_IFLNK:
		kind, next = "is a symbolic link", "put the file itself there"
	case unix.S_IFBLK, unix.S_IFCHR:
		kind = "is a device"
	case unix.S_IFIFO:
		kind = "is a pipe"
	case unix.S_IFSOCK:
		kind = "is a socket"
	default:
		kind = "is neither file nor folder"
	}
	switch {
	case kind != "":
	case st.Mode&(unix.S_ISUID|unix.S_ISGID) != 0:
		kind, next = "is set-user-id or set-group-id", "chmod a-s it"
	case st.Nlink > 1:
		// Whoever may write to the folder can link any file into it, also one that only root may read.
		kind, next = fmt.Sprintf("has %d names (hard links)", st.Nlink), "copy the file in place of the link"
	default:
		return nil
	}
	return t.refuse(CodeForbidden, at, kind, next)
}

// walkFile reads a file and makes sure that it stayed the same meanwhile.
func walkFile(t *tree, f *os.File, at string) error {
	var before, after unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &before); err != nil {
		return unreadable(t.source, at, err)
	}
	if err := allowed(t, at, &before); err != nil {
		return err
	}
	if before.Mode&unix.S_IFMT != unix.S_IFREG {
		return t.changed(at)
	}
	r := &reader{r: f}
	if err := t.file(at, before.Mode&0o111 != 0, before.Size, r); err != nil {
		if r.err != nil {
			return unreadable(t.source, at, r.err)
		}
		return err
	}
	if err := unix.Fstat(int(f.Fd()), &after); err != nil {
		return unreadable(t.source, at, err)
	}
	if before.Size != after.Size || before.Mtim != after.Mtim || before.Ctim != after.Ctim {
		return t.changed(at)
	}
	return nil
}

// reader remembers that reading went wrong, so that it is not taken for the store's disk.
type reader struct {
	r   io.Reader
	err error
}

// Read implements io.Reader.
func (r *reader) Read(b []byte) (int, error) {
	n, err := r.r.Read(b)
	if err != nil && !errors.Is(err, io.EOF) {
		r.err = err
	}
	return n, err
}
