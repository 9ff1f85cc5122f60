package bench

import (
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/internal/sensor/fanotify"
	"github.com/keepout-security/keepout/internal/testenv"
	"github.com/keepout-security/keepout/test/testhost"
)

// rememberedRounds is how often BenchmarkRemembered opens each file in each way.
const rememberedRounds = 101

// BenchmarkRemembered says what is left of an open that the kernel answers by itself, and whose it is: what a read
// lease adds to it, what a mark on the file system with an ignore mark on the object adds, both, and the platform with
// three providers, which rests on both. Nothing but the kernel runs in any of them.
func BenchmarkRemembered(b *testing.B) {
	testenv.Need(b, testenv.Root, testenv.Fanotify, testenv.MountNS)
	var hops []*hop
	add := func(name string) (*hop, string) {
		h, dir := &hop{name: name}, testenv.Tmpfs(b, "64m")
		h.files(b, dir, "hello")
		hops = append(hops, h)
		return h, dir
	}
	add("unwatched")
	leased, _ := add("lease")
	leases(b, leased)
	marked, dir := add("marks")
	ignore(b, marked, dir)
	all, dir := add("lease-marks")
	ignore(b, all, dir)
	leases(b, all)
	kept, dir := add("3-providers")
	h := testhost.Start(b, testhost.Options{Life: 10 * time.Minute, Watch: dir, Providers: engines(3, 0)})
	h.Until("it watches", func() bool { s, err := h.TryStatus(); return err == nil && len(s.Watching) == 1 })

	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	b.ResetTimer()
	for range b.N {
		kept.open(b)
		kept.per = nil
		for range rememberedRounds {
			for _, v := range hops {
				v.open(b)
			}
		}
	}
	b.ReportMetric(0, "ns/op") // the sum over all ways says nothing
	base := median(hops[0].per)
	b.ReportMetric(base, "unwatched-µs")
	for _, v := range hops[1:] {
		b.ReportMetric(median(v.per)/base, v.name+"-ratio")
	}
}

// leases takes a read lease on each file until the benchmark ends.
func leases(b *testing.B, v *hop) {
	b.Helper()
	for _, path := range v.paths {
		f, err := os.Open(strings.TrimSuffix(string(path), "\x00"))
		must(b, err)
		b.Cleanup(func() { _ = f.Close() })
		_, err = unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_RDLCK)
		must(b, err)
	}
}

// ignore watches opens on a file system and has the kernel allow them on each file. Nobody reads the group: an open of
// anything else there would wait until it is closed.
func ignore(b *testing.B, v *hop, dir string) {
	b.Helper()
	g, err := fanotify.NewPermission()
	must(b, err)
	testenv.Watchdog(b, 10*time.Minute, func() { _ = g.Close() })
	b.Cleanup(func() {
		g.Stop()
		_ = g.Close()
	})
	for _, path := range v.paths {
		f, err := os.Open(strings.TrimSuffix(string(path), "\x00"))
		must(b, err)
		must(b, g.Ignore(int(f.Fd())))
		must(b, f.Close())
	}
	must(b, g.MarkFilesystem(dir, fanotify.OpenPerm|fanotify.OpenExecPerm))
}
