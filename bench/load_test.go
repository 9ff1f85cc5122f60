package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/internal/session"
	"github.com/keepout-security/keepout/internal/testenv"
	"github.com/keepout-security/keepout/test/testhost"
)

// loadThreads is how many threads open at the same time.
const loadThreads = 8

// BenchmarkLoad lets 8 threads open distinct files (100,000 with -scale full) with three providers voting, and reports
// whether every verdict was given and accounted for: lost and unaccounted must be 0.
func BenchmarkLoad(b *testing.B) {
	testenv.Need(b, testenv.Root, testenv.Fanotify, testenv.MountNS)
	opt := testhost.Options{Life: 10 * time.Minute}
	for i := range 3 {
		opt.Providers = append(opt.Providers, testhost.Provider{ID: "subject-" + strconv.Itoa(i), Source: "subject"})
	}
	opt.Watch = testenv.Tmpfs(b, "1g")
	paths := make([]string, theScale(b).loadFiles) // made before anybody watches
	for i := range paths {
		dir := filepath.Join(opt.Watch, strconv.Itoa(i%100))
		paths[i] = filepath.Join(dir, strconv.Itoa(i))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(paths[i], []byte("hello"), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	h := testhost.Start(b, opt)
	b.ResetTimer()
	for range b.N {
		runLoad(b, h, paths)
	}
}

func runLoad(b *testing.B, h *testhost.Host, paths []string) {
	b.Helper()
	before := h.Status()
	start := time.Now()
	var wg sync.WaitGroup
	failed := make(chan error, loadThreads)
	for t := range loadThreads {
		wg.Go(func() {
			for i := t; i < len(paths); i += loadThreads {
				fd, err := unix.Open(paths[i], unix.O_RDONLY|unix.O_CLOEXEC, 0)
				if err != nil {
					failed <- fmt.Errorf("open %s: %w", paths[i], err)
					return
				}
				_ = unix.Close(fd)
			}
		})
	}
	wg.Wait()
	seconds := time.Since(start).Seconds()
	select {
	case err := <-failed:
		b.Fatal(err)
	default:
	}
	h.Until("nothing is in flight", func() bool { return h.Status().Verdicts.InFlight == 0 })
	after := h.Status()
	given := after.Verdicts.Allowed - before.Verdicts.Allowed + after.Verdicts.Timeout - before.Verdicts.Timeout +
		after.Verdicts.Unavailable - before.Verdicts.Unavailable + after.Verdicts.Denied - before.Verdicts.Denied
	unaccounted := 0.0
	for _, p := range after.Providers {
		c := p.Counters
		unaccounted += absent(c)
		unaccounted += float64(len(paths)*b.N) - float64(c.Delivered+c.Dropped) // joined questions are asked once
	}
	b.ReportMetric(float64(len(paths))/seconds, "opens/s")
	b.ReportMetric(float64(len(paths))-float64(given), "lost-verdicts")
	b.ReportMetric(unaccounted, "unaccounted")
	b.ReportMetric(float64(after.Verdicts.Timeout-before.Verdicts.Timeout), "timeouts")
	b.ReportMetric(residentMiB(b, h.Status().PID), "core-RSS-MiB")
}

// absent is what a provider's counters do not account for.
func absent(c session.Counters) float64 {
	return float64(c.Delivered) - float64(c.Answered+c.Late+c.Bypassed+c.Pending)
}

// cpuTime sums what the scheduler charged the threads of a process; /proc/PID/task/TID/schedstat, nanoseconds.
func cpuTime(b *testing.B, pid int) time.Duration {
	b.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(tasks) == 0 {
		b.Fatalf("no threads of process %d: %v", pid, err)
	}
	sum := int64(0)
	for _, path := range tasks {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // the thread has ended
		}
		ns, err := strconv.ParseInt(strings.Fields(string(text))[0], 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		sum += ns
	}
	return time.Duration(sum)
}

// residentMiB reads VmRSS of a process.
func residentMiB(b *testing.B, pid int) float64 {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); f[0] == "VmRSS:" {
			kib, err := strconv.ParseFloat(f[1], 64)
			if err != nil {
				b.Fatal(err)
			}
			return kib / 1024
		}
	}
	b.Fatal("no VmRSS")
	return 0
}
