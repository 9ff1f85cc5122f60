package main

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

func readFirst(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	_, err = f.Read(make([]byte, 1))
	return err
}

func readShadow(Orders, int) error { return readFirst("/etc/shadow") }

func readSecret(o Orders, _ int) error { return readFirst(o.Secret) }

// openByHandle opens a file by what names it inside its file system, past every path.
func openByHandle(o Orders, _ int) error {
	on, err := unix.Open(o.State, unix.O_RDONLY|unix.O_DIRECTORY, 0) // on the same file system
	if err != nil {
		return err
	}
	fd, err := unix.OpenByHandleAt(on, unix.NewFileHandle(o.Kind, o.Handle), unix.O_RDONLY)
	if err != nil {
		return err
	}
	_, err = unix.Read(fd, make([]byte, 1))
	return err
}

func writeOutside(o Orders, _ int) error {
	return os.WriteFile(filepath.Join(o.Scratch, fmt.Sprint("written-by-", os.Getpid())), []byte("x"), 0o600)
}

// reopenDescriptor turns a descriptor for reading into one for writing.
func reopenDescriptor(_ Orders, file int) error {
	f, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", file), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt([]byte("changed"), 0)
	return errors.Join(err, f.Close())
}

// procRoot reaches the host's files through another process.
func procRoot(o Orders, _ int) error {
	return readFirst(fmt.Sprintf("/proc/%d/root%s", o.Victim, o.Secret))
}

// corePattern would make the kernel run a program of the attacker's as root; it is opened and not written.
func corePattern(Orders, int) error {
	f, err := os.OpenFile("/proc/sys/kernel/core_pattern", os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return f.Close()
}

func kernelLog(Orders, int) error {
	f, err := os.OpenFile("/dev/kmsg", os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	return f.Close()
}

// makeDevice makes a device node of its own; that of /dev/full harms nobody.
func makeDevice(o Orders, _ int) error {
	path := filepath.Join(o.Scratch, fmt.Sprint("device-", os.Getpid()))
	for _, at := range []string{path, filepath.Join(o.State, "device")} {
		if err := unix.Mknod(at, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 7))); err == nil {
			return unix.Unlink(at)
		} else if at != path {
			return err
		}
	}
	return nil
}

// memfdExec executes a program that is in no file system. What it executes is no program: that the kernel finds this
// out is the success.
func memfdExec(Orders, int) error {
	fd, err := unix.MemfdCreate("attack", unix.MFD_EXEC)
	if err != nil {
		return err
	}
	if _, err := unix.Write(fd, []byte("not a program")); err != nil {
		return err
	}
	return executed(fd)
}

// stateExec drops a program into the state folder and executes it.
func stateExec(o Orders, _ int) error {
	path := filepath.Join(o.State, "dropped")
	if err := os.WriteFile(path, []byte("not a program"), 0o700); err != nil {
		return err
	}
	fd, err := unix.Open(path, unix.O_RDONLY, 0)
	if err != nil {
		return err
	}
	return executed(fd)
}

func executed(fd int) error {
	empty := [1]byte{}
	argv := [2]*byte{&empty[0], nil}
	_, _, errno := unix.RawSyscall6(unix.SYS_EXECVEAT, uintptr(fd), uintptr(unsafe.Pointer(&empty[0])),
		uintptr(unsafe.Pointer(&argv[0])), uintptr(unsafe.Pointer(&argv[1])), unix.AT_EMPTY_PATH, 0)
	if errno == unix.ENOEXEC {
		return nil
	}
	return errno
}

// The disk attacks write so much in all; the test's limit is far below, and its file system not far above.
const (
	diskBytes = 24 << 20
	fileBytes = 2 << 20
)

// fillDisk writes many files, each of a size that is allowed.
func fillDisk(o Orders, _ int) error {
	for i := range diskBytes / fileBytes {
		path := filepath.Join(o.State, fmt.Sprint("fill-", i))
		if err := os.WriteFile(path, make([]byte, fileBytes), 0o600); err != nil {
			return err
		}
	}
	return survive(o)
}

func bigFile(o Orders, _ int) error {
	signal.Ignore(syscall.SIGXFSZ) // which is how the kernel says it first
	f, err := os.Create(filepath.Join(o.State, "big"))
	if err != nil {
		return err
	}
	chunk := make([]byte, fileBytes)
	for range diskBytes / fileBytes {
		if _, err := f.Write(chunk); err != nil {
			return err
		}
	}
	if err := f.Close(); err != nil {
		return err
	}
	return survive(o)
}

// hiddenFile fills the disk with files that no folder shows.
func hiddenFile(o Orders, _ int) error {
	for i := range diskBytes / fileBytes {
		path := filepath.Join(o.State, fmt.Sprint("hidden-", i))
		f, err := os.Create(path)
		if err != nil {
			return err
		}
		if _, err := f.Write(make([]byte, fileBytes)); err != nil {
			return err
		}
		if err := unix.Unlink(path); err != nil {
			return err
		}
		if f.Fd() == 0 { // keeps f from being collected, and so closed
			return errors.New("descriptor 0")
		}
		kept = append(kept, f)
	}
	return survive(o)
}

// kept are files that must stay open.
var kept []*os.File
