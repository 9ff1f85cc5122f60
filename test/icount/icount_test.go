// Package icount holds the gate on speed that no busy machine can blur: the open and exec paths run in an emulated
// machine whose clock is its instructions, and what an operation takes is compared with what it took before.
package icount

import (
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/keepout-security/keepout/internal/recovery/initramfs"
	"github.com/keepout-security/keepout/internal/testenv"
	"github.com/keepout-security/keepout/internal/testvm"
	"github.com/keepout-security/keepout/test/testhost"
)

var (
	update = flag.Bool("update", false, "write what is measured as the new baseline")
	seed   = flag.Int("seed", 1, "of everything that is random in the machine: what another one changes is noise")
)

// seeds is how many machines, each with another seed, share a judgement that one of them does not settle.
const seeds = 3

func TestMain(m *testing.M) { os.Exit(testenv.PrivateMounts(m)) }

const (
	knownDigest  = "hashlist" // the variant that judges by the digest
	baselineFile = "docs/performance/icount-baseline.json"
	none         = "no monitor"
	limit        = 30 * time.Minute // of a machine; it needs two or three, on a busy host many more
	starts       = 3                // of each variant; their mean is compared
)

// measured are instructions an operation, by variant and workload, with what they depend on.
type measured struct {
	Kernel       string           `json:"kernel"`
	Go           string           `json:"go"`
	Instructions map[string]int64 `json:"instructions"` // "variant: workload"
}

// TestInstructions fails when an operation takes more instructions than its margin allows over the baseline.
func TestInstructions(t *testing.T) {
	testenv.Need(t, testenv.QEMU)
	now := boot(t, *seed)
	file := filepath.Join(testenv.ModuleRoot(t), filepath.FromSlash(baselineFile))
	if *update {
		now = more(t, now)
		text, err := json.MarshalIndent(now, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, append(text, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("read the baseline: %v; make bench-icount UPDATE=1 writes it", err)
	}
	var before measured
	if err := json.Unmarshal(text, &before); err != nil {
		t.Fatalf("read the baseline: %v", err)
	}
	worse, better := compare(before, now)
	if len(worse) > 0 {
		t.Logf("one machine says that these are worse, others shall decide:\n%s", strings.Join(worse, "\n"))
		worse, better = compare(before, more(t, now))
	}
	for _, line := range worse {
		t.Error(line)
	}
	for _, line := range better {
		t.Logf("%s: keep it with make bench-icount UPDATE=1", line)
	}
}

// more boots the other machines, and returns the mean of all.
func more(t *testing.T, first measured) measured {
	t.Helper()
	sum := maps.Clone(first.Instructions)
	for i := 1; i < seeds; i++ {
		for name, n := range boot(t, *seed+i).Instructions {
			sum[name] += n
		}
	}
	for name := range sum {
		sum[name] /= seeds
	}
	first.Instructions = sum
	t.Logf("the mean of %d machines:\n%s", seeds, first.table())
	return first
}

// Margins over the baseline.
const (
	margin = 0.02
	// Which of three providers votes last depends on where things lie in memory: seeds differ by 3 % here, by 1 %
	// elsewhere.
	raceMargin = 0.04
	race       = "3 providers: open"
	// Another kernel or Go changes what nobody here did: then only the ratio to no monitor is compared, less strictly.
	foreignMargin = 0.10
)

// compare lists what became worse, and what became better, by more than the margin.
func compare(before, now measured) (worse, better []string) {
	same := before.Kernel == now.Kernel && before.Go == now.Go
	for _, name := range slices.Sorted(maps.Keys(now.Instructions)) {
		was, known := before.Instructions[name]
		if !known {
			worse = append(worse, name+": not in the baseline: make bench-icount UPDATE=1")
			continue
		}
		change, allowed := float64(now.Instructions[name])/float64(was)-1, margin
		if strings.HasPrefix(name, race) {
			allowed = raceMargin
		}
		what := "instructions"
		if !same {
			change, allowed = now.ratio(name)/before.ratio(name)-1, foreignMargin
			what = "times no monitor (another kernel or Go than the baseline's)"
		}
		line := fmt.Sprintf("%s: %+.1f %% %s: %d, was %d; margin %.0f %%", name, 100*change, what,
			now.Instructions[name], was, 100*allowed)
		switch {
		case change > allowed:
			worse = append(worse, line)
		case change < -allowed:
			better = append(better, line)
		}
	}
	for name := range before.Instructions {
		if _, still := now.Instructions[name]; !still {
			worse = append(worse, name+": in the baseline, but not measured any more")
		}
	}
	return worse, better
}

// ratio divides by the same workload without a monitor.
func (m measured) ratio(name string) float64 {
	_, workload, _ := strings.Cut(name, ": ")
	return float64(m.Instructions[name]) / float64(m.Instructions[none+": "+workload])
}

func (m measured) table() string {
	var b strings.Builder
	for _, name := range slices.SortedFunc(maps.Keys(m.Instructions), func(x, y string) int {
		_, xw, _ := strings.Cut(x, ": ")
		_, yw, _ := strings.Cut(y, ": ")
		return cmp.Or(strings.Compare(yw, xw), cmp.Compare(m.Instructions[x], m.Instructions[y]))
	}) {
		fmt.Fprintf(&b, "%-34s %9d  %6.2f\n", name, m.Instructions[name], m.ratio(name))
	}
	return b.String()
}

// plan is what the guest runs; see its main.go.
type plan struct {
	Name      string
	Watch     string
	Config    string
	Providers int
	Work      string // execs: no opens
	Repeat    int
}

// boot runs the machine to its end and returns what it measured.
func boot(t *testing.T, seed int) measured {
	t.Helper()
	kernel := testvm.DebianKernel(t, testvm.Cloud)
	m := testvm.Start(t, fmt.Sprintf("icount-%d", seed), testvm.Spec{
		Kernel: kernel.Image, Initramfs: archive(t, kernel), Memory: 1024, Offline: true, Counted: true,
		Extra:   []string{"-seed", strconv.Itoa(seed)},
		Cmdline: "console=ttyS0 quiet nokaslr norandmaps clocksource=tsc tsc=reliable panic=-1",
	})
	line := m.ExpectWithin("^(RESULT|FAILED) ", limit)
	m.WaitExit(time.Minute)
	raw, ok := strings.CutPrefix(strings.TrimSpace(line), "RESULT ")
	if !ok {
		t.Fatalf("the guest: %s\n%s", line, m.Serial.Tail())
	}
	var variants map[string][]map[string]int64
	if err := json.Unmarshal([]byte(raw), &variants); err != nil {
		t.Fatalf("read what the guest measured: %v\n%s", err, raw)
	}
	out := measured{Kernel: kernel.Release, Go: runtime.Version(), Instructions: map[string]int64{}}
	for variant, starts := range variants {
		for workload := range starts[0] {
			sum := int64(0)
			for _, took := range starts {
				sum += took[workload]
			}
			out.Instructions[variant+": "+workload] = sum / int64(len(starts))
		}
	}
	t.Logf("machine %d ran for %v; instructions an operation, and that to no monitor:\n%s", seed,
		time.Since(m.Started).Round(time.Second), out.table())
	return out
}

// archive packs the guest, the platform, and a configuration for each variant.
func archive(t *testing.T, kernel testvm.Kernel) string {
	t.Helper()
	variants := []struct {
		name      string
		providers []testhost.Provider
	}{
		{"keepout", nil},
		{"1 provider", []testhost.Provider{{ID: "steady-0", Source: "steady"}}},
		{knownDigest, []testhost.Provider{{ID: "hashlist", Source: "hashlist", Content: "/etc/keepout/hashlist"}}},
		{"3 providers", []testhost.Provider{
			{ID: "steady-0", Source: "steady"}, {ID: "steady-1", Source: "steady"}, {ID: "steady-2", Source: "steady"},
		}},
	}
	plans := []plan{{Name: none, Watch: "/watched/none", Repeat: starts}}
	deny := strings.Repeat("0", 64) + " nothing\n"
	out := []initramfs.File{{Name: "etc/keepout/hashlist/deny.txt", Data: []byte(deny)}}
	for i, v := range variants {
		p := plan{
			Name: v.name, Watch: fmt.Sprintf("/watched/%d", i), Config: fmt.Sprintf("/etc/keepout/%d.yaml", i),
			Providers: len(v.providers), Repeat: starts,
		}
		if v.name == knownDigest {
			p.Work = "execs"
		}
		h := testhost.Prepare(t, testhost.Options{Watch: p.Watch, Providers: v.providers})
		out = append(out, initramfs.File{Name: strings.TrimPrefix(p.Config, "/"), Data: read(t, h.Config)})
		if v.name != "1 provider" { // its provider is among the three
			out = append(out, tree(t, h.Providers, "platform/providers")...)
		}
		plans = append(plans, p)
	}
	bin := testenv.Build(t, "./cmd/keepoutd", "./cmd/keepout-core", "./test/icount/guest")
	loop := filepath.Join(kernel.Modules, "kernel", "drivers", "block", "loop.ko")
	text, err := json.Marshal(plans)
	if err != nil {
		t.Fatal(err)
	}
	out = append(out,
		initramfs.File{Name: "plans.json", Data: text},
		initramfs.File{Name: "loop.ko", Data: read(t, loop)},
		initramfs.File{Name: "watched.ext4", Data: image(t)},
		initramfs.File{Name: "init", Mode: 0o755, Data: read(t, filepath.Join(bin, "guest"))},
		initramfs.File{Name: "platform/keepoutd", Mode: 0o755, Data: read(t, filepath.Join(bin, "keepoutd"))},
		initramfs.File{Name: "platform/keepout-core", Mode: 0o755, Data: read(t, filepath.Join(bin, "keepout-core"))},
	)
	content, err := initramfs.Bytes(out)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "initramfs.cpio")
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// image makes an empty file system. Without a journal there is less that happens in its own time.
func image(t *testing.T) []byte {
	t.Helper()
	file := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "mkfs.ext4", "-q", "-F", "-I", "256", "-O", "^has_journal", file, "16M").
		CombinedOutput()
	if err != nil {
		t.Fatalf("mkfs.ext4: %v\n%s", err, out)
	}
	return read(t, file)
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// tree packs a folder.
func tree(t *testing.T, dir, to string) (out []initramfs.File) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		name := to + "/" + filepath.ToSlash(rel)
		out = append(out, initramfs.File{Name: name, Mode: uint32(info.Mode().Perm()), Data: read(t, path)})
		return nil
	})
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return out
}
