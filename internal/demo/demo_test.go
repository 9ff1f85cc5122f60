package demo

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/internal/playground"
	"github.com/keepout-security/keepout/internal/testenv"
)

// The demonstration has a mount namespace of its own; the tests have one around it, should it ever fail to.
func TestMain(m *testing.M) { os.Exit(testenv.PrivateMounts(m)) }

// demonstration is a running "keepout demo".
type demonstration struct {
	cmd  *exec.Cmd
	dir  string // its folder; known once it has said so
	text bytes.Buffer
	in   *bufio.Reader
}

var folder = regexp.MustCompile(`\$ cd (\S+/` + homePattern + `\S+)`)

func begin(t *testing.T, args ...string) *demonstration {
	t.Helper()
	testenv.Need(t, testenv.Root, testenv.Fanotify, testenv.MountNS)
	packages := []string{"./cmd/keepoutd", "./cmd/keepout-core", "./cmd/keepout", "./providers/hashlist"}
	if testenv.Probe(testenv.ClamAV) == nil {
		packages = append(packages, "./providers/clamav")
	}
	if testenv.Probe(testenv.YARA) == nil {
		packages = append(packages, "./providers/yara")
	}
	bin := testenv.Build(t, packages...)
	// Orphans of the demonstration come to us, so that the test sees what it leaves behind.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	d := &demonstration{cmd: exec.Command(filepath.Join(bin, "keepout"), append([]string{"demo"}, args...)...)}
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	d.cmd.Stderr = d.cmd.Stdout
	d.in = bufio.NewReader(io.TeeReader(out, &d.text))
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	testenv.Watchdog(t, time.Minute, func() { _ = d.cmd.Process.Kill() })
	return d
}

// read goes on until a line contains text, or to the end when text is empty.
func (d *demonstration) read(t *testing.T, text string) {
	t.Helper()
	for {
		line, err := d.in.ReadString('\n')
		if m := folder.FindStringSubmatch(line); m != nil {
			d.dir = m[1]
		}
		if text != "" && strings.Contains(line, text) {
			return
		}
		if errors.Is(err, io.EOF) && text == "" {
			return
		}
		if err != nil {
			t.Fatalf("no %q in the output (%v):\n%s", text, err, d.text.String())
		}
	}
}

// finish reads to the end and looks for what is left behind.
func (d *demonstration) finish(t *testing.T, code int) string {
	t.Helper()
	d.read(t, "")
	_ = d.cmd.Wait() // the exit code says it
	if got := d.cmd.ProcessState.ExitCode(); got != code {
		t.Errorf("exit code %d, want %d:\n%s", got, code, d.text.String())
	}
	d.gone(t)
	return d.text.String()
}

func (d *demonstration) gone(t *testing.T) {
	t.Helper()
	if d.dir == "" {
		t.Fatalf("it never named its folder:\n%s", d.text.String())
	}
	if _, err := os.Lstat(d.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is left behind: %v", d.dir, err)
	}
	if left := playground.Children(os.Getpid()); len(left) > 0 {
		t.Errorf("processes are left behind: %v", left)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || bytes.Contains(mounts, []byte(d.dir)) {
		t.Errorf("a mount is left behind (%v)", err)
	}
}

func TestStory(t *testing.T) {
	began := time.Now()
	d := begin(t, "--once")
	built := time.Since(began)
	text := d.finish(t, 0)
	if took := time.Since(began) - built; took > time.Minute {
		t.Errorf("it took %v", took)
	}
	for _, want := range []string{
		"cat: playground/eicar.com: Operation not permitted", "not one instruction of it ran", "decided by ",
		"hello, I am playground/hello", "hashlist denied its canary", "kill -KILL ", " 0 failed", "was started again",
		"nothing left behind: no process, no mount, no mark, no file",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q", want)
		}
	}
	for id, c := range map[string]testenv.Capability{"clamav": testenv.ClamAV, "yara": testenv.YARA} {
		row := regexp.MustCompile(`(?m)^ +` + id + ` +enforce +running `)
		if installed := testenv.Probe(c) == nil; row.MatchString(text) != installed {
			t.Errorf("%s is installed: %v", id, installed)
		}
	}
	if strings.Contains(text, "\x1b") {
		t.Error("colour, though the output is no terminal")
	}
	if lines := strings.Count(text, "\n"); lines > 80 {
		t.Errorf("the story has %d lines", lines)
	}
	if t.Failed() {
		t.Log(text)
	}
}

func TestInterruptedInTheMiddle(t *testing.T) {
	for _, at := range []string{"keepoutd --config", "cannot be opened", "kill -KILL "} {
		t.Run(at, func(t *testing.T) {
			d := begin(t)
			d.read(t, at)
			if err := d.cmd.Process.Signal(syscall.SIGINT); err != nil {
				t.Fatal(err)
			}
			text := d.finish(t, 1)
			if !strings.Contains(text, "nothing left behind") || !strings.Contains(text, "interrupted") {
				t.Errorf("it does not say so:\n%s", text)
			}
		})
	}
}

func TestLiveUntilInterrupted(t *testing.T) {
	d := begin(t)
	d.read(t, "keepout --run-dir run events --follow")
	d.read(t, "ALLOWED")
	d.read(t, "healthy, mode enforce")
	if err := d.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if text := d.finish(t, 0); !strings.Contains(text, "nothing left behind") {
		t.Errorf("it does not say so:\n%s", text)
	}
}

// TestKilled: nobody can clean up after SIGKILL but the second process and the kernel.
func TestKilled(t *testing.T) {
	d := begin(t)
	d.read(t, "healthy after")
	if err := d.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	d.read(t, "") // until the last process that holds the pipe is gone
	_ = d.cmd.Wait()
	if !playground.WaitAll(20 * time.Second) {
		t.Errorf("processes are left behind: %v", playground.Children(os.Getpid()))
	}
	d.gone(t)
}

// TestFailureIsTold: a platform that cannot start fails the demonstration, with its reason.
func TestFailureIsTold(t *testing.T) {
	d := begin(t, "--once")
	d.read(t, "keepoutd --config")
	killed := false
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end) && !killed; {
		for _, stage := range playground.Children(d.cmd.Process.Pid) {
			for _, p := range playground.Children(stage.PID) {
				killed = killed || p.Name == "keepoutd" && unix.Kill(p.PID, unix.SIGKILL) == nil
			}
		}
	}
	if !killed {
		t.Fatal("no keepoutd to kill")
	}
	if text := d.finish(t, 1); !strings.Contains(text, "✗") || !strings.Contains(text, "nothing left behind") {
		t.Errorf("it does not say so:\n%s", text)
	}
}

// TestStageAloneIsRefused: the hidden flag removes nothing that Run did not make.
func TestStageAloneIsRefused(t *testing.T) {
	testenv.Need(t, testenv.Root, testenv.MountNS)
	bin := testenv.Build(t, "./cmd/keepout")
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, playground.LockName), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	held, err := os.OpenFile(filepath.Join(dir, playground.LockName), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	other, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	for name, fd := range map[string]*os.File{"no lock": nil, "another file": other, "no namespace": held} {
		cmd := exec.Command(filepath.Join(bin, "keepout"), "demo", fmt.Sprintf("--%s=%s", playground.StageFlag, dir))
		if fd != nil {
			cmd.ExtraFiles = []*os.File{fd}
		}
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), "keepout demo") {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
		if _, err := os.Stat(filepath.Join(dir, playground.LockName)); err != nil {
			t.Errorf("%s: it removed something: %v", name, err)
		}
	}
}
