package bench

import (
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/bench/report"
	"github.com/keepout-security/keepout/internal/sensor/lease"
	"github.com/keepout-security/keepout/internal/testenv"
	"github.com/keepout-security/keepout/internal/testvm"
	"github.com/keepout-security/keepout/test/testhost"
)

// BenchmarkComparison is "make bench": everything that a user would compare, on the same workloads, in one run. In
// each round each workload meets the variants one after the other, in an order that chance decides, and a ratio is to
// the one without a monitor of the same round. Each variant has a file system of its own, which it alone watches.
func BenchmarkComparison(b *testing.B) {
	testenv.Need(b, testenv.Root, testenv.Fanotify, testenv.MountNS, testenv.Loop, testenv.Git)
	for b.Loop() {
		c := &comparison{b: b, s: theScale(b)}
		c.run()
	}
	b.ReportMetric(0, "ns/op") // says nothing here
}

type comparison struct {
	b      *testing.B
	s      scale
	bed    *bed
	arenas []*arena
	out    report.Results
}

func (c *comparison) run() {
	began := time.Now()
	c.machine(began)
	c.resources()
	c.prepare()
	progress("prepared", began)
	for round := range *roundsFlag {
		for n, s := range stages(c.s) {
			progress(fmt.Sprintf("round %d of %d, stage %d of %d", round+1, *roundsFlag, n+1, len(stages(c.s))), began)
			for _, i := range rand.Perm(len(c.arenas)) {
				if a := c.arenas[i]; s.of(a) && (!a.heavy || round == 0 || round == *roundsFlag-1) {
					c.stage(a, s, round)
				}
			}
		}
	}
	for _, a := range c.arenas {
		if a.watch == nil || a.lost {
			continue
		}
		if wrong := a.watch(); wrong != "" {
			c.out.Notes = append(c.out.Notes, a.name+": "+wrong)
		}
	}
	c.out.Seconds = time.Since(began).Seconds()
	c.publish()
}

// progress says where a long run is.
func progress(what string, began time.Time) {
	fmt.Fprintf(os.Stderr, "%5.0f s: %s\n", time.Since(began).Seconds(), what)
}

// machine notes what must be known to read the numbers.
func (c *comparison) machine(now time.Time) {
	var u unix.Utsname
	must(c.b, unix.Uname(&u))
	load, err := os.ReadFile("/proc/loadavg")
	must(c.b, err)
	c.out = report.Results{
		When: now.UTC().Format(time.RFC3339), Kernel: unix.ByteSliceToString(u.Release[:]), CPUs: runtime.NumCPU(),
		Processor: processor(), Go: runtime.Version(), Scale: c.s.name, Rounds: *roundsFlag,
		Load: strings.TrimSpace(string(load)), Peers: map[string]string{}, Facts: map[string]float64{},
	}
	if ratio, err := execInstructions(c.b); err == nil {
		c.out.Facts[report.FactExec] = ratio
	}
	var busy float64
	if _, err := fmt.Sscan(c.out.Load, &busy); err == nil && busy > 1 {
		const note = "others used the machine (load %.1f before the run): not for the record"
		c.out.Notes = append(c.out.Notes, fmt.Sprintf(note, busy))
	}
	if v, err := exec.Command("dpkg-query", "-W", "-f", "${Version}", "clamav-daemon").Output(); err == nil {
		c.out.Peers["clamav-daemon"] = string(v)
	}
	if folder, err := testvm.Fetch("fapolicyd"); err == nil {
		c.out.Peers["fapolicyd"] = changelogVersion(folder + "/usr/share/doc/fapolicyd/changelog.Debian.gz")
	}
}

// execInstructions is what an exec with a known digest takes in instructions, to no monitor, by the baseline that is
// committed: the promise is about that, and no clock here is as exact.
func execInstructions(b *testing.B) (ratio float64, err error) {
	b.Helper()
	text, err := os.ReadFile(filepath.Join(testenv.ModuleRoot(b), "docs", "performance", "icount-baseline.json"))
	if err != nil {
		return 0, err
	}
	var baseline struct{ Instructions map[string]float64 }
	if err := json.Unmarshal(text, &baseline); err != nil {
		return 0, err
	}
	return baseline.Instructions["hashlist: exec again"] / baseline.Instructions["no monitor: exec again"], nil
}

// changelogVersion is what a Debian package's own list of changes says first, or "".
func changelogVersion(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return ""
	}
	head := make([]byte, 200)
	n, _ := io.ReadFull(z, head) // a short list is one, too
	_, rest, _ := strings.Cut(string(head[:n]), "(")
	version, _, _ := strings.Cut(rest, ")")
	return version
}

// processor is the model's name, or "".
func processor() string {
	text, _ := os.ReadFile("/proc/cpuinfo") // without it there is no name
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// prepare makes the arenas. Those that need a mount namespace of their own get it before there is any other mount that
// a peer could find in it.
func (c *comparison) prepare() {
	c.bed = makeBed(c.b, c.s)
	var notes []string
	c.arenas, notes = variants(c.b, c.bed)
	c.out.Notes = append(c.out.Notes, notes...)
	for _, a := range c.arenas {
		a.free = func() {}
		a.mkfs(c.b, c.bed)
		if strings.HasPrefix(a.name, "fapolicyd") {
			a.room(c.b)
		}
	}
	for _, a := range c.arenas {
		a.mount(c.b, c.bed)
	}
	for _, a := range c.arenas {
		a.start(c.b, a)
		c.out.Variants = append(c.out.Variants, a.name)
	}
	for _, s := range stages(c.s) {
		for _, step := range s.steps {
			if step.workload != "" {
				c.out.Workloads = append(c.out.Workloads, step.workload)
			}
		}
	}
}

func (c *comparison) stage(a *arena, s stage, round int) {
	for _, step := range s.steps {
		if a.lost {
			return
		}
		t, err := a.measure(c.bed, step.args(a, c.bed, round)...)
		switch {
		case err != nil && errors.Is(err, errHung):
			c.out.Notes = append(c.out.Notes, fmt.Sprintf("%s: %s: %v after %v", a.name, step.workload, err, c.s.limit))
			return
		case err != nil:
			c.b.Errorf("%s: %s: %v", a.name, step.workload, err)
			return
		case step.workload != "":
			c.out.Samples = append(c.out.Samples, report.Sample{
				Variant: a.name, Workload: step.workload, Round: round, Ops: t.Ops, NS: float64(t.NS) / float64(t.Ops),
				P50: t.P50, P99: t.P99,
			})
		}
	}
}

// resources measures what three providers' platform needs: memory after many objects, and time when there is nothing
// to do.
func (c *comparison) resources() {
	b := c.b
	bin := testenv.Build(b, "./bench/load")
	dir := testenv.Tmpfs(b, "2g")
	bed := &bed{s: c.s, bin: bin}
	none := &arena{dir: dir, free: func() {}}
	if _, err := none.measure(bed, "make", dir, strconv.Itoa(c.s.objects)); err != nil {
		b.Fatal(err)
	}
	h := testhost.Start(b, testhost.Options{Life: comparisonLife, Watch: dir, Providers: engines(3, 0)})
	core := h.Status().PID
	a := &arena{dir: dir, free: func() {
		_ = unix.Kill(h.PID, unix.SIGKILL)
		_ = unix.Kill(core, unix.SIGKILL)
	}}
	if _, err := a.measure(bed, "open", dir, strconv.Itoa(c.s.objects), "4"); err != nil {
		b.Fatal(err)
	}
	c.out.Facts[report.FactObjects] = float64(c.s.objects)
	const mb = 1.048576 // of a MiB
	c.out.Facts[report.FactRSS] = mb * (residentMiB(b, core) + residentMiB(b, h.PID))
	time.Sleep(lease.KeptFor + 2*time.Second) // what the opens left behind is not idleness
	before, start := cpuTime(b, h.PID)+cpuTime(b, core), time.Now()
	time.Sleep(c.s.idle)
	used := cpuTime(b, h.PID) + cpuTime(b, core) - before
	c.out.Facts[report.FactIdle] = 100 * used.Seconds() / time.Since(start).Seconds()
	h.Stop()
}

// publish prints the tables and writes the files.
func (c *comparison) publish() {
	c.out.Sort()
	c.out.Workloads = slices.Compact(c.out.Workloads)
	var text strings.Builder
	c.out.WriteTables(&text)
	fmt.Fprintln(&text)
	missed := c.out.WriteGoals(&text)
	fmt.Printf("\n%s\n%d of %d goals missed; %.0f s\n", text.String(), missed, len(c.out.Goals()), c.out.Seconds)
	if *outFlag == "" {
		return
	}
	raw, err := json.MarshalIndent(c.out, "", " ")
	must(c.b, err)
	for name, content := range map[string][]byte{
		"results.json": append(raw, '\n'), "results.svg": c.out.SVG(), "results.md": []byte(text.String()),
	} {
		must(c.b, os.WriteFile(filepath.Join(*outFlag, name), content, 0o644))
	}
}
