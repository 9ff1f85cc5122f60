package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/provider"
)

// Bounds of the attacks, for the case that a cage does not hold. They lie above what the manifest asks for.
const (
	mostMemory    = 512 << 20 // bytes that leak takes
	mostForks     = 512       // processes that forkbomb has at one time
	mostKept      = 4096      // descriptors that fdleak keeps
	forkLife      = 3         // seconds that a forked process sleeps
	spinners      = 4         // threads that spin
	flapLife      = 400 * time.Millisecond
	leakStep      = 8 << 20
	pause         = 20 * time.Millisecond
	boundExceeded = 9 // exit code: the cage did not hold, the engine's own bound did
)

// caged says why this process must not misbehave, or nil: it has given up its user and the way back.
func caged() error {
	if os.Geteuid() == 0 {
		return errors.New("not in a cage: runs as root; faulty misbehaves for keepout drill only")
	}
	v, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	if err != nil {
		return fmt.Errorf("not in a cage: ask for no_new_privs: %w; faulty misbehaves for keepout drill only", err)
	}
	if v != 1 {
		return errors.New("not in a cage: no_new_privs is not set; faulty misbehaves for keepout drill only")
	}
	return nil
}

// begin commits a fault that needs no event.
func (p *plan) begin() {
	switch p.fault {
	case "flap":
		time.Sleep(flapLife)
		os.Exit(5)
	case "spin":
		for range spinners {
			go spin()
		}
	case "leak":
		leak()
	case "forkbomb":
		forkbomb()
	}
}

// spin burns a processor without ever entering the kernel.
func spin() {
	runtime.LockOSThread()
	for n := uint64(1); n != 0; {
		n = n*6364136223846793005 + 1 | 1
	}
}

// leak takes memory and touches it, until the limit ends this process.
func leak() {
	var kept [][]byte
	for total := 0; total < mostMemory; total += leakStep {
		block := make([]byte, leakStep)
		for i := 0; i < len(block); i += os.Getpagesize() {
			block[i] = 1
		}
		kept = append(kept, block)
		time.Sleep(pause)
	}
	runtime.KeepAlive(kept)
	os.Exit(boundExceeded)
}

// keep holds on to an event's descriptor for ever.
func keep(ev *provider.Event) {
	fd, err := unix.Dup(ev.FD())
	if err == nil && fd > mostKept {
		os.Exit(boundExceeded)
	}
}

// forkbomb starts processes as fast as it can, until the limit stops it, and goes on trying.
func forkbomb() {
	runtime.LockOSThread()
	sleep := unix.Timespec{Sec: forkLife}
	for alive := 0; alive < mostForks; {
		if fork(&sleep) {
			alive++
			continue
		}
		time.Sleep(pause)
		for { // those that have ended make room for new ones
			if pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); pid <= 0 || err != nil {
				break
			}
			alive--
		}
	}
	os.Exit(boundExceeded)
}

// fork starts a process that sleeps, ends with this one, and reports whether that went well. The child has this thread
// only, so it makes bare system calls and returns nowhere.
//
//go:norace
//go:nosplit
func fork(sleep *unix.Timespec) bool {
	pid, _, errno := unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 {
		return false
	}
	if pid != 0 {
		return true
	}
	_, _, _ = unix.RawSyscall(unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0)
	_, _, _ = unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(sleep)), 0, 0)
	for {
		_, _, _ = unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
	}
}
