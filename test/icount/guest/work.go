package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// How much is measured.
const (
	files      = 200
	fileSize   = 4000 // bytes; each renewal adds one, and they shall stay within a page
	programs   = 20
	openRounds = 3
	execRounds = 14
	settled    = 50 * time.Millisecond // a file that has just changed is judged each time: another change may not show
)

// program is the least that Linux executes on x86-64: one loadable segment, which ends the process.
func program() []byte {
	const base, header, entry = 0x400000, 64, 64 + 56
	code := []byte{0xb8, 60, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05} // mov eax, exit; xor edi, edi; syscall
	b := make([]byte, entry, entry+len(code))
	copy(b, "\x7fELF\x02\x01\x01")
	le := binary.LittleEndian
	le.PutUint16(b[16:], 2)  // an executable
	le.PutUint16(b[18:], 62) // for x86-64
	le.PutUint32(b[20:], 1)
	le.PutUint64(b[24:], base+entry)
	le.PutUint64(b[32:], header) // where the segment's header is
	le.PutUint16(b[52:], header)
	le.PutUint16(b[54:], 56)
	le.PutUint16(b[56:], 1)
	le.PutUint32(b[64:], 1) // to load,
	le.PutUint32(b[68:], 5) // to read and execute
	le.PutUint64(b[80:], base)
	le.PutUint64(b[88:], base)
	le.PutUint64(b[96:], uint64(entry+len(code)))
	le.PutUint64(b[104:], uint64(entry+len(code)))
	le.PutUint64(b[112:], 0x1000)
	return append(b, code...)
}

func filePath(dir string, i int) string    { return filepath.Join(dir, "files", strconv.Itoa(i)) }
func emptyPath(dir string, i int) string   { return filepath.Join(dir, "empty", strconv.Itoa(i)) }
func programPath(dir string, i int) string { return filepath.Join(dir, "programs", strconv.Itoa(i)) }

// populate makes what the work is about, each file with another content.
func populate(dir string) error {
	for _, name := range []string{"files", "empty", "programs"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			return err
		}
	}
	for i := range files {
		content := make([]byte, fileSize)
		binary.NativeEndian.PutUint64(content, uint64(i))
		if err := os.WriteFile(filePath(dir, i), content, 0o644); err != nil {
			return err
		}
		if err := os.WriteFile(emptyPath(dir, i), nil, 0o644); err != nil {
			return err
		}
	}
	for i := range programs {
		content := append(program(), byte(i))
		if err := os.WriteFile(programPath(dir, i), content, 0o755); err != nil {
			return err
		}
	}
	return nil
}

// renew makes every verdict on a file out of date without opening it.
func renew(path string) error {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return fmt.Errorf("look at %s: %w", path, err)
	}
	return unix.Truncate(path, st.Size+1)
}

// now is the machine's clock: one nanosecond for each instruction.
func now() int64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) // cannot fail: the clock exists
	return ts.Nano()
}

// ops are what each operation of a workload took.
type ops []int64

// middle is the mean of the middle half. A median would jump where an operation takes one of two ways, and a mean
// follows the few that a timer or a collection fell into.
func (o ops) middle() int64 {
	slices.Sort(o)
	half := o[len(o)/4 : len(o)-len(o)/4]
	sum := int64(0)
	for _, x := range half {
		sum += x
	}
	return sum / int64(len(half))
}

// work measures and prints what one operation takes, by workload.
func work(dir string, execsOnly bool) error {
	runtime.LockOSThread()
	debug.SetGCPercent(-1)
	took := map[string]ops{}
	measure := func(name string, one func(path string) error, paths []string) error {
		for _, path := range paths {
			began := now()
			if err := one(path); err != nil {
				return err
			}
			took[name] = append(took[name], now()-began)
		}
		return nil
	}
	both := func(name string, one func(path string) error, paths []string, rounds int) error {
		for range rounds {
			for _, path := range paths {
				if err := renew(path); err != nil {
					return err
				}
			}
			time.Sleep(settled)
			if err := errors.Join(measure(name+" first", one, paths), measure(name+" again", one, paths)); err != nil {
				return err
			}
		}
		return nil
	}
	opened, empty, executed := make([]string, files), make([]string, files), make([]string, programs)
	for i := range files {
		opened[i], empty[i] = filePath(dir, i), emptyPath(dir, i)
	}
	for i := range programs {
		executed[i] = programPath(dir, i)
	}
	if !execsOnly {
		if err := both("open", openOne, opened, openRounds); err != nil {
			return err
		}
		for range openRounds { // nobody has subscribed to empty files
			if err := measure("open passed", openOne, empty); err != nil {
				return err
			}
		}
	}
	if err := both("exec", execute, executed, execRounds); err != nil {
		return err
	}
	out := map[string]int64{}
	for name, o := range took {
		out[name] = o.middle()
	}
	return json.NewEncoder(os.Stdout).Encode(out)
}

// openOne opens and closes without telling Go's scheduler: what that does while the kernel holds the caller is no part
// of an open.
func openOne(path string) error {
	name, err := unix.BytePtrFromString(path)
	if err != nil {
		return err
	}
	fd, _, errno := unix.RawSyscall6(unix.SYS_OPENAT, ^uintptr(-unix.AT_FDCWD-1), uintptr(unsafe.Pointer(name)),
		unix.O_RDONLY|unix.O_CLOEXEC, 0, 0, 0)
	if errno != 0 {
		return fmt.Errorf("open: %w", errno)
	}
	_, _, _ = unix.RawSyscall(unix.SYS_CLOSE, fd, 0, 0)
	return nil
}

func execute(path string) error {
	pid, err := syscall.ForkExec(path, []string{path}, &syscall.ProcAttr{})
	if err != nil {
		return fmt.Errorf("execute: %w", err)
	}
	var status syscall.WaitStatus
	for {
		if _, err = syscall.Wait4(pid, &status, 0, nil); !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil || status != 0 {
		return fmt.Errorf("the program ended with %#x, %w", uint32(status), err)
	}
	return nil
}
