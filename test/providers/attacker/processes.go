package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// firstMapping is an address of the victim's memory.
func firstMapping(pid int) (start uint64, err error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }()
	lines := bufio.NewScanner(f)
	if !lines.Scan() {
		return 0, errors.New("no mapping is shown")
	}
	_, err = fmt.Sscanf(lines.Text(), "%x-", &start)
	return start, err
}

func readMemory(o Orders, _ int) error {
	start, err := firstMapping(o.Victim)
	if err != nil {
		return err
	}
	f, err := os.Open(fmt.Sprintf("/proc/%d/mem", o.Victim))
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	_, err = f.ReadAt(make([]byte, 8), int64(start))
	return err
}

func vmReadv(o Orders, _ int) error {
	start, err := firstMapping(o.Victim)
	if err != nil {
		return err
	}
	buf := make([]byte, 8)
	local := []unix.Iovec{{Base: &buf[0], Len: 8}}
	_, err = unix.ProcessVMReadv(o.Victim, local, []unix.RemoteIovec{{Base: uintptr(start), Len: 8}}, 0)
	return err
}

// ptrace attaches to the victim without stopping it.
func ptrace(o Orders, _ int) error {
	_, _, errno := unix.RawSyscall6(unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(o.Victim), 0, 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil // the end of this process detaches
}

// signalVictim sends a signal that does nothing to a process that runs.
func signalVictim(o Orders, _ int) error { return unix.Kill(o.Victim, unix.SIGCONT) }

func stealDescriptor(o Orders, _ int) error {
	pidfd, err := unix.PidfdOpen(o.Victim, 0)
	if err != nil {
		return err
	}
	_, err = unix.PidfdGetfd(pidfd, 0, 0)
	return err
}

func sharedMemory(o Orders, _ int) error {
	id, err := unix.SysvShmGet(o.Key, 0, 0)
	if err != nil {
		return err
	}
	b, err := unix.SysvShmAttach(id, 0, unix.SHM_RDONLY)
	if err != nil {
		return err
	}
	return unix.SysvShmDetach(b)
}

// outliveCore gives up the signal that ends a provider with the core.
func outliveCore(Orders, int) error { return unix.Prctl(unix.PR_SET_PDEATHSIG, 0, 0, 0, 0) }

func dial(network, address string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	var d net.Dialer
	c, err := d.DialContext(ctx, network, address)
	if err != nil {
		return err
	}
	return c.Close()
}

func dialTCP(o Orders, _ int) error { return dial("tcp4", fmt.Sprintf("127.0.0.1:%d", o.Port)) }

func sendUDP(o Orders, _ int) error {
	var d net.Dialer
	c, err := d.DialContext(context.Background(), "udp4", fmt.Sprintf("127.0.0.1:%d", o.Port))
	if err != nil {
		return err
	}
	_, err = c.Write([]byte("x"))
	return errors.Join(err, c.Close())
}

func abstractSocket(o Orders, _ int) error { return dial("unix", "@"+o.Abstract) }

func pathSocket(o Orders, _ int) error { return dial("unix", o.Socket) }

func socket(family, kind, protocol int) error {
	fd, err := unix.Socket(family, kind, protocol)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

func netlink(Orders, int) error { return socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE) }

func rawSocket(Orders, int) error { return socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP) }

func packetSocket(Orders, int) error { return socket(unix.AF_PACKET, unix.SOCK_RAW, 0) }

// victimNamespace is a namespace of the victim, which is the test's own.
func victimNamespace(o Orders, kind string) (int, error) {
	return unix.Open(fmt.Sprintf("/proc/%d/ns/%s", o.Victim, strings.ToLower(kind)), unix.O_RDONLY, 0)
}
