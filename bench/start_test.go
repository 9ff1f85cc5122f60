package bench

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/keepout-security/keepout/internal/sandbox"
	"github.com/keepout-security/keepout/internal/testenv"
	"github.com/keepout-security/keepout/wire"
)

// BenchmarkStart measures from the decision to start a provider to its first message, for each part of the cage. The
// variants take turns, so that they meet the same machine.
func BenchmarkStart(b *testing.B) {
	testenv.Need(b, testenv.Root, testenv.MountNS)
	program, err := os.Open(filepath.Join(testenv.Build(b, "./test/providers/subject"), "subject"))
	must(b, err)
	defer func() { _ = program.Close() }()
	dir, err := os.MkdirTemp("", "keepout-start-")
	must(b, err)
	b.Cleanup(func() { _ = os.RemoveAll(dir) })
	must(b, os.Chmod(dir, 0o711))
	groups := sandbox.NewGroups(dir)
	b.Cleanup(groups.Close)

	const namespaces = sandbox.LayerUser | sandbox.LayerMount | sandbox.LayerPID | sandbox.LayerNet | sandbox.LayerIPC
	caged := func(only sandbox.Layers) func() time.Duration {
		spec := sandbox.Spec{
			Program: program.Name(), StateDir: filepath.Join(dir, "state"), Groups: groups, Only: only, Log: os.Stderr,
			Limits: sandbox.Limits{Memory: 256 << 20, CPU: 100, Processes: 64, Files: 256, State: 1 << 20},
		}
		return func() time.Duration { return startCaged(b, spec, program) }
	}
	variants := []struct {
		name  string
		start func() time.Duration
		took  []time.Duration
	}{
		{name: "bare", start: func() time.Duration { return startBare(b, program.Name()) }},
		{name: "re-exec", start: caged(sandbox.NoLayers)},
		{name: "namespaces", start: caged(namespaces)},
		{name: "no-cgroup", start: caged(sandbox.AllLayers &^ sandbox.LayerCgroup)},
		{name: "full", start: caged(sandbox.AllLayers)},
	}
	caged(sandbox.AllLayers)() // the trial of what the host allows
	for b.Loop() {
		for range theScale(b).starts {
			for i := range variants {
				v := &variants[i]
				v.took = append(v.took, v.start())
			}
		}
	}
	for _, v := range variants {
		slices.Sort(v.took)
		b.ReportMetric(float64(v.took[len(v.took)/2].Microseconds())/1000, v.name+"-p50-ms")
		b.ReportMetric(float64(v.took[len(v.took)*9/10].Microseconds())/1000, v.name+"-p90-ms")
	}
	b.ReportMetric(0, "ns/op") // says nothing here
}

func must(b testing.TB, err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

// startCaged starts the program through the launcher and returns the time until its Hello.
func startCaged(b *testing.B, spec sandbox.Spec, program *os.File) time.Duration {
	b.Helper()
	began := time.Now()
	p, err := sandbox.Start(spec, program)
	must(b, err)
	hello(b, p.Control)
	took := time.Since(began)
	p.Kill()
	<-p.Done()
	must(b, p.Close())
	return took
}

// startBare starts the program as any other one.
func startBare(b *testing.B, path string) time.Duration {
	b.Helper()
	auth, theirAuth, err := wire.Pair(0)
	must(b, err)
	control, theirControl, err := wire.Pair(0)
	must(b, err)
	began := time.Now()
	cmd := exec.CommandContext(b.Context(), path)
	cmd.ExtraFiles = []*os.File{theirAuth, theirControl}
	cmd.Stderr = os.Stderr
	must(b, cmd.Start())
	hello(b, control)
	took := time.Since(began)
	_ = cmd.Process.Kill()
	_ = cmd.Wait() // it was killed
	for _, c := range []interface{ Close() error }{auth, theirAuth, control, theirControl} {
		must(b, c.Close())
	}
	return took
}

func hello(b *testing.B, c *wire.Conn) {
	b.Helper()
	n, err := c.Recv(make([]byte, wire.MaxPacket))
	if err != nil || n == 0 {
		b.Fatalf("no hello: %v", err)
	}
}
