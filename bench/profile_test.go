package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/bench/flame"
	"github.com/keepout-security/keepout/internal/testenv"
	"github.com/keepout-security/keepout/test/testhost"
)

// profiledOpens is how many opens there are at least: enough for samples at 100 a second of processor time.
const profiledOpens = 10_000

// BenchmarkProfile draws where the core's processor time goes while files are opened for the first time and three
// providers vote: -out gets flame.svg. Its core is cmd/keepout-core with a profiler.
func BenchmarkProfile(b *testing.B) {
	testenv.Need(b, testenv.Root, testenv.Fanotify, testenv.MountNS)
	s := theScale(b)
	for b.Loop() {
		g := profile(b, s)
		b.ReportMetric(g.Total().Seconds(), "core-CPU-s")
		for name, prefix := range map[string]string{
			"syscalls": "syscall.", "scheduler": "runtime.schedule", "collector": "runtime.gcBgMarkWorker",
			"malloc": "runtime.mallocgc",
		} {
			b.ReportMetric(100*g.Share(prefix), name+"-%")
		}
		if *outFlag != "" {
			title := fmt.Sprintf("The core while files are opened for the first time, %d times, and three providers vote",
				profileRounds(s)*s.files)
			must(b, os.WriteFile(filepath.Join(*outFlag, "flame.svg"), g.SVG(title), 0o644))
		}
	}
	b.ReportMetric(0, "ns/op") // says nothing here
}

// profileRounds is how often each file is opened for the first time.
func profileRounds(s scale) int { return max(5, profiledOpens/s.files) }

func profile(b *testing.B, s scale) *flame.Graph {
	b.Helper()
	built := testenv.Build(b, "./cmd/keepoutd", "./bench/profiled", "./bench/load")
	dir := testenv.Tmpfs(b, "1g")
	file := filepath.Join(folder(b), "cpu.pprof")
	b.Setenv("KEEPOUT_PROFILE", file)
	opt := testhost.Options{Life: life, Watch: dir, Providers: engines(3, 0)}
	h := testhost.Prepare(b, opt)
	h.Bin = folder(b)
	for from, to := range map[string]string{"keepoutd": "keepoutd", "profiled": "keepout-core"} {
		command(b, "cp", filepath.Join(built, from), filepath.Join(h.Bin, to))
	}
	bed := &bed{s: s, bin: built}
	a := &arena{dir: dir, free: func() { _ = unix.Kill(h.PID, unix.SIGKILL) }}
	work := func(args ...string) {
		if _, err := a.measure(bed, args...); err != nil {
			b.Fatal(err)
		}
	}
	count := strconv.Itoa(s.files)
	work("make", dir, count)
	h.Launch(opt)
	must(b, unix.Kill(h.Status().PID, unix.SIGUSR2))
	await(b, "the profile begins", func() bool { _, err := os.Stat(file); return err == nil })
	for range profileRounds(s) {
		work("renew", dir, count)
		work("open", dir, count, "1")
	}
	h.Stop()
	g, err := flame.Parse(command(b, "go", "tool", "pprof", "-traces", file))
	if err != nil {
		b.Fatal(err)
	}
	return g
}
