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
	"github.com/keepout-security/keepout/internal/sensor/fanotify"
)

// Main is keepoutd: it runs the core from the program at path with args, until it is asked to end or a core that has
// never read ends by itself, and returns the exit code. The caller is locked to its thread: that one has the guard's
// share of the processors, and the core is told of its end (prctl(2)).
func Main(path string, args []string) int {
	group, err := fanotify.NewPermission()
	if err != nil {
		// There is nothing to guard. The core says why, and first what else it finds wrong.
		err = fmt.Errorf("%s: %w", path, syscall.Exec(path, append([]string{path}, args...), os.Environ()))
	} else {
		var g *Guard
		if g, err = prepare(group, path, args); err == nil {
			return g.run()
		}
	}
	fmt.Fprintln(os.Stderr, "keepoutd:", err)
	return 1
}

func prepare(group *fanotify.Group, path string, args []string) (*Guard, error) {
	pulse, page, err := link.NewPulse()
	if err != nil {
		return nil, err
	}
	program, err := load(path, args, group.FD(), page)
	if err != nil {
		return nil, err
	}
	// The kernel opens a descriptor for every event, in the table of whoever reads it. The core inherits the limit.
	var pipe [2]int
	if err = errors.Join(raiseFiles(), unix.Pipe2(pipe[:], unix.O_CLOEXEC|unix.O_NONBLOCK)); err != nil {
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
	g := &Guard{server: server{group: group}, program: program, pulse: pulse, say: say}
	g.poll[onGroup].Fd, g.poll[onSignal].Fd = int32(group.FD()), int32(pipe[0])
	for i := range g.poll {
		g.poll[i].Events = unix.POLLIN
	}
	return g, nil
}

// signals writes what arrives into a pipe that the guard sleeps on; 0 only wakes it.
func signals(pipe int) {
	caught := make(chan os.Signal, 16)
	signal.Notify(caught, unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGCHLD, unix.SIGPIPE)
	for s := range caught {
		number, _ := s.(syscall.Signal)
		if number == unix.SIGPIPE {
			continue // nobody reads our log any more, which is no reason to end
		}
		if number == unix.SIGCHLD {
			number = 0
		}
		_, _ = unix.Write(pipe, []byte{byte(number)}) // full only of signals that are still to be taken
	}
}

// niceness is the share of this thread, and of the core that it starts, on a crowded host: every open waits for one of
// them, and a core that gets no time is not to be told from one that hangs. (Not a real-time thread: while there is no
// core, that would keep the next one from starting.)
const niceness = -15

// share is what this thread is to have of the processors when it is not urgent. The slice, in nanoseconds, is the least
// that Linux 6.12 allows (__setparam_fair in kernel/sched/syscalls.c; older ones have one for all, of milliseconds):
// who asks for little at a time is served sooner, and the guard and the core need little.
func share() unix.SchedAttr {
	return unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_NORMAL, Nice: niceness, Runtime: 100_000}
}

// pin gives the guard its share, and keeps it in memory: pages that must come from a disk may come late, or need an
// answer first. The program is read in now; of the address space that Go reserves only what is used counts.
func pin() error {
	its := share()
	locked := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT)
	if err := errors.Join(unix.SchedSetAttr(0, &its, 0), locked); err != nil {
		return fmt.Errorf("sched_setattr, mlockall: %w", err)
	}
	maps, err := os.ReadFile("/proc/self/maps") // proc_pid_maps(5)
	if err != nil {
		return fmt.Errorf("own memory: %w", err)
	}
	for line := range strings.Lines(string(maps)) {
		var from, to uintptr
		if _, err := fmt.Sscanf(line, "%x-%x ", &from, &to); err != nil || !strings.Contains(line, " /") {
			continue
		}
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, from, to-from, unix.MADV_POPULATE_READ); errno != 0 {
			return fmt.Errorf("madvise: %w", errno)
		}
	}
	return nil
}
