package bench

import (
	"bytes"
	"context"
	"crypto/md5"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/internal/testenv"
	"github.com/keepout-security/keepout/test/testhost"
)

// BenchmarkStoppedScanner stops (SIGSTOP) the clamd behind Keepout and the one behind ClamAV's own on-access scanner,
// clamonacc with OnAccessPrevention, and reports the longest time that 8 threads waited for an open in the 10 s after
// that (-benchtime 3x for the number in SPECIFICATION.md). Both have their defaults for how long they wait, one
// signature of our own, and a file system of their own; both must deny the file that the signature is about before
// the stop. still-blocked counts opens that had not ended 70 s after the stop; these are longer than what is said.
func BenchmarkStoppedScanner(b *testing.B) {
	testenv.Need(b, testenv.Root, testenv.Fanotify, testenv.MountNS, testenv.ClamAV)
	b.Run("keepout", func(b *testing.B) { stops(b, startKeepout) })
	b.Run("clamonacc", func(b *testing.B) { stops(b, startClamonacc) })
	b.Run("clamonacc-fdpass", func(b *testing.B) { stops(b, startClamonacc, "--fdpass") })
}

// stoppable is a protected file system.
type stoppable struct {
	dir   string
	clamd int // its process
	end   func()
}

func stops(b *testing.B, start func(b *testing.B, args ...string) stoppable, args ...string) {
	b.Helper()
	var longest []float64
	var sum steady
	for b.Loop() {
		s := stopOnce(b, start(b, args...))
		longest = append(longest, milliseconds(s.Longest))
		sum.Opens += s.Opens
		sum.Failed += s.Failed
		sum.Blocked += s.Blocked
	}
	b.ReportMetric(0, "ns/op") // says nothing here
	b.ReportMetric(slices.Max(longest), "longest-open-ms")
	b.ReportMetric(median(longest), "median-longest-ms")
	b.ReportMetric(float64(sum.Opens)/float64(b.N), "opens")
	b.ReportMetric(float64(sum.Failed), "failed-opens")
	b.ReportMetric(float64(sum.Blocked), "still-blocked")
}

// steadyFiles is how many files the threads open in turn.
const steadyFiles = 256

func stopOnce(b *testing.B, host stoppable) steady {
	b.Helper()
	defer host.end()
	paths := manyFiles(b, host.dir, steadyFiles)
	bad := filepath.Join(host.dir, "bad")
	must(b, os.WriteFile(bad, []byte(badText), 0o600))
	for _, path := range append(paths, bad) {
		must(b, os.Chmod(path, 0o644)) // clamonacc has clamd open it, as its own user
	}
	var out []outcome
	denied := func() bool {
		gather(b, actTogether, bad).result(&out)
		return out[0].Errno == unix.EPERM
	}
	for end := time.Now().Add(30 * time.Second); !denied(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			b.Fatalf("before the stop, what is bad is %s", out[0])
		}
	}
	freeze(b, host.clamd)
	var s steady
	scale := theScale(b)
	gather(b, actSteady, append([]string{scale.steadyTime.String(), scale.steadyWait.String()}, paths...)...).result(&s)
	return s
}

// badText is what the signature is about.
const badText = "this is bad, says the only signature"

// signatures makes a folder with one signature.
func signatures(b *testing.B) string {
	b.Helper()
	dir := folder(b)
	path := filepath.Join(dir, "bad.hdb")
	line := fmt.Sprintf("%x:%d:Bad\n", md5.Sum([]byte(badText)), len(badText))
	must(b, os.WriteFile(path, []byte(line), 0o600))
	must(b, os.Chmod(path, 0o644))
	return dir
}

func startKeepout(b *testing.B, _ ...string) stoppable {
	b.Helper()
	h := testhost.Start(b, testhost.Options{
		Life: life, Providers: []testhost.Provider{{ID: "clamav", Source: "clamav", Content: signatures(b)}},
	})
	clamd := childOf(b, member(b, h.Status(), "clamav").PID)
	return stoppable{dir: h.Dir, clamd: clamd, end: func() { h.Stop() }}
}

// childOf returns the one child of a process.
func childOf(b *testing.B, pid int) int {
	b.Helper()
	var words []string
	paths, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid)) // the pattern is well-formed
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err == nil { // else that thread has ended
			words = append(words, strings.Fields(string(text))...)
		}
	}
	if len(words) != 1 {
		b.Fatalf("process %d has the children %q, want one", pid, words)
	}
	child, err := strconv.Atoi(words[0])
	must(b, err)
	return child
}

func startClamonacc(b *testing.B, args ...string) stoppable {
	b.Helper()
	watched := testenv.Tmpfs(b, "64m")
	clamd, end := clamonacc(b, life, watched, signatures(b), args...)
	return stoppable{dir: watched, clamd: clamd, end: end}
}

// clamonacc starts a clamd and a clamonacc as Debian's services do, but with a configuration and a socket of their
// own, in this private mount namespace and on a file system of its own. Whatever happens, both are killed by their
// process id, and with clamonacc's end the kernel releases whoever waits.
func clamonacc(b *testing.B, life time.Duration, watched, sigs string, args ...string) (clamdPID int, end func()) {
	b.Helper()
	if !testenv.InPrivateMounts() {
		b.Fatal("clamonacc marks directories: not in a private mount namespace")
	}
	state := folder(b)
	must(b, os.Chmod(state, 0o777)) // clamd gives up root before it makes its socket
	conf := filepath.Join(state, "clamd.conf")
	text := fmt.Sprintf(`Foreground yes
User clamav
LocalSocket %[1]s/clamd.sock
LocalSocketMode 666
DatabaseDirectory %[2]s
TemporaryDirectory %[1]s
LogFile %[1]s/clamd.log
OnAccessIncludePath %[3]s
OnAccessPrevention yes
OnAccessExcludeUname clamav
`, state, sigs, watched)
	must(b, os.WriteFile(conf, []byte(text), 0o600))
	must(b, os.Chmod(conf, 0o644))

	clamd, endClamd := process(b, life, "/usr/sbin/clamd", "--config-file="+conf)
	await(b, "clamd has its socket", func() bool {
		_, err := os.Stat(filepath.Join(state, "clamd.sock"))
		return err == nil
	})
	args = append(args, "--foreground", "--config-file="+conf, "--log="+filepath.Join(state, "clamonacc.log"))
	_, endScanner := process(b, life, "/usr/sbin/clamonacc", args...)
	return clamd, func() { endScanner(); endClamd() }
}

// process starts a program that is killed by end, at the latest with the benchmark, with this process, or by a
// watchdog.
func process(b testing.TB, life time.Duration, program string, args ...string) (pid int, end func()) {
	b.Helper()
	cmd := exec.CommandContext(context.Background(), program, args...) // ended below, in order
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread() // the signal comes with the end of the thread
	must(b, cmd.Start())
	testenv.Watchdog(b, life, func() { _ = cmd.Process.Kill() })
	end = sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
		runtime.UnlockOSThread()
		if b.Failed() {
			b.Logf("%s: %s", program, out.String())
		}
	})
	b.Cleanup(end)
	return cmd.Process.Pid, end
}
