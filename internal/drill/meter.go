package drill

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// tick is the kernel's unit of processor time in /proc: 100 a second on every Linux that Go runs on (proc(5)).
const tick = 10 * time.Millisecond

// meter measures a provider's processes through /proc.
type meter struct {
	pid   int // whose processor time is measured: a new process begins anew
	began time.Time
	start time.Duration
}

// read returns the most that was ever seen.
func (m *meter) read(pid int, now time.Time, most Usage) Usage {
	if pid == 0 {
		return most
	}
	spent := processorTime(pid)
	if m.pid != pid {
		*m = meter{pid: pid, began: now, start: spent}
	}
	if measured := now.Sub(m.began); measured > time.Second {
		most.CPUPercent = max(most.CPUPercent, int(100*(spent-m.start)/measured))
	}
	most.MemoryMiB = max(most.MemoryMiB, field(readProc(pid, "statm"), 1)*os.Getpagesize()>>20)
	if fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid)); err == nil {
		most.Files = max(most.Files, len(fds))
	}
	most.Processes = max(most.Processes, tasksOf(pid))
	return most
}

func readProc(pid int, name string) string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name))
	if err != nil {
		return "" // it has ended
	}
	return string(text)
}

// field returns the nth number of a line, or 0.
func field(line string, n int) int {
	fields := strings.Fields(line)
	if n >= len(fields) {
		return 0
	}
	number, err := strconv.Atoi(fields[n])
	if err != nil {
		return 0
	}
	return number
}

// processorTime is what a process has used, in user and kernel mode.
func processorTime(pid int) time.Duration {
	line := readProc(pid, "stat")
	rest := line[strings.LastIndexByte(line, ')')+1:] // the name may hold anything
	return time.Duration(field(rest, 11)+field(rest, 12)) * tick
}

// tasksOf counts the processes and threads in the pid namespace of a provider's process. Its user will not do: on a
// host with two platforms, theirs are the same.
func tasksOf(pid int) (n int) {
	own := pidNamespace(pid)
	if own == "" || own == pidNamespace(os.Getpid()) {
		return 0
	}
	processes, _ := filepath.Glob("/proc/[0-9]*") // the pattern is well-formed
	for _, dir := range processes {
		other, err := strconv.Atoi(filepath.Base(dir))
		if err != nil || pidNamespace(other) != own {
			continue
		}
		if tasks, err := os.ReadDir(filepath.Join(dir, "task")); err == nil {
			n += len(tasks)
		}
	}
	return n
}

// pidNamespace names the pid namespace of a process that has not ended.
func pidNamespace(pid int) string {
	name, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid))
	if err != nil {
		return ""
	}
	return name
}
