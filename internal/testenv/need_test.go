package testenv

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
)

func TestMain(m *testing.M) { os.Exit(PrivateMounts(m)) }

// recorder stands for a test and remembers how it ended.
type recorder struct {
	testing.TB
	mu       sync.Mutex
	outcome  string // "", "skip" or "fatal"
	message  string
	errors   int
	cleanups []func()
}

func (r *recorder) Helper() {}

func (r *recorder) end(outcome, message string) {
	r.outcome, r.message = outcome, message
	runtime.Goexit()
}

func (r *recorder) Skipf(format string, args ...any) { r.end("skip", fmt.Sprintf(format, args...)) }

func (r *recorder) Fatalf(format string, args ...any) { r.end("fatal", fmt.Sprintf(format, args...)) }
func (r *recorder) Fatal(args ...any)                 { r.end("fatal", fmt.Sprint(args...)) }
func (r *recorder) Cleanup(f func())                  { r.cleanups = append(r.cleanups, f) }

func (r *recorder) Errorf(string, ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.errors++
}

func (r *recorder) failures() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.errors
}

// record runs body as a test would run, to its end or to the call that ends it.
func record(body func(t testing.TB)) *recorder {
	r := &recorder{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		body(r)
	}()
	<-done
	return r
}

func TestNeed(t *testing.T) {
	t.Parallel()
	missing := func(missing ...Capability) func(Capability) error {
		return func(c Capability) error {
			if slices.Contains(missing, c) {
				return errors.New("it is\nnot there")
			}
			return nil
		}
	}
	for _, c := range []struct {
		name, lane       string
		probe            func(Capability) error
		needs            []Capability
		outcome, message string
	}{
		{name: "present", probe: missing(), needs: []Capability{Root, FUSE}},
		{
			name: "missing, no promise", probe: missing(FUSE), needs: []Capability{Root, FUSE},
			outcome: "skip", message: "NEEDS fuse: it is not there",
		},
		{
			name: "missing, the unit lane promises nothing", lane: "unit", probe: missing(Root),
			needs: []Capability{Root}, outcome: "skip", message: "NEEDS root: it is not there",
		},
		{
			name: "missing, promised by root", lane: "root", probe: missing(Loop), needs: []Capability{Loop},
			outcome: "fatal", message: `lane "root" promises loop: it is not there`,
		},
		{
			name: "missing, the root lane says nothing of it", lane: "root", probe: missing(YARA),
			needs: []Capability{YARA}, outcome: "skip", message: "NEEDS yara: it is not there",
		},
		{
			name: "missing, promised by all", lane: "all", probe: missing(YARA), needs: []Capability{YARA},
			outcome: "fatal", message: `lane "all" promises yara: it is not there`,
		},
		{
			name: "present, misspelt lane", lane: "al", probe: missing(), needs: []Capability{Git},
			outcome: "fatal", message: `KEEPOUT_LANE="al": want unit, root, vm, vm-full or all`,
		},
		{
			name: "unknown capability", probe: missing(), needs: []Capability{"magic"},
			outcome: "fatal", message: `unknown capability "magic"`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := record(func(tb testing.TB) { need(tb, c.lane, c.probe, c.needs) })
			if r.outcome != c.outcome || r.message != c.message {
				t.Errorf("got %q %q, want %q %q", r.outcome, r.message, c.outcome, c.message)
			}
		})
	}
}

func TestEveryCapabilityIsPromisedByAll(t *testing.T) {
	t.Parallel()
	promised, err := promises("all")
	if err != nil {
		t.Fatal(err)
	}
	for c := range probes {
		if !slices.Contains(promised, c) {
			t.Errorf("the lane that promises everything leaves out %s", c)
		}
	}
	if len(promised) != len(probes) {
		t.Errorf("%d capabilities promised, %d probed", len(promised), len(probes))
	}
}

// TestProbes asks for everything, so that a broken probe shows where the machine has the thing.
func TestProbes(t *testing.T) {
	t.Parallel()
	for c := range probes {
		t.Run(string(c), func(t *testing.T) {
			t.Parallel()
			Need(t, c)
		})
	}
}

func TestProbeKnowsWhatItDoesNotKnow(t *testing.T) {
	t.Parallel()
	if err := Probe("magic"); err == nil {
		t.Error("an unknown capability was found")
	}
	if err := Probe(Root); (err == nil) != (os.Geteuid() == 0) {
		t.Errorf("root probe says %v for user %d", err, os.Geteuid())
	}
}

func TestCommandOutput(t *testing.T) {
	t.Parallel()
	if _, err := output("/nonexistent/program"); err == nil {
		t.Error("a program that does not exist ran")
	}
	Need(t, GCC)
	err := compile("int main(void) { return nothing; }\n")
	if err == nil || !strings.Contains(err.Error(), "nothing") {
		t.Errorf("a wrong program compiled, or the compiler's words are lost: %v", err)
	}
}

func TestInterpreterRuns(t *testing.T) {
	t.Parallel()
	Need(t, Python)
	path, err := Interpreter()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), path, "-c", "print(6*7)").Output()
	if err != nil || strings.TrimSpace(string(out)) != "42" {
		t.Errorf("%s answered %q, %v", path, out, err)
	}
}
