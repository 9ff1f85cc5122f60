package sandbox

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Usage is what a provider and all that it started have used.
type Usage struct {
	CPU    time.Duration // on processors
	Memory uint64        // bytes, the most at any time
	Ran    time.Duration // since the start, until the end
}

// Add sums up two processes of one provider, one after the other.
func (u Usage) Add(v Usage) Usage {
	return Usage{CPU: u.CPU + v.CPU, Memory: max(u.Memory, v.Memory), Ran: u.Ran + v.Ran}
}

// Usage returns what the process has used until now, or until its end. It is read from the control group, which counts
// everything that the provider started; where there is none, from the process alone. What cannot be read is 0.
func (p *Process) Usage() Usage {
	if last := p.used.Load(); last != nil {
		return *last
	}
	u := p.group.usage()
	if u.CPU == 0 || u.Memory == 0 {
		own := processUsage(p.PID)
		if u.CPU == 0 {
			u.CPU = own.CPU
		}
		if u.Memory == 0 {
			u.Memory = own.Memory
		}
	}
	u.Ran = time.Since(p.begun)
	return u
}

// settle keeps what the process used in all. Preconditions: it was waited for, and its group is still there.
func (p *Process) settle() {
	u := p.group.usage()
	if state := p.cmd.ProcessState; state != nil {
		if own := state.SystemTime() + state.UserTime(); u.CPU == 0 {
			u.CPU = own
		}
		if own, ok := state.SysUsage().(*syscall.Rusage); ok && u.Memory == 0 {
			u.Memory = uint64(own.Maxrss) << 10 // getrusage(2): kilobytes
		}
	}
	u.Ran = time.Since(p.begun)
	p.used.Store(&u)
}

// usage reads the group's counters: of version 2 cpu.stat and memory.peak (since Linux 5.19), of version 1
// cpuacct.usage, which lies beside the limits of cpu, and memory.max_usage_in_bytes.
func (g *group) usage() (u Usage) {
	switch {
	case g.empty():
	case g.unified != nil:
		u.CPU = time.Duration(readKey(filepath.Join(g.dirs[0], "cpu.stat"), "usage_usec")) * time.Microsecond
		if u.Memory = readNumber(filepath.Join(g.dirs[0], "memory.peak")); u.Memory == 0 {
			u.Memory = readNumber(filepath.Join(g.dirs[0], "memory.current"))
		}
	default:
		for _, dir := range g.dirs {
			u.CPU = max(u.CPU, time.Duration(readNumber(filepath.Join(dir, "cpuacct.usage"))))
			u.Memory = max(u.Memory, readNumber(filepath.Join(dir, "memory.max_usage_in_bytes")))
		}
	}
	return u
}

// readNumber reads a file that holds one number; 0 for one that cannot be read.
func readNumber(path string) uint64 {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	n, _ := strconv.ParseUint(string(bytes.TrimSpace(text)), 10, 64) // 0 for what is none
	return n
}

// readKey reads the number after a key at the beginning of a line.
func readKey(path, key string) uint64 {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if words := strings.Fields(line); len(words) > 1 && strings.TrimSuffix(words[0], ":") == key {
			n, _ := strconv.ParseUint(words[1], 10, 64) // 0 for what is none
			return n
		}
	}
	return 0
}

// userHz is the unit of times in /proc, on every architecture that Go has.
const userHz = 100

// processUsage reads one process: times in the fields 14 to 17 of stat (proc_pid_stat(5)), with those of children that
// were waited for, and the most of its resident memory.
func processUsage(pid int) (u Usage) {
	dir := fmt.Sprintf("/proc/%d", pid)
	u.Memory = readKey(dir+"/status", "VmHWM") << 10
	u.CPU = processTime(pid)
	return u
}

// processTime is a process's time on processors, with that of children that were waited for.
func processTime(pid int) (spent time.Duration) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:])) // from field 3 on: a name may hold anything
	for _, f := range fields[min(11, len(fields)):min(15, len(fields))] {
		ticks, _ := strconv.ParseInt(f, 10, 64) // 0 for what is none
		spent += time.Duration(ticks) * time.Second / userHz
	}
	return spent
}
