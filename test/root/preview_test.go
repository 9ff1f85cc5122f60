package root

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/internal/playground"
	"github.com/keepout-security/keepout/internal/preview"
	"github.com/keepout-security/keepout/internal/testenv"
)

// previewRun is a running "keepout fleet preview", whose temporary files are in a folder of its own.
type previewRun struct {
	t    *testing.T
	cmd  *exec.Cmd
	temp string
	text bytes.Buffer // of standard error where it prints JSON, else of both
	in   *bufio.Reader
	out  bytes.Buffer
}

func beginPreview(t *testing.T, args ...string) *previewRun {
	t.Helper()
	need(t, testenv.NetNS)
	bin := testenv.Build(t, "./cmd/keepoutd", "./cmd/keepout-core", "./cmd/keepout", "./cmd/keepout-fetch",
		"./cmd/keepout-fleet", "./providers/hashlist", "./providers/hostile/channel291")
	// Orphans of the preview come to us, so that the test sees what it leaves behind.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	temp, err := os.MkdirTemp("", "keepout-pt-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(temp) })
	if err := os.Chmod(temp, 0o755); err != nil { // engines pass through it
		t.Fatal(err)
	}
	p := &previewRun{t: t, temp: temp}
	args = append([]string{"fleet", "preview", "--hosts", strconv.Itoa(preview.MinHosts)}, args...)
	p.cmd = exec.Command(filepath.Join(bin, "keepout"), args...)
	p.cmd.Env = append(os.Environ(), "TMPDIR="+temp)
	p.cmd.Stdout = &p.out
	said, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.in = bufio.NewReader(io.TeeReader(said, &p.text))
	testenv.Watchdog(t, 5*time.Minute, func() { _ = p.cmd.Process.Kill() })
	return p
}

// read goes on until a line contains text, or to the end when text is empty.
func (p *previewRun) read(text string) {
	p.t.Helper()
	for {
		line, err := p.in.ReadString('\n')
		if text != "" && strings.Contains(line, text) || errors.Is(err, io.EOF) && text == "" {
			return
		}
		if err != nil {
			p.t.Fatalf("no %q in the output (%v):\n%s", text, err, p.text.String())
		}
	}
}

// finish reads to the end and looks for what is left behind.
func (p *previewRun) finish(code int) {
	p.t.Helper()
	p.read("")
	_ = p.cmd.Wait() // the exit code says it
	if got := p.cmd.ProcessState.ExitCode(); got != code {
		p.t.Errorf("exit code %d, want %d:\n%s", got, code, p.text.String())
	}
	if !playground.WaitAll(20 * time.Second) {
		p.t.Errorf("processes are left behind: %v", playground.Children(os.Getpid()))
	}
	if left, err := os.ReadDir(p.temp); err != nil || len(left) > 0 {
		p.t.Errorf("files are left behind: %v %v", left, err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || bytes.Contains(mounts, []byte(p.temp)) {
		p.t.Errorf("a mount is left behind (%v)", err)
	}
}

// TestPreview: the whole story, as data.
func TestPreview(t *testing.T) {
	p := beginPreview(t, "-o", "json")
	p.finish(0)
	var r preview.Result
	if err := json.Unmarshal(p.out.Bytes(), &r); err != nil {
		t.Fatalf("%v\n%s", err, p.out.String())
	}
	if !r.Held || r.Scenario != preview.ChannelFile || r.Hosts != preview.MinHosts || len(r.Rollouts) != 2 {
		t.Fatalf("%+v", r)
	}
	fine, bad := r.Rollouts[0], r.Rollouts[1]
	activated := 0
	for _, ring := range fine.Rings {
		activated += len(ring.Activated)
	}
	if fine.Status != "complete" || activated != preview.MinHosts {
		t.Errorf("the good release: %+v", fine)
	}
	named := strings.Contains(bad.Reason, "crash") && bytes.Contains(bad.Evidence, []byte(`"crash"`))
	if bad.Status != "halted" || !named {
		t.Errorf("the bad release: %+v", bad)
	}
	for i, ring := range bad.Rings {
		if (ring.Granted > 0 || len(ring.Activated) > 0) != (i == 0) {
			t.Errorf("ring %d of the bad release: %+v", i, ring)
		}
	}
	if text := p.text.String(); strings.Contains(text, "\x1b") || !strings.Contains(text, "index out of range") {
		t.Errorf("the story:\n%s", text)
	}
}

// TestPreviewInterrupted: Ctrl-C in the middle of a rollout takes everything down.
func TestPreviewInterrupted(t *testing.T) {
	p := beginPreview(t, "-o", "json", "--scenario", preview.Healthy)
	p.read("ring 0 opens")
	if err := p.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	p.finish(1)
	text := p.text.String()
	if !strings.Contains(text, "interrupted") || !strings.Contains(text, "nothing left behind") {
		t.Errorf("it does not say so:\n%s", text)
	}
}

// TestPreviewKilled: nobody can clean up after SIGKILL of the process that has the fleet but the first one, the kernel,
// and every process of the fleet itself.
func TestPreviewKilled(t *testing.T) {
	p := beginPreview(t, "-o", "json", "--scenario", preview.Healthy)
	p.read("keepout rollout create")
	for _, stage := range playground.Children(p.cmd.Process.Pid) {
		if err := unix.Kill(stage.PID, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	p.finish(1)
	if text := p.text.String(); strings.Contains(text, "left behind:") {
		t.Errorf("what it found:\n%s", text)
	}
}

// TestPreviewWithoutRoot says what is missing, and the whole command.
func TestPreviewWithoutRoot(t *testing.T) {
	testenv.Need(t, testenv.Root)
	bin := testenv.Build(t, "./cmd/keepout")
	cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "keepout"), "fleet", "preview")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	want := "sudo " + filepath.Join(bin, "keepout") + " fleet preview"
	if err == nil || !strings.Contains(string(out), want) || !strings.Contains(string(out), "KO-1102") {
		t.Errorf("%v: %s\nwant %q", err, out, want)
	}
}
