package sandbox

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/internal/testenv"
)

// TestStretches: time without a pause counts, many short turns do not.
func TestStretches(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	for name, tt := range map[string]struct {
		before, after map[int]turns
		want          time.Duration
		burning       []int
	}{
		"nobody":          {},
		"votes":           {map[int]turns{1: {ms, 10}}, map[int]turns{1: {51 * ms, 1010}}, 0, nil},
		"computes":        {map[int]turns{1: {ms, 10}}, map[int]turns{1: {51 * ms, 20}}, 50 * ms, []int{1}},
		"never left":      {map[int]turns{1: {ms, 10}}, map[int]turns{1: {101 * ms, 10}}, 100 * ms, []int{1}},
		"never came":      {map[int]turns{1: {ms, 10}}, map[int]turns{1: {ms, 10}}, 0, nil},
		"new":             {nil, map[int]turns{1: {40 * ms, 10}}, 40 * ms, []int{1}},
		"ended":           {map[int]turns{1: {ms, 10}}, nil, 0, nil},
		"one of them":     {map[int]turns{1: {}, 2: {}}, map[int]turns{1: {ms, 50}, 2: {8 * ms, 2}}, 8 * ms, []int{2}},
		"a short one":     {map[int]turns{1: {}}, map[int]turns{1: {499 * time.Microsecond, 1}}, 0, nil},
		"the same number": {map[int]turns{1: {ms, 1000}}, map[int]turns{1: {60 * ms, 3}}, 60 * ms, []int{1}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, burning := stretches(tt.before, tt.after)
			slices.Sort(burning)
			if got != tt.want || !slices.Equal(burning, tt.burning) {
				t.Errorf("%v by %v, want %v by %v", got, burning, tt.want, tt.burning)
			}
		})
	}
}

// TestMakeWay: who burns a processor is seen, and what the kernel is told of it is taken back.
func TestMakeWay(t *testing.T) {
	testenv.Need(t, testenv.Root)
	state := stateDir(t)
	g := NewGroups(state)
	t.Cleanup(g.Close)
	p := start(t, Spec{
		Slot: 6, StateDir: state, Groups: g, Limits: Limits{Memory: 512 << 20, CPU: 50, Processes: 90},
		Only: AllLayers &^ LayerLimits, // the race detector reserves more memory than it uses
	}, program(t))
	receive(t, p)
	eventually(t, "it is idle", func() bool { time.Sleep(glance); return !p.Burned().Works })
	must(t, p.Control.Send([]byte("spin"), -1))
	eventually(t, "it is seen to burn", func() bool {
		time.Sleep(glance)
		b := p.Burned()
		return b.Works && b.Percent >= 2
	})
	must(t, p.MakeWay(true, true))
	longest := func() (longest uint64) {
		for _, tid := range p.threads() {
			if attr, err := unix.SchedGetAttr(tid, 0); err == nil {
				longest = max(longest, attr.Runtime)
			}
		}
		return longest
	}
	before := longest()
	switch {
	case !p.Yields():
		t.Error("it does not say so")
	case before != longSlice && before != 0: // 0: kernels before 6.12, which have one slice for all
		t.Errorf("the longest slice is %d", before)
	}
	idle := func(want string) {
		t.Helper()
		for _, path := range groupFiles(t, g, 6, "cpu.idle") {
			b, err := os.ReadFile(path)
			must(t, err)
			if got := strings.TrimSpace(string(b)); got != want {
				t.Errorf("%s is %s, want %s", filepath.Base(path), got, want)
			}
		}
	}
	idle("1")
	must(t, p.MakeWay(true, false))
	idle("0")
	must(t, p.MakeWay(true, true))
	idle("1")
	must(t, p.MakeWay(false, true))
	idle("0")
	if after := longest(); p.Yields() || before != 0 && after != slice {
		t.Errorf("afterwards it yields: %v, and the longest slice is %d", p.Yields(), after)
	}
	p.Kill()
	wait(t, p)
	must(t, p.MakeWay(true, true)) // too late is no error
	if left := groupFiles(t, g, 6, "cgroup.procs"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestStarves: who goes last where others leave nothing is seen to starve, and does not when it keeps its share.
func TestStarves(t *testing.T) {
	testenv.Need(t, testenv.Root)
	state := stateDir(t)
	g := NewGroups(state)
	t.Cleanup(g.Close)
	if g.unified != "" || g.usable[cpuController] != nil {
		t.Log("here it goes last only beside other providers")
		return
	}
	p := start(t, Spec{
		Slot: 7, StateDir: state, Groups: g, Limits: Limits{Memory: 512 << 20, CPU: 50, Processes: 90},
		Only: AllLayers &^ LayerLimits, // the race detector reserves more memory than it uses
	}, program(t))
	receive(t, p)
	must(t, p.Control.Send([]byte("spin"), -1))
	burns := func() bool { time.Sleep(glance); return p.Burned().Percent > 0 }
	eventually(t, "it is seen to burn", burns)
	must(t, p.MakeWay(true, false))
	if p.Burned().Starves {
		t.Error("it starves without going last")
	}
	must(t, p.MakeWay(true, true))
	crowd(t)
	eventually(t, "it starves", func() bool { time.Sleep(glance); return p.Burned().Starves })
	must(t, p.MakeWay(true, false))
	eventually(t, "it has its share again", burns)
}

// crowd keeps all processors busy until the test ends.
func crowd(t *testing.T) {
	t.Helper()
	for range 2 * runtime.NumCPU() {
		one := exec.CommandContext(t.Context(), "/bin/sh", "-c", "while :; do :; done")
		must(t, one.Start())
		t.Cleanup(func() { _ = one.Wait() }) // after the context has ended it
	}
}
