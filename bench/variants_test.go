package bench

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/bench/report"
	"github.com/keepout-security/keepout/internal/control"
	"github.com/keepout-security/keepout/internal/testenv"
	"github.com/keepout-security/keepout/internal/testvm"
	"github.com/keepout-security/keepout/test/testhost"
)

// variants lists everything that is compared, and why the rest is not.
func variants(b *testing.B, bed *bed) (all []*arena, notes []string) {
	b.Helper()
	c := responderC(b, bed.base)
	fapolicyd, noFapolicyd := testvm.Fetch("fapolicyd")
	lacks := func(name string, err error) {
		if err != nil {
			notes = append(notes, fmt.Sprintf("not compared: %s: %v", name, err))
		}
	}
	add := func(a *arena, needs ...error) {
		wanted := *onlyFlag == "" || a.name == report.None || regexp.MustCompile(*onlyFlag).MatchString(a.name)
		for _, err := range needs {
			lacks(a.name, err)
			wanted = wanted && err == nil
		}
		if wanted {
			all = append(all, a)
		}
	}
	lmdb, err := testvm.Fetch("liblmdb0") // which it needs
	noFapolicyd = errors.Join(noFapolicyd, err)
	_, noClamonacc := os.Stat("/usr/sbin/clamonacc")
	noClamAV := testenv.Probe(testenv.ClamAV)

	add(&arena{name: report.None, thread: true, start: func(*testing.B, *arena) {}})
	add(&arena{name: report.MinimalC, thread: true, start: responder(c, 0)}, testenv.Probe(testenv.GCC))
	add(&arena{name: report.MinimalC1, start: responder(c, 1)}, testenv.Probe(testenv.GCC))
	add(&arena{name: report.MinimalC3, start: responder(c, 3)}, testenv.Probe(testenv.GCC))
	add(&arena{name: report.MinimalGo, start: responderGo(bed, 0)})
	add(&arena{name: report.Keepout0, thread: true, start: keepout()})
	add(&arena{name: report.KeepoutAloof, thread: true, start: keepout(testhost.Provider{ID: "aloof", Source: "aloof"})})
	add(&arena{name: report.Keepout1, start: keepout(engines(1, 0)...)})
	add(&arena{name: report.Keepout3, thread: true, start: keepout(engines(3, 0)...)})
	add(&arena{name: report.KeepoutClamAV, heavy: true, start: keepoutClamAV(bed)}, noClamAV)
	add(&arena{name: report.Clamonacc, heavy: true, start: startOnAccess(bed)}, noClamAV, noClamonacc)
	add(&arena{name: report.FapolicydExec, start: startFapolicyd(bed, fapolicyd, lmdb, execRules, false)}, noFapolicyd)
	shipped := startFapolicyd(bed, fapolicyd, lmdb, shippedRules, true)
	add(&arena{name: report.FapolicydAll, heavy: true, start: shipped}, noFapolicyd)

	const delay = time.Millisecond
	add(&arena{name: report.Scanner1ms, slow: true, start: responderGo(bed, delay)})
	add(&arena{name: report.Scanners3ms, slow: true, start: responderGo(bed, delay, delay, delay)})
	add(&arena{name: report.Keepout1ms, slow: true, start: keepout(engines(1, delay)...)})
	add(&arena{name: report.Keepout3ms, slow: true, start: keepout(engines(3, delay)...)})
	return all, notes
}

// responderC compiles the responder in C into a folder.
func responderC(b *testing.B, folder string) string {
	b.Helper()
	target := filepath.Join(folder, "responder-c")
	if testenv.Probe(testenv.GCC) == nil {
		source := filepath.Join(testenv.ModuleRoot(b), "bench", "testdata", "responder.c")
		command(b, "gcc", "-O2", "-Wall", "-Werror", "-o", target, source)
	}
	return target
}

// responder is the one in C, with so many processes that it asks.
func responder(program string, providers int) func(*testing.B, *arena) {
	return func(b *testing.B, a *arena) {
		b.Helper()
		_, a.free = readyProcess(b, program, a.dir, strconv.Itoa(int(comparisonLife.Seconds())), strconv.Itoa(providers))
	}
}

// responderGo starts a responder for each delay: groups of their own, which the kernel asks one after the other.
func responderGo(bed *bed, delays ...time.Duration) func(*testing.B, *arena) {
	return func(b *testing.B, a *arena) {
		b.Helper()
		var ends []func()
		for _, d := range delays {
			_, end := readyProcess(b, filepath.Join(bed.bin, "responder"), "-delay", d.String(), "-life",
				comparisonLife.String(), a.dir)
			ends = append(ends, end)
		}
		a.free = func() {
			for _, end := range ends {
				end()
			}
		}
	}
}

// readyProcess starts a responder and waits until it says that it watches.
func readyProcess(b testing.TB, program string, args ...string) (pid int, end func()) {
	b.Helper()
	log := filepath.Join(folder(b), "out")
	args = append([]string{"-c", `exec "$0" "$@" >` + log + " 2>&1", program}, args...)
	pid, end = process(b, comparisonLife, "/bin/sh", args...)
	awaitLine(b, log, "ready")
	return pid, end
}

func awaitLine(b testing.TB, log, line string) {
	b.Helper()
	var text []byte
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		text, _ = os.ReadFile(log) // not there yet
		if strings.Contains(string(text), line) {
			return
		}
	}
	b.Fatalf("it does not say %q, but:\n%s", line, text)
}

func engines(n int, delay time.Duration) (providers []testhost.Provider) {
	for i := range n {
		providers = append(providers, testhost.Provider{ID: "steady-" + strconv.Itoa(i), Source: "steady", Delay: delay})
	}
	return providers
}

func keepout(providers ...testhost.Provider) func(*testing.B, *arena) {
	return func(b *testing.B, a *arena) {
		b.Helper()
		h := testhost.Start(b, testhost.Options{
			Life: comparisonLife, Watch: a.dir, Wait: len(providers) == 0, Providers: providers,
		})
		h.Until("it watches", func() bool { s, err := h.TryStatus(); return err == nil && len(s.Watching) == 1 })
		core := h.Status().PID
		a.free = func() {
			_ = unix.Kill(h.PID, unix.SIGKILL)
			_ = unix.Kill(core, unix.SIGKILL)
		}
		before := unasked(h.Status())
		a.watch = func() string {
			s, err := h.TryStatus()
			if err != nil {
				return err.Error()
			}
			if s.PID != core {
				return "another core answers"
			}
			if n := unasked(s) - before; n > 0 {
				return fmt.Sprintf("%d verdicts without a provider that should have voted: its numbers are too good", n)
			}
			return ""
		}
	}
}

// unasked counts questions that a provider did not answer in time, or was not asked.
func unasked(s *control.Status) (n uint64) {
	for _, p := range s.Providers {
		n += p.Counters.Late + p.Counters.Dropped + p.Counters.Skipped
	}
	return n + s.Verdicts.Unavailable + s.Verdicts.Timeout
}

func keepoutClamAV(bed *bed) func(*testing.B, *arena) {
	return func(b *testing.B, a *arena) {
		b.Helper()
		keepout(testhost.Provider{ID: "clamav", Source: "clamav", Content: bed.sigs})(b, a)
		provesItself(b, a)
	}
}

func startOnAccess(bed *bed) func(*testing.B, *arena) {
	return func(b *testing.B, a *arena) {
		b.Helper()
		_, a.free = clamonacc(b, comparisonLife, a.dir, bed.sigs)
		provesItself(b, a)
	}
}

// provesItself waits until what the one known signature is about is denied.
func provesItself(b *testing.B, a *arena) {
	b.Helper()
	bad := filepath.Join(a.dir, "bad")
	must(b, os.WriteFile(bad, []byte(badText), 0o600))
	must(b, os.Chmod(bad, 0o644))
	await(b, "the bad file is denied", func() bool {
		var out []outcome
		gather(b, actTogether, bad).result(&out)
		return out[0].Errno == unix.EPERM
	})
}

// The rules of fapolicyd: those about programs alone, and what its package ships as "known-libs" (README-rules there).
const execRules = "deny_audit perm=execute pattern=ld_so : all\nallow perm=execute all : all\n"

const shippedRules = "10-languages 20-dracut 21-updaters 30-patterns 40-bad-elf 41-shared-obj 42-trusted-elf " +
	"70-trusted-lang 72-shell 90-deny-execute 95-allow-open"

// startFapolicyd starts what was unpacked of its package, and installed nowhere, in the arena's room: with its own
// configuration but for what follows from being run by hand, on files of its own that lie over the system's in that
// room only.
func startFapolicyd(bed *bed, unpacked, lmdb, rules string, shipped bool) func(*testing.B, *arena) {
	return func(b *testing.B, a *arena) {
		b.Helper()
		over := filepath.Join(bed.base, "over"+strconv.FormatBool(shipped))
		for _, dir := range []string{"/etc", "/var/lib", "/run", "/usr/share"} {
			upper := filepath.Join(over, "upper", dir, "fapolicyd")
			work := filepath.Join(over, "work", dir)
			must(b, os.MkdirAll(upper, 0o755))
			must(b, os.MkdirAll(work, 0o755))
			a.command(b, "mount", "-t", "overlay", "-o",
				fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", dir, filepath.Dir(upper), work), "keepout-bench", dir)
		}
		etc := filepath.Join(over, "upper", "etc", "fapolicyd")
		conf, err := os.ReadFile(filepath.Join(unpacked, "etc", "fapolicyd", "fapolicyd.conf"))
		must(b, err)
		text, permissive := string(conf), "0"
		if shipped {
			permissive = "1" // they deny some source files of Go by what they look like
			rules = compile(b, unpacked, strings.Fields(rules))
		}
		for key, value := range map[string]string{
			"permissive": permissive, "uid": "root", "gid": "root", "watch_fs": "ext3", "trust": "file",
		} {
			text = regexp.MustCompile(`(?m)^`+key+` *=.*$`).ReplaceAllString(text, key+" = "+value)
		}
		must(b, os.WriteFile(filepath.Join(etc, "fapolicyd.conf"), []byte(text), 0o644))
		must(b, os.WriteFile(filepath.Join(etc, "compiled.rules"), []byte(rules), 0o644))
		trust := "/bin/true 1 " + strings.Repeat("0", 64) + "\n" // it wants one line
		must(b, os.WriteFile(filepath.Join(etc, "fapolicyd.trust"), []byte(trust), 0o644))
		share := filepath.Join(unpacked, "usr", "share", "fapolicyd")
		command(b, "cp", "-a", share+"/.", filepath.Join(over, "upper", "usr", "share", "fapolicyd"))
		log := filepath.Join(bed.base, "fapolicyd"+strconv.FormatBool(shipped)+".log")
		libraries := strings.TrimSpace(command(b, "find", lmdb, "-name", "liblmdb.so.0", "-printf", "%h"))
		args := append(append([]string{}, a.prefix[1:]...), "/usr/bin/env", "LD_LIBRARY_PATH="+libraries, "/bin/sh", "-c",
			`exec "$0" "$@" >`+log+" 2>&1", filepath.Join(unpacked, "usr", "sbin", "fapolicyd"), "--debug-deny")
		pid, end := process(b, comparisonLife, a.prefix[0], args...)
		a.free = func() { _ = syscall.Kill(pid, syscall.SIGKILL); end() }
		awaitLine(b, log, "listen for events")
	}
}

// compile makes one file of the rules that the package ships.
func compile(b *testing.B, unpacked string, names []string) string {
	b.Helper()
	var rules strings.Builder
	for _, name := range names {
		path := filepath.Join(unpacked, "usr", "share", "fapolicyd", "sample-rules", name+".rules")
		text, err := os.ReadFile(path)
		must(b, err)
		for line := range strings.Lines(string(text)) {
			if trimmed := strings.TrimSpace(line); trimmed != "" && trimmed[0] != '#' {
				rules.WriteString(trimmed + "\n")
			}
		}
	}
	return rules.String()
}
