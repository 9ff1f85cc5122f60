package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/internal/testenv"
	"github.com/keepout-security/keepout/test/testhost"
)

// Rounds and opens per round of one variant.
const (
	rounds = 15
	opens  = 2000
)

// variant is one way to open a file.
type variant struct {
	name string
	path string
	per  []float64 // µs an open, by round
}

// BenchmarkOpen measures open+close of a small file: unwatched, answered by the core alone, and voted on by one
// and three providers that get the descriptor. Each variant has a daemon of its own, all in the same run.
func BenchmarkOpen(b *testing.B) {
	testenv.Need(b, testenv.Root, testenv.Fanotify, testenv.MountNS)
	variants := []*variant{{name: "unwatched", path: filepath.Join(testenv.Tmpfs(b, "16m"), "file")}}
	if err := os.WriteFile(variants[0].path, []byte("hello"), 0o600); err != nil {
		b.Fatal(err)
	}
	for _, n := range []int{0, 1, 3} {
		opt := testhost.Options{Life: 10 * time.Minute, Wait: n == 0}
		for i := range n {
			opt.Providers = append(opt.Providers, testhost.Provider{ID: "subject-" + strconv.Itoa(i), Source: "subject"})
		}
		h := testhost.Start(b, opt)
		h.Until("it watches", func() bool { s, err := h.TryStatus(); return err == nil && len(s.Watching) == 1 })
		variants = append(variants, &variant{name: fmt.Sprintf("%d-providers", n), path: h.File("file", "hello")})
	}
	b.ResetTimer()
	for range b.N {
		for range rounds {
			for _, v := range variants {
				v.round(b)
			}
		}
	}
	base := median(variants[0].per)
	b.ReportMetric(0, "ns/op") // the sum over all variants says nothing
	b.ReportMetric(base, "unwatched-µs")
	for _, v := range variants[1:] {
		b.ReportMetric(median(v.per), v.name+"-µs")
		b.ReportMetric(median(v.per)/base, v.name+"-ratio")
	}
	b.ReportMetric(median(variants[3].per)/median(variants[2].per), "three-to-one-ratio")
}

func (v *variant) round(b *testing.B) {
	b.Helper()
	start := time.Now()
	for range opens {
		fd, err := unix.Open(v.path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			b.Fatal(err)
		}
		_ = unix.Close(fd)
	}
	v.per = append(v.per, float64(time.Since(start).Microseconds())/opens)
}

func median(x []float64) float64 {
	s := slices.Sorted(slices.Values(x))
	return s[len(s)/2]
}
