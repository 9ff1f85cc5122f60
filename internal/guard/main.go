package guard

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/internal/guard/link"
	"github.com/keepout-security/keepout/internal/memexec"
	"github.com/keepout-security/keepout/internal/sensor/fanotify"
)

// Main is keepoutd: it runs the core from the program at path, which is absolute, with args, until it is asked to end
// or a core that has never read ends by itself, and returns the exit code. The caller is locked to its thread: that one
// has the guard's share of the processors, and the core is told of its end (prctl(2)).
func Main(path string, args []string) int {
	g, err := prepare(path, append([]string{path}, args...))
	if err != nil {
		fmt.Fprintln(os.Stderr, "keepoutd:", err)
		return 1
	}
	return g.run()
}

func prepare(path string, argv []string) (*Guard, error) {
	group, err := fanotify.NewPermission()
	if err != nil { // there is nothing to guard: the core says why, and first what else it finds wrong
		return nil, fmt.Errorf("%s: %w", path, syscall.Exec(path, argv, os.Environ()))
	}
	pulse, page, errPulse := link.NewPulse()
	image, errImage := memexec.Load("keepout-core", path)
	var pipe [2]int
	errPipe := unix.Pipe2(pipe[:], unix.O_CLOEXEC|unix.O_NONBLOCK)
	if err := errors.Join(errPulse, errImage, errPipe); err != nil {
		return nil, fmt.Errorf("prepare: %w", err)
	}
	go signals(pipe[1])
	say := make(chan string, 16)
	go func() {
		for line := range say {
			fmt.Fprintln(os.Stderr, "keepoutd:", line)
		}
	}()
	if err := pin(); err != nil {
		say <- fmt.Sprintf("no better than other processes: %v", err)
	}
	g := &Guard{group: group, pulse: pulse, page: page, image: image, argv: argv, say: say}
	g.poll[onSignal].Fd, g.poll[onSocket].Fd = int32(pipe[0]), -1
	for i := range g.poll {
		g.poll[i].Events = unix.POLLIN
	}
	return g, nil
}

// signals writes what arrives into a pipe that the guard sleeps on.
func signals(pipe int) {
	caught := make(chan os.Signal, 16)
	// SIGCHLD: the core was stopped or has ended. SIGPIPE: nobody reads our log any more, which is no reason to end.
	signal.Notify(caught, unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGCHLD, unix.SIGPIPE)
	for s := range caught {
		number, _ := s.(syscall.Signal)
		_, _ = unix.Write(pipe, []byte{byte(number)}) // full only of signals that are still to be taken
	}
}

// share is what this thread, and the core that it starts, is to have of the processors when it is not urgent. On a
// crowded host every open waits for one of them, and a core that gets no time is not to be told from one that hangs;
// but a real-time thread would, while there is no core, keep the next one from starting. The slice, in nanoseconds, is
// the least that Linux 6.12 allows (__setparam_fair in kernel/sched/syscalls.c; older ones have one for all, of
// milliseconds): who asks for little at a time is served sooner, and the guard and the core need little.
func share() unix.SchedAttr {
	return unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_NORMAL, Nice: -15, Runtime: 100_000}
}

// pin gives the guard its share, and keeps it in memory: pages that must come from a disk may come late, or need an
// answer first. The program is read in now; of the address space that Go reserves only what is used counts.
func pin() error {
	its := share()
	failed := os.NewSyscallError("sched_setattr", unix.SchedSetAttr(0, &its, 0))
	locked := os.NewSyscallError("mlockall", unix.Mlockall(unix.MCL_CURRENT|unix.MCL_FUTURE|unix.MCL_ONFAULT))
	maps, err := os.ReadFile("/proc/self/maps") // proc_pid_maps(5)
	for line := range strings.Lines(string(maps)) {
		var from, to uintptr
		if _, err := fmt.Sscanf(line, "%x-%x ", &from, &to); err != nil || !strings.Contains(line, " /") {
			continue
		}
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, from, to-from, unix.MADV_POPULATE_READ); errno != 0 {
			err = os.NewSyscallError("madvise", errno)
		}
	}
	return errors.Join(failed, locked, err)
}
