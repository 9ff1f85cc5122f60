package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/internal/testenv"
	"github.com/keepout-security/keepout/test/testhost"
)

// Of BenchmarkHop: rounds of one variant, and files opened in a round, each a version that nobody has seen.
const (
	hopRounds = 21
	hopFiles  = 500
)

// hop is one way to open files for the first time.
type hop struct {
	name  string
	paths [][]byte // with their NUL
	per   []float64
}

// BenchmarkHop compares the time that a first open takes longer than an unwatched one: with the smallest responder in
// C, alone and with 1 and 3 other processes that it asks with a descriptor, which is the least that a platform with
// providers can cost; with the platform and a provider that has not subscribed to such a file, so that the core answers
// ("passed"), and with 0, 1 and 3 providers that get the descriptor. The variants take turns. "one-cpu" keeps everybody
// on one processor, so that it measures work and not where the kernel wakes whom; "free" does not. Beside the medians
// over the rounds it reports the least, which other work on the machine disturbs less.
func BenchmarkHop(b *testing.B) {
	testenv.Need(b, testenv.Root, testenv.Fanotify, testenv.MountNS, testenv.GCC)
	b.Run("one-cpu", func(b *testing.B) {
		runtime.LockOSThread()
		keepTo(b, 0)
		hopRound(b)
	})
	b.Run("free", hopRound)
}

// keepTo keeps all threads of this process, and what they start from now on, to one processor until the benchmark
// ends.
func keepTo(b *testing.B, cpu int) {
	b.Helper()
	var before, one unix.CPUSet
	must(b, unix.SchedGetaffinity(0, &before))
	one.Set(cpu)
	threads := func(set *unix.CPUSet) {
		list, err := os.ReadDir("/proc/self/task")
		must(b, err)
		for _, entry := range list {
			id, err := strconv.Atoi(entry.Name())
			must(b, err)
			_ = unix.SchedSetaffinity(id, set) // it may have ended
		}
	}
	threads(&one)
	b.Cleanup(func() { threads(&before) })
}

func hopRound(b *testing.B) {
	b.Helper()
	hops := []*hop{{name: "unwatched"}, {name: "c"}, {name: "c-1"}, {name: "c-3"}}
	hops[0].files(b, testenv.Tmpfs(b, "64m"), "hello")
	for i, providers := range []int{0, 1, 3} {
		dir := testenv.Tmpfs(b, "64m")
		hops[1+i].files(b, dir, "hello")
		respond(b, dir, providers)
	}
	passed := &hop{name: "passed"}
	host := testhost.Start(b, testhost.Options{Life: 10 * time.Minute, Providers: engines(1, 0)})
	passed.files(b, host.Dir, "") // they want no empty files
	hops = append(hops, passed)
	for _, n := range []int{0, 1, 3} {
		opt := testhost.Options{Life: 10 * time.Minute, Wait: n == 0, Watch: testenv.Tmpfs(b, "64m")}
		for i := range n {
			opt.Providers = append(opt.Providers, testhost.Provider{ID: "subject-" + strconv.Itoa(i), Source: "subject"})
		}
		v := &hop{name: fmt.Sprintf("%d-providers", n)}
		v.files(b, opt.Watch, "hello")
		h := testhost.Start(b, opt)
		h.Until("it watches", func() bool { s, err := h.TryStatus(); return err == nil && len(s.Watching) == 1 })
		hops = append(hops, v)
	}
	b.ResetTimer()
	for range b.N {
		for range hopRounds {
			for _, v := range hops {
				v.round(b)
			}
		}
	}
	b.ReportMetric(0, "ns/op") // the sum over all variants says nothing
	for how, of := range map[string]func([]float64) float64{"": median, "least-": slices.Min[[]float64]} {
		base := of(hops[0].per)
		added := of(hops[1].per) - base
		b.ReportMetric(base, how+"unwatched-µs")
		for _, v := range hops[1:] {
			b.ReportMetric(of(v.per)-base, how+v.name+"-added-µs")
			b.ReportMetric(of(v.per)/base, how+v.name+"-ratio")
			if v != hops[1] {
				b.ReportMetric((of(v.per)-base)/added, how+v.name+"-to-c-ratio")
			}
		}
	}
}

// respond runs the responder in C, with so many processes that it asks, until the benchmark ends.
func respond(b *testing.B, dir string, providers int) {
	b.Helper()
	_, end := readyProcess(b, responderC(b, b.TempDir()), dir, strconv.Itoa(int(comparisonLife.Seconds())),
		strconv.Itoa(providers))
	b.Cleanup(end)
}

func (v *hop) files(b *testing.B, dir, content string) {
	b.Helper()
	for i := range hopFiles {
		path := filepath.Join(dir, strconv.Itoa(i))
		must(b, os.WriteFile(path, []byte(content), 0o600))
		v.paths = append(v.paths, append([]byte(path), 0))
	}
}

// round opens each file once. It first makes new versions of them, so that no memory of a verdict helps.
func (v *hop) round(b *testing.B) {
	b.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	now := time.Now()
	for _, p := range v.paths {
		must(b, os.Chtimes(string(p[:len(p)-1]), now, now))
	}
	v.open(b)
}

// open opens each file once, with raw system calls: the benchmark's runtime has no part in them.
func (v *hop) open(b *testing.B) {
	b.Helper()
	start := time.Now()
	for _, p := range v.paths {
		fd, _, errno := unix.RawSyscall6(unix.SYS_OPENAT, ^uintptr(-unix.AT_FDCWD-1),
			uintptr(unsafe.Pointer(&p[0])), unix.O_RDONLY|unix.O_CLOEXEC, 0, 0, 0)
		if errno != 0 {
			b.Fatalf("open %s: %v", p, errno)
		}
		_, _, _ = unix.RawSyscall(unix.SYS_CLOSE, fd, 0, 0)
	}
	v.per = append(v.per, float64(time.Since(start).Nanoseconds())/1000/hopFiles)
}
