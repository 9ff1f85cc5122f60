package sandbox

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// How a provider's threads are looked at.
const (
	// longStretch is a time on a processor from one pause to the next, for which others notice that they wait. A vote
	// takes some 0.05 ms; whoever computes is interrupted by the kernel's ticks alone, each 1 to 10 ms.
	longStretch = 500 * time.Microsecond

	// worthALook is the percentage of a processor that all threads together take for somebody to look closer.
	worthALook = 2

	// starving is the percentage of a processor below which a thread that wants to run, and goes last, is kept from it.
	starving = 4

	glance     = 100 * time.Millisecond // the first look, when there is none before to compare with
	mostLooked = 1024                   // threads
)

// longSlice is the slice of a thread that computes, in nanoseconds: longer than everybody else's, which is at most
// 3 ms where nobody asked for more (base_slice in kernel/sched/fair.c). Since Linux 6.12 who wakes with a shorter one
// runs at once (PREEMPT_SHORT), and need not wait for a tick. The thread gets the same time, in longer parts.
const longSlice = 10_000_000

// turns is what a thread has had of the processors.
type turns struct {
	ran time.Duration
	n   uint64 // times that it left one by itself, not because it was interrupted: on a busy host everybody is
}

// effort is what is known of a provider's threads. One goroutine at a time uses it.
type effort struct {
	at      time.Time // of the last look
	spent   time.Duration
	seenAt  time.Time
	seen    map[int]turns  // by thread, at seenAt; nil: nobody looked closer
	burning []int          // threads with long stretches
	last    bool           // it runs when nobody else wants to, as MakeWay said
	slices  map[int]uint64 // what threads were given, while it makes way
}

// Burn is what one look at a provider's processor time found.
type Burn struct {
	Percent int  // of a processor, taken in long stretches: what its neighbours had to wait for
	Works   bool // it had some time at all
	Starves bool // it wants to run, goes last, and hardly gets to: others do not leave it enough
}

// Burned says what the provider and all that it started took of the processors since the last call. Many short
// stretches are no burden and count nothing. The first call that finds some work takes 0.1 s; one that finds none reads
// a file or two. One goroutine at a time may call it.
func (p *Process) Burned() (b Burn) {
	e := &p.effort
	now, spent := time.Now(), p.group.spent(p.PID)
	if e.at.IsZero() {
		e.at = p.begun
	}
	total := percentOf(spent-e.spent, now.Sub(e.at))
	b.Starves = e.last && total < starving && anyRunnable(e.slices)
	e.at, e.spent, e.burning = now, spent, nil
	if total < worthALook {
		e.seen = nil
		return b
	}
	b.Works = true
	if e.seen == nil {
		e.seen, e.seenAt = p.turns(), time.Now()
		time.Sleep(glance)
	}
	after, at := p.turns(), time.Now()
	took, burning := stretches(e.seen, after)
	b.Percent = percentOf(took, at.Sub(e.seenAt))
	e.seen, e.seenAt, e.burning = after, at, burning
	return b
}

// anyRunnable reports whether one of the threads that made way wants to run.
func anyRunnable(threads map[int]uint64) bool {
	for tid := range threads {
		if readState(tid) == "R" {
			return true
		}
	}
	return false
}

// readState is the state of a thread: "R" runs or waits for a processor (proc(5), /proc/pid/status).
func readState(tid int) string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", tid))
	if err != nil {
		return ""
	}
	_, rest, _ := bytes.Cut(text, []byte("\nState:"))
	if words := bytes.Fields(rest); len(words) > 0 {
		return string(words[0])
	}
	return ""
}

func percentOf(part, whole time.Duration) int {
	if whole <= 0 {
		return 0
	}
	return int(100 * max(part, 0) / whole)
}

// stretches compares two looks: which threads ran in long stretches between them, and for how long in all. One that is
// new counts from its first turn on.
func stretches(before, after map[int]turns) (took time.Duration, burning []int) {
	for tid, now := range after {
		was := before[tid]
		if now.n < was.n {
			was = turns{} // another thread of the same number
		}
		ran := now.ran - was.ran
		if ran >= longStretch*time.Duration(max(now.n-was.n, 1)) {
			took += ran
			burning = append(burning, tid)
		}
	}
	return took, burning
}

// turns reads what each thread has had.
func (p *Process) turns() map[int]turns {
	all := map[int]turns{}
	for _, tid := range p.threads() {
		// Documentation/scheduler/sched-stats.rst: the first number is the nanoseconds on a processor.
		times := readWords(fmt.Sprintf("/proc/%d/schedstat", tid))
		if len(times) == 0 {
			continue // it has ended
		}
		ran, _ := strconv.ParseInt(times[0], 10, 64) // 0 for what is none
		all[tid] = turns{
			ran: time.Duration(ran),
			n:   readKey(fmt.Sprintf("/proc/%d/status", tid), "voluntary_ctxt_switches"),
		}
	}
	return all
}

// threads lists those of the provider and of all that it started; without a control group, its own.
func (p *Process) threads() (all []int) {
	names := []string{}
	switch {
	case p.group == nil || p.group.cpu == "":
		entries, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", p.PID)) // none when it has ended
		for _, e := range entries {
			names = append(names, e.Name())
		}
	case p.group.unified != nil:
		names = readWords(filepath.Join(p.group.cpu, "cgroup.threads"))
	default:
		names = readWords(filepath.Join(p.group.cpu, "tasks"))
	}
	for _, name := range names[:min(len(names), mostLooked)] {
		if tid, err := strconv.Atoi(name); err == nil {
			all = append(all, tid)
		}
	}
	return all
}

func readWords(path string) []string {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	return strings.Fields(string(bytes.TrimSpace(text)))
}

// spent is the time that all processes of the group, or else this one, were on processors. Where the group does not
// count it, what short-lived children used is missing until they are waited for.
func (g *group) spent(pid int) (sum time.Duration) {
	if g == nil || g.cpu == "" {
		return processTime(pid)
	}
	if g.unified != nil {
		return time.Duration(readKey(filepath.Join(g.cpu, "cpu.stat"), "usage_usec")) * time.Microsecond
	}
	if n := readNumber(filepath.Join(g.cpu, "cpuacct.usage")); n > 0 {
		return time.Duration(n)
	}
	procs := readWords(filepath.Join(g.cpu, "cgroup.procs"))
	for _, word := range procs[:min(len(procs), mostLooked)] {
		if one, err := strconv.Atoi(word); err == nil {
			sum += processTime(one)
		}
	}
	return sum
}

// MakeWay lets whoever wakes on the same processor go first, or no longer. Its share of the processors on a host where
// all want to run stays what it was, unless it goes last: then it gets what its neighbours leave, which are all that
// runs on the host with control groups of version 1, and the other providers with version 2. Called again, it finds the
// threads that Burned has seen since. One goroutine at a time may call Burned and MakeWay. An error means that its
// place among the others did not change.
func (p *Process) MakeWay(way, last bool) (err error) {
	if p.used.Load() != nil {
		return nil // it has ended, and its group may be another one's by now
	}
	p.yields.Store(way)
	e := &p.effort
	if last = way && last; e.last != last {
		if e.last = last; p.group != nil && p.group.cpu != "" {
			err = p.group.idle(last)
		}
	}
	now := map[int]uint64{}
	for _, tid := range p.threads() {
		// A thread inherits the slice of the one that made it, so those that are new are set, too.
		now[tid] = slice
		if way && slices.Contains(e.burning, tid) {
			now[tid] = longSlice
		}
		if e.slices[tid] != now[tid] {
			setSlice(tid, now[tid])
		}
	}
	if e.slices = now; !way {
		e.slices = nil
	}
	return err
}

// Yields reports whether it makes way. It is safe for concurrent use.
func (p *Process) Yields() bool { return p.yields.Load() }

// setSlice gives an ordinary thread a slice, in nanoseconds, and leaves the rest as it is. One that has ended is none.
// Between a look at a thread and this its number can have gone to another one: that one computes in other parts then,
// which is no harm.
func setSlice(tid int, length uint64) {
	attr, err := unix.SchedGetAttr(tid, 0)
	if err != nil || attr.Policy != unix.SCHED_NORMAL && attr.Policy != unix.SCHED_BATCH {
		return
	}
	attr.Runtime = length
	_ = unix.SchedSetAttr(tid, attr, 0) // otherwise it interrupts others as before
}
