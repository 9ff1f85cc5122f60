package bench

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// actVariable makes this test binary a process that opens files, so that whoever waits can be killed.
const actVariable = "KEEPOUT_BENCH_ACT"

// The acts.
const (
	actTogether = "together" // PATH...: opens them all at one time
	actSteady   = "steady"   // TIME WAIT PATH...: loadThreads threads open them in turn for TIME
)

// perform does one act, prints what came of it as JSON and returns the exit code.
func perform(act string, paths []string) int {
	var result any
	switch act {
	case actTogether:
		result = openTogether(paths)
	case actEcho:
		return echo(paths[0])
	case actSteady:
		lasts, err := time.ParseDuration(paths[0])
		waits, wrong := time.ParseDuration(paths[1])
		if err != nil || wrong != nil {
			return 1
		}
		result = openSteadily(lasts, waits, paths[2:])
	default:
		fmt.Fprintln(os.Stderr, "unknown act", act)
		return 1
	}
	if err := json.NewEncoder(os.Stdout).Encode(result); err != nil {
		return 1
	}
	return 0
}

// outcome is how one open ended.
type outcome struct {
	Errno unix.Errno    // 0: it succeeded
	At    time.Duration // on the monotonic clock, which all processes share
}

func (o outcome) String() string {
	if o.Errno == 0 {
		return "allowed"
	}
	return o.Errno.Error()
}

// monotonic reads CLOCK_MONOTONIC.
func monotonic() time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) // cannot fail: the clock exists
	return time.Duration(ts.Nano())
}

// openTogether opens each path on a thread of its own, with a processor slot for each: who is answered shall not
// queue for one before it reads the clock.
func openTogether(paths []string) []outcome {
	runtime.GOMAXPROCS(len(paths) + runtime.NumCPU())
	out := make([]outcome, len(paths))
	var wg sync.WaitGroup
	for i, path := range paths {
		wg.Go(func() {
			errno := open(path)
			out[i] = outcome{Errno: errno, At: monotonic()}
		})
	}
	wg.Wait()
	return out
}

func open(path string) unix.Errno {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		_ = unix.Close(fd)
		return 0
	}
	var errno unix.Errno
	_ = errors.As(err, &errno) // unix.Open returns nothing else
	return errno
}

// steady is what the threads of openSteadily felt.
type steady struct {
	Longest time.Duration
	Opens   int64
	Failed  int64
	Blocked int // opens that did not end; Longest counts them until then
}

// openSteadily begins no open after lasts, and waits no longer than waits for those that have begun.
func openSteadily(lasts, waits time.Duration, paths []string) steady {
	var l loss
	var began [loadThreads]atomic.Int64 // of the open that is going on, or 0
	var wg sync.WaitGroup
	start := monotonic()
	for t := range loadThreads {
		wg.Go(func() {
			for i := t; monotonic()-start < lasts; i += loadThreads {
				began[t].Store(int64(monotonic()))
				l.one(paths[i%len(paths)])
				began[t].Store(0)
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(lasts + waits):
	}
	s := steady{Longest: time.Duration(l.longest.Load()), Opens: l.opens.Load(), Failed: l.failed.Load()}
	for t := range began {
		if at := began[t].Load(); at != 0 {
			s.Blocked++
			s.Longest = max(s.Longest, monotonic()-time.Duration(at))
		}
	}
	return s
}

// crowd is a process that opens files.
type crowd struct {
	b   *testing.B
	cmd *exec.Cmd
	out bytes.Buffer
}

// gather starts an act. The process ends with the benchmark, whatever it waits for.
func gather(b *testing.B, act string, paths ...string) *crowd {
	b.Helper()
	self, err := os.Executable()
	must(b, err)
	c := &crowd{b: b, cmd: exec.CommandContext(b.Context(), self, paths...)}
	c.cmd.Env = append(os.Environ(), actVariable+"="+act)
	c.cmd.Stdout, c.cmd.Stderr = &c.out, os.Stderr
	must(b, c.cmd.Start())
	return c
}

// result waits for the process and decodes what it printed.
func (c *crowd) result(into any) {
	c.b.Helper()
	must(c.b, c.cmd.Wait())
	must(c.b, json.Unmarshal(c.out.Bytes(), into))
}
