//go:build linux

package bootguard_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/keepout-security/keepout/internal/recovery/esp"
	"github.com/keepout-security/keepout/internal/testenv"
)

// BenchmarkBegin is what bootguard adds to a boot: the whole program, with the state on a disk, beside a program that
// does nothing.
func BenchmarkBegin(b *testing.B) {
	bin := filepath.Join(testenv.Build(b, "./cmd/keepout-bootguard"), "keepout-bootguard")
	root := b.TempDir()
	if err := esp.Open(filepath.Join(root, "boot", "efi", "keepout")).Prepare(); err != nil {
		b.Fatal(err)
	}
	kernel := filepath.Join(root, "proc", "sys", "kernel", "random")
	if err := os.MkdirAll(kernel, 0o700); err != nil {
		b.Fatal(err)
	}
	run := func(name string, args ...string) time.Duration {
		began := time.Now()
		if out, err := exec.CommandContext(b.Context(), name, args...).CombinedOutput(); err != nil {
			b.Fatalf("%v: %s", err, out)
		}
		return time.Since(began)
	}
	var nothing, begin time.Duration
	n := 0
	for b.Loop() {
		n++
		if err := os.WriteFile(filepath.Join(kernel, "boot_id"), fmt.Append(nil, n), 0o600); err != nil {
			b.Fatal(err)
		}
		nothing += run("/bin/true")
		begin += run(bin, "--root", root, "--run-dir", filepath.Join(root, "run"), "begin")
		run(bin, "--root", root, "--run-dir", filepath.Join(root, "run"), "shutdown")
	}
	b.ReportMetric(float64(begin.Microseconds())/1000/float64(n), "ms/begin")
	b.ReportMetric(float64(begin)/float64(nothing), "x/true")
}
