package sandbox

import (
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/internal/testenv"
)

// program makes the test binary available under the name that makes it a provider.
func program(t testing.TB) *os.File {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	dir := t.TempDir()
	must(t, os.Chmod(dir, 0o700)) // the provider's user cannot reach it, and need not
	path := filepath.Join(dir, childName)
	if os.Link(self, path) != nil {
		b, err := os.ReadFile(self)
		must(t, err)
		must(t, os.WriteFile(path, b, 0o700))
	}
	return openFile(t, path)
}

func openFile(t testing.TB, path string) *os.File {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// stateDir is a folder that a user of another id can pass to.
func stateDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "keepout-sandbox-")
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	must(t, os.Chmod(dir, 0o711))
	return filepath.Join(dir, "state")
}

// start starts a program and ends it with the test.
func start(t testing.TB, spec Spec, program *os.File) *Process {
	t.Helper()
	if spec.StateDir == "" {
		spec.StateDir = stateDir(t)
	}
	spec.Program = program.Name()
	if spec.Mounts == nil {
		spec.Mounts = []string{"/usr", "/lib", "/lib64", "/bin", ProcPath} // with the race detector it is linked dynamically
	}
	p, err := Start(spec, program)
	must(t, err)
	t.Cleanup(func() {
		p.Kill()
		wait(t, p)
		must(t, p.Close())
	})
	return p
}

func wait(t testing.TB, p *Process) {
	t.Helper()
	select {
	case <-p.Done():
	case <-time.After(patience):
		t.Fatal("the process does not end")
	}
}

func receive(t testing.TB, p *Process) report {
	t.Helper()
	buf := make([]byte, 64<<10)
	n, err := p.Auth.Recv(buf)
	if err != nil {
		wait(t, p)
		t.Fatalf("no report: %v; %s", err, p.Cause())
	}
	var r report
	must(t, json.Unmarshal(buf[:n], &r))
	return r
}

func TestProviderHasOnlyWhatItNeeds(t *testing.T) {
	t.Parallel()
	limits := Limits{Memory: 1 << 46, // the race detector reserves a lot
		Processes: 90, Files: 77}
	state := stateDir(t)
	groups := NewGroups(state)
	t.Cleanup(groups.Close)
	p := start(t, Spec{Slot: 3, Limits: limits, StateDir: state, Groups: groups}, program(t))
	r := receive(t, p)

	if len(r.Args) != 1 || filepath.Base(r.Args[0]) != childName {
		t.Errorf("arguments %q", r.Args)
	}
	if !slices.Equal(r.Env, environment(state)) {
		t.Errorf("environment %q", r.Env)
	}
	if r.Dir != "/" || r.Umask != 0o077 {
		t.Errorf("folder %s, umask %o", r.Dir, r.Umask)
	}
	for _, fd := range slices.Sorted(maps.Keys(r.Files)) {
		// What is above 4 is Go's own: its poller, the limits of its control group, the folder being listed.
		to := r.Files[fd]
		mine := strings.HasPrefix(to, "anon_inode:") || strings.HasPrefix(to, "/sys/fs/cgroup/") ||
			strings.HasPrefix(to, "/proc/")
		if n, err := strconv.Atoi(fd); err != nil || n > 4 && !mine {
			t.Errorf("descriptor %s is open: %s", fd, to)
		}
	}
	for name, want := range map[string]uint64{"core": 0, "data": limits.Memory, "nofile": limits.Files} {
		if l := r.Limits[name]; l.Cur != want || l.Max != want {
			t.Errorf("limit %s is %+v, want %d", name, l, want)
		}
	}
	if !strings.Contains(r.Status, "\nNoNewPrivs:\t1\n") {
		t.Error("it can gain privileges")
	}
	info, err := os.Stat(state)
	must(t, err)
	if info.Mode().Perm() != 0o700 {
		t.Errorf("state folder has mode %v", info.Mode())
	}
	if !p.Confinement.NoNew || p.Confinement.Reduced == p.Confinement.User {
		t.Errorf("confinement %+v", p.Confinement)
	}
}

func TestProviderOfRootIsNobody(t *testing.T) {
	t.Parallel()
	testenv.Need(t, testenv.Root)
	state := stateDir(t)
	p := start(t, Spec{Slot: 5, StateDir: state, Limits: Limits{Processes: 90}}, program(t))
	r := receive(t, p)
	const id = FirstUID + 5
	if r.UID != id || r.GID != id || len(r.Groups) != 0 {
		t.Errorf("user %d, group %d, groups %v, want %d only", r.UID, r.GID, r.Groups, id)
	}
	if !IsProvider(uint32(r.UID)) || IsProvider(0) || IsProvider(FirstUID-1) ||
		IsProvider(FirstUID+MaxProviders) {
		t.Error("the range of user ids is wrong")
	}
	for _, set := range []string{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"} {
		if !strings.Contains(r.Status, "\n"+set+":\t0000000000000000\n") {
			t.Errorf("%s is not empty:\n%s", set, r.Status)
		}
	}
	if r.PID != 1 || r.PPID != 0 {
		t.Errorf("process %d of parent %d, want the first of its own namespace", r.PID, r.PPID)
	}
	if l := r.Limits["nproc"]; l.Cur != 90 || l.Max != 90 {
		t.Errorf("limit of processes is %+v", l)
	}
	if r.WriteErr == "" {
		t.Error("it may write to /")
		_ = os.Remove("/sandbox-child-was-here")
	}
	var st unix.Stat_t
	must(t, unix.Stat(state, &st))
	if st.Uid != id || st.Gid != id {
		t.Errorf("the state folder belongs to %d:%d", st.Uid, st.Gid)
	}
	if !p.Confinement.User || !p.Confinement.PIDs {
		t.Errorf("confinement %+v", p.Confinement)
	}
}

// TestKillReachesGrandchildren: as root everything that a provider started ends with it, even what left its
// process group.
func TestKillReachesGrandchildren(t *testing.T) {
	t.Parallel()
	testenv.Need(t, testenv.Root)
	p := start(t, Spec{Limits: Limits{Processes: 90}}, program(t))
	receive(t, p)
	must(t, p.Control.Send([]byte("fork"), -1))
	buf := make([]byte, 64)
	if n, err := p.Control.Recv(buf); err != nil || string(buf[:n]) != "forked" {
		t.Fatalf("%q, %v", buf[:n], err)
	}
	p.Kill()
	wait(t, p)
	ended := make(chan error, 1)
	go func() { _, err := p.Control.Recv(buf); ended <- err }()
	select {
	case err := <-ended: // nobody holds the socket any more
		if !errors.Is(err, io.EOF) {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Error("a grandchild is left")
		p.Control.Shutdown()
		<-ended
	}
}

func TestCause(t *testing.T) {
	t.Parallel()
	p := start(t, Spec{Limits: Limits{Processes: 90}}, program(t))
	receive(t, p)
	must(t, p.Control.Send([]byte("exit"), -1))
	wait(t, p)
	if want := "exit status 7: last words"; p.Cause() != want {
		t.Errorf("cause %q, want %q", p.Cause(), want)
	}
	if n := len(p.Log()); n > maxLog || !strings.HasSuffix(p.Log(), "last words\n\n") {
		t.Errorf("log of %d bytes, limit %d", n, maxLog)
	}

	killed := start(t, Spec{Limits: Limits{Processes: 90}}, program(t))
	receive(t, killed)
	killed.Kill()
	wait(t, killed)
	if want := "signal: killed"; killed.Cause() != want {
		t.Errorf("cause %q, want %q", killed.Cause(), want)
	}
	killed.Kill() // does no harm

	left := start(t, Spec{Limits: Limits{Processes: 90}}, program(t))
	receive(t, left)
	left.Control.Shutdown()
	wait(t, left)
	if left.Cause() != "exited" {
		t.Errorf("cause %q", left.Cause())
	}
}

// TestScript: a provider may be a script, whose interpreter opens it by its descriptor.
func TestScript(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "script")
	must(t, os.WriteFile(path, []byte("#!/bin/sh\necho I am $(id -u) >&2\nexit 3\n"), 0o755))
	p := start(t, Spec{Slot: 1, Limits: Limits{Processes: 90}}, openFile(t, path))
	wait(t, p)
	want := "exit status 3: I am " + strconv.Itoa(os.Getuid())
	if os.Getuid() == 0 {
		want = "exit status 3: I am " + strconv.Itoa(FirstUID+1)
	}
	if p.Cause() != want {
		t.Errorf("cause %q, want %q", p.Cause(), want)
	}
}

// TestBusyProgram: a program that is open for writing for a moment is waited for, and one that stays so is not started.
func TestBusyProgram(t *testing.T) {
	t.Parallel()
	for _, stays := range []bool{false, true} {
		path := filepath.Join(t.TempDir(), "script")
		must(t, os.WriteFile(path, []byte("#!/bin/sh\nexit 3\n"), 0o755))
		writer, err := os.OpenFile(path, os.O_WRONLY, 0)
		must(t, err)
		t.Cleanup(func() { _ = writer.Close() })
		want := "text file busy"
		if !stays {
			want = "exit status 3"
			time.AfterFunc(busyTries*busyWait/10, func() { _ = writer.Close() })
		}
		tight := Limits{Memory: 64 << 20, Processes: 4, Files: 16} // too tight for the runtime of the launcher
		p := start(t, Spec{Slot: 2, Limits: tight}, openFile(t, path))
		wait(t, p)
		if !strings.Contains(p.Cause(), want) {
			t.Errorf("open for good: %v; cause %q, want %q", stays, p.Cause(), want)
		}
	}
}

// TestCannotStart: what goes wrong before the provider runs is said, too.
func TestCannotStart(t *testing.T) {
	t.Parallel()
	text := filepath.Join(t.TempDir(), "text")
	must(t, os.WriteFile(text, []byte("not a program"), 0o755))
	p := start(t, Spec{}, openFile(t, text))
	wait(t, p)
	if want := "launch: execute " + text + ": exec format error"; !strings.Contains(p.Cause(), want) {
		t.Errorf("cause %q, want %q", p.Cause(), want)
	}
	for _, slot := range []int{-1, MaxProviders} {
		if _, err := Start(Spec{Slot: slot, StateDir: stateDir(t)}, openFile(t, text)); err == nil {
			t.Errorf("slot %d was accepted", slot)
		}
	}
	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, nil, 0o600))
	if _, err := Start(Spec{StateDir: filepath.Join(file, "state")}, openFile(t, text)); err == nil {
		t.Error("a state folder below a file was accepted")
	} else if !errors.Is(err, syscall.ENOTDIR) {
		t.Error(err)
	}
}

func TestTail(t *testing.T) {
	t.Parallel()
	var l tail
	if l.lastLine() != "" {
		t.Errorf("%q", l.lastLine())
	}
	for i := range 3 * maxLog {
		_, err := l.Write([]byte{byte('a' + i%26)})
		must(t, err)
	}
	if len(l.String()) != maxLog {
		t.Errorf("%d bytes kept, limit %d", len(l.String()), maxLog)
	}
	_, err := l.Write([]byte("\n" + strings.Repeat("x", 2*maxLog) + "\n\x1b[31mred\n\n"))
	must(t, err)
	if got := l.lastLine(); strings.Contains(got, "\x1b") || !strings.HasSuffix(got, "red") {
		t.Errorf("last line %q is not fit for a terminal", got)
	}
	if len(l.String()) != maxLog {
		t.Errorf("%d bytes kept, limit %d", len(l.String()), maxLog)
	}
}
