package lease

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// breakSignal tells the watching thread that somebody waits for a lease; a real-time signal, because those queue and
// carry the descriptor's number. The runtime and the C library use none so high.
const breakSignal = unix.Signal(50)

// ownerTID is F_OWNER_TID of linux/fcntl.h.
const ownerTID = 0

// ownerEx is struct f_owner_ex.
type ownerEx struct{ kind, id int32 }

// acquire takes a read lease through file, whose breaking is told to thread tid. It fails while anybody has the object
// open for writing, and on file systems without leases. It needs CAP_LEASE for the objects of others.
func acquire(file int, tid int32) bool {
	owner := ownerEx{ownerTID, tid}
	if _, _, errno := unix.RawSyscall(unix.SYS_FCNTL, uintptr(file), unix.F_SETOWN_EX,
		uintptr(unsafe.Pointer(&owner))); errno != 0 {
		return false
	}
	_, _, errno := unix.RawSyscall(unix.SYS_FCNTL, uintptr(file), unix.F_SETSIG, uintptr(breakSignal))
	return errno == 0 && setLease(file, unix.F_RDLCK)
}

func setLease(file int, kind uintptr) bool {
	_, _, errno := unix.Syscall(unix.SYS_FCNTL, uintptr(file), unix.F_SETLEASE, kind)
	return errno == 0
}

// giveUp ends a lease. Closing the descriptor is not enough: a provider may hold another one of the same opening.
func giveUp(file int) { _ = setLease(file, unix.F_UNLCK) }

// whole reports whether the lease is held and nobody waits for it: fcntl_getlease in fs/locks.c names the kind that the
// lease is about to become.
func whole(file int) bool {
	kind, _, errno := unix.RawSyscall(unix.SYS_FCNTL, uintptr(file), unix.F_GETLEASE, 0)
	return errno == 0 && kind == unix.F_RDLCK
}

// breaks is a descriptor from which the calling thread, and no other, reads that its leases are to be given up. The
// thread must be locked to its goroutine.
func breaks() (int, error) {
	var set unix.Sigset_t
	for _, s := range []unix.Signal{breakSignal, unix.SIGIO} { // SIGIO comes when the queue of signals is full
		set.Val[(s-1)/64] |= 1 << ((s - 1) % 64)
	}
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &set, nil); err != nil {
		return -1, fmt.Errorf("block lease signals: %w", err)
	}
	fd, err := unix.Signalfd(-1, &set, unix.SFD_CLOEXEC|unix.SFD_NONBLOCK)
	if err != nil {
		return -1, fmt.Errorf("signalfd: %w", err)
	}
	return fd, nil
}

// parseBreak returns the descriptor named by one struct signalfd_siginfo, or false for a signal that names none.
func parseBreak(b []byte) (file int, named bool) {
	if len(b) < int(unsafe.Sizeof(unix.SignalfdSiginfo{})) {
		return -1, false
	}
	info := (*unix.SignalfdSiginfo)(unsafe.Pointer(&b[0]))
	return int(info.Fd), unix.Signal(info.Signo) == breakSignal
}
