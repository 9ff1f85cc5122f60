package sandbox

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/elastic/go-seccomp-bpf"
	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/internal/testenv"
)

// eventually waits for a condition that a busy machine may take its time for.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if cond() {
			return
		}
	}
	t.Fatalf("waited in vain until %s", what)
}

// TestForbiddenCalls: what must never be on the list, by name, so that adding one by mistake shows.
func TestForbiddenCalls(t *testing.T) {
	t.Parallel()
	for _, name := range strings.Fields(`
		io_uring_setup io_uring_enter io_uring_register keyctl add_key request_key ptrace bpf perf_event_open
		userfaultfd process_vm_readv process_vm_writev pidfd_getfd kcmp process_madvise
		mount umount2 pivot_root fsopen fsmount fsconfig fspick move_mount open_tree mount_setattr chroot
		unshare setns clone3 clone socket socketpair prctl personality memfd_create memfd_secret mknod mknodat
		open_by_handle_at name_to_handle_at fanotify_init fanotify_mark init_module finit_module delete_module
		kexec_load kexec_file_load reboot swapon swapoff acct quotactl quotactl_fd syslog sethostname setdomainname
		settimeofday clock_settime adjtimex clock_adjtime iopl ioperm modify_ldt lookup_dcookie vhangup seccomp
		move_pages migrate_pages nfsservctl uselib openat2 sched_setattr`) {
		if slices.Contains(allowedCalls, name) {
			t.Errorf("%s is allowed whatever its arguments", name)
		}
	}
	seen := map[string]bool{}
	for _, name := range append(slices.Clone(allowedCalls), absentCalls...) {
		if seen[name] {
			t.Errorf("%s is listed twice", name)
		}
		seen[name] = true
	}
}

// TestNetworkCalls: the families of sockets, with and without the grant.
func TestNetworkCalls(t *testing.T) {
	t.Parallel()
	families := func(network bool) (list []uint64) {
		for _, c := range conditions(network) {
			if c.Name == "socket" && !slices.Contains(list, c.Conditions[0].Value) {
				list = append(list, c.Conditions[0].Value)
			}
		}
		return list
	}
	if got := families(false); !slices.Equal(got, []uint64{unix.AF_UNIX}) {
		t.Errorf("without the network: families %v", got)
	}
	if got := families(true); !slices.Equal(got, []uint64{unix.AF_UNIX, unix.AF_INET, unix.AF_INET6}) {
		t.Errorf("with the network: families %v", got)
	}
	for _, network := range []bool{false, true} {
		policy, err := callPolicy(network)
		must(t, err)
		if _, err := policy.Assemble(); err != nil {
			t.Error(err)
		}
		if policy.DefaultAction != seccomp.ActionErrno {
			t.Errorf("what is not listed gets %v", policy.DefaultAction)
		}
	}
}

// groupFiles finds a file of a slot's group in every hierarchy.
func groupFiles(t *testing.T, g *Groups, slot int, pattern string) []string {
	t.Helper()
	var found []string
	for _, c := range controllers {
		name := "slot-" + strconv.Itoa(slot)
		dir, err := g.splitDir(c)
		if dir = slotDir(c, dir, name); g.unified != "" {
			dir, err = filepath.Join(cgroupRoot, g.unified, g.name, name), nil
		}
		if err == nil {
			files, _ := filepath.Glob(filepath.Join(dir, pattern))
			found = append(found, files...)
		}
	}
	return found
}

// TestGroups: a provider's limits are set where the kernel keeps them, its processor time is throttled, and nothing is
// left in the end.
func TestGroups(t *testing.T) {
	testenv.Need(t, testenv.Root)
	state := stateDir(t)
	g := NewGroups(state)
	t.Cleanup(g.Close)
	for _, c := range controllers {
		if err := g.usable[c]; err != nil {
			t.Logf("no %s here: %v", c, err)
		}
	}
	p := start(t, Spec{
		Slot: 7, StateDir: state, Groups: g, Limits: Limits{Memory: 128 << 20, CPU: 5, Processes: 90},
		Only: AllLayers &^ LayerLimits, // the race detector reserves more memory than it uses
	}, program(t))
	receive(t, p)
	for file, want := range map[string]string{
		"memory.limit_in_bytes": "134217728", "memory.max": "134217728", "pids.max": "90", "cpu.cfs_quota_us": "1000",
		"cpu.max": "1000 20000",
	} {
		for _, path := range groupFiles(t, g, 7, file) {
			b, err := os.ReadFile(path)
			must(t, err)
			if got := strings.TrimSpace(string(b)); got != want {
				t.Errorf("%s is %s, want %s", path, got, want)
			}
		}
	}
	holds := p.Confinement.has(LayerCgroup)
	if some := len(groupFiles(t, g, 7, "cgroup.procs")) > 0; some != holds {
		t.Errorf("it has a group: %v, its confinement says %v", some, holds)
	}
	must(t, p.Control.Send([]byte("spin"), -1))
	if g.usable[cpuController] == nil {
		eventually(t, "it is throttled", func() bool { return throttled(t, g, 7) })
	}
	p.Kill()
	wait(t, p)
	if left := groupFiles(t, g, 7, "cgroup.procs"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func throttled(t *testing.T, g *Groups, slot int) bool {
	t.Helper()
	for _, path := range groupFiles(t, g, slot, "cpu.stat") {
		b, err := os.ReadFile(path)
		must(t, err)
		for line := range strings.Lines(string(b)) {
			var n int
			if _, err := fmt.Sscanf(line, "nr_throttled %d", &n); err == nil && n > 0 {
				return true
			}
		}
	}
	return false
}

// TestLeftovers: what a daemon that was killed left behind is ended and removed by the next.
func TestLeftovers(t *testing.T) {
	testenv.Need(t, testenv.Root)
	state := stateDir(t)
	before := NewGroups(state)
	left, err := before.create(9, Limits{Processes: 10})
	must(t, err)
	if left.empty() {
		t.Logf("no control groups here: %s", left.why)
		return
	}
	sleeper := exec.CommandContext(t.Context(), "/bin/sleep", "1000")
	must(t, sleeper.Start())
	must(t, left.add(sleeper.Process.Pid))
	die(before)
	after := NewGroups(state)
	if err := sleeper.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("what was left ended with %v", err)
	}
	eventually(t, "it can be removed", func() bool {
		after.sweep()
		return len(groupFiles(t, after, 9, "cgroup.procs")) == 0
	})
	after.Close()
}

// TestWeight: groups weigh together what they would weigh beside each other, whether or not they share a folder.
func TestWeight(t *testing.T) {
	testenv.Need(t, testenv.Root)
	g := NewGroups(stateDir(t))
	t.Cleanup(g.Close)
	if g.usable[cpuController] != nil {
		t.Logf("no cpu controller here: %v", g.usable[cpuController])
		return
	}
	weighs := func(groups int) {
		t.Helper()
		path, want, got := filepath.Join(cgroupRoot, g.unified, g.name, "cpu.weight"), groups*unifiedWeight, uint64(0)
		if g.unified != "" {
			got = readNumber(path)
		} else {
			want = groups * splitWeight
			for _, slot := range []int{4, 5} {
				for _, path := range groupFiles(t, g, slot, "cpu.shares") {
					got += readNumber(path)
				}
			}
		}
		if got != uint64(want) {
			t.Errorf("%d groups weigh %d, want %d", groups, got, want)
		}
	}
	one, err := g.create(4, Limits{})
	must(t, err)
	two, err := g.create(5, Limits{})
	must(t, err)
	weighs(2)
	two.remove()
	two.remove() // once more changes nothing
	weighs(1)
	one.remove()
}

// TestDeadAndAlive: a daemon removes the groups of others that are dead, and those only.
func TestDeadAndAlive(t *testing.T) {
	testenv.Need(t, testenv.Root)
	alive, dead := NewGroups(stateDir(t)), NewGroups(stateDir(t))
	for _, g := range []*Groups{alive, dead} {
		made, err := g.create(3, Limits{})
		must(t, err)
		if made.empty() {
			t.Logf("no control groups here: %s", made.why)
			return
		}
	}
	die(dead)
	third := NewGroups(stateDir(t))
	defer third.Close()
	if third.name == alive.name || alive.name == dead.name {
		t.Error("daemons share their groups")
	}
	if len(groupFiles(t, alive, 3, "cgroup.procs")) == 0 {
		t.Error("the group of a daemon that lives was removed")
	}
	if left := groupFiles(t, dead, 3, "cgroup.procs"); len(left) != 0 {
		t.Errorf("left of the dead: %v", left)
	}
	for _, top := range alive.tops(alive.name) {
		empty(top)
	}
	alive.Close()
}

// listenAt makes a socket that everybody may connect to.
func listenAt(t *testing.T, path string) net.Listener {
	t.Helper()
	var config net.ListenConfig
	l, err := config.Listen(t.Context(), "unix", path)
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	must(t, os.Chmod(path, 0o777))
	return l
}

// tells sends an order to the child and returns what came of it.
func tells(t *testing.T, p *Process, order string) string {
	t.Helper()
	must(t, p.Control.Send([]byte(order), -1))
	buf := make([]byte, 1024)
	n, err := p.Control.Recv(buf)
	must(t, err)
	return string(buf[:n])
}

// TestGrantedPaths: the content and what was granted can be read, nothing else can, and only the state folder written.
func TestGrantedPaths(t *testing.T) {
	t.Parallel()
	testenv.Need(t, testenv.Root)
	base, err := os.MkdirTemp("", "keepout-granted-")
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(base) })
	must(t, os.Chmod(base, 0o755))
	for _, dir := range []string{"content", "granted", "sockets", "other"} {
		must(t, os.Mkdir(filepath.Join(base, dir), 0o777))
		must(t, os.Chmod(filepath.Join(base, dir), 0o777))
		must(t, os.WriteFile(filepath.Join(base, dir, "file"), []byte("x"), 0o644))
	}
	state, socket := filepath.Join(base, "state"), filepath.Join(base, "sockets", "s")
	server := listenAt(t, socket)
	listenAt(t, filepath.Join(base, "other", "s"))
	p := start(t, Spec{
		StateDir: state, Content: filepath.Join(base, "content"), Sockets: []string{socket},
		Mounts: []string{"/usr", "/lib", "/lib64", ProcPath, filepath.Join(base, "granted"), "/does/not/exist"},
	}, program(t))
	receive(t, p)
	for _, c := range []struct{ do, path, want string }{
		{"read", filepath.Join(base, "content", "file"), "ok"},
		{"write", filepath.Join(base, "content", "new"), "read-only"},
		{"read", filepath.Join(base, "granted", "file"), "ok"},
		{"write", filepath.Join(base, "granted", "new"), "read-only"},
		{"read", filepath.Join(base, "sockets", "file"), "permission denied"},
		{"read", filepath.Join(base, "other", "file"), "no such file"},
		{"dial", socket, "ok"},
		{"dial", filepath.Join(base, "other", "s"), "no such file"},
		{"write", filepath.Join(state, "new"), "ok"},
		{"write", "/new", "read-only"},
		{"read", "/etc/passwd", "no such file"},
		{"read", "/proc/self/status", "ok"},
		{"read", "/proc/cpuinfo", "no such file"},
		{"read", "/dev/urandom", "ok"},
		{"write", "/dev/null", "ok"},
	} {
		if got := tells(t, p, c.do+" "+c.path); !strings.Contains(got, c.want) {
			t.Errorf("%s %s: %s, want %s", c.do, c.path, got, c.want)
		}
	}
	must(t, server.Close())
	listenAt(t, socket)
	if got := tells(t, p, "dial "+socket); got != "ok" {
		t.Errorf("after the server has made a new socket: %s", got)
	}
}

// TestWithoutUserNamespace: where the host forbids user namespaces, the launcher builds the same cage as root and
// changes its user after that.
func TestWithoutUserNamespace(t *testing.T) {
	t.Parallel()
	testenv.Need(t, testenv.Root)
	file := program(t)
	l, why := plan(Spec{
		Program: file.Name(), Slot: 11, StateDir: stateDir(t), Limits: Limits{Files: 99},
		Mounts: []string{"/usr", "/lib", "/lib64", ProcPath},
	})
	l.Userns = false
	p := &Process{done: make(chan struct{}), Confinement: confinement(l, why)}
	must(t, makeStateDir(l.StateDir, int(l.UID)))
	must(t, p.start(l, file))
	t.Cleanup(func() {
		p.Kill()
		wait(t, p)
		must(t, p.Close())
	})
	r := receive(t, p)
	const id = FirstUID + 11
	if r.UID != id || r.GID != id || len(r.Groups) != 0 || r.PID != 1 {
		t.Errorf("user %d, group %d, groups %v, process %d", r.UID, r.GID, r.Groups, r.PID)
	}
	for _, line := range []string{
		"CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "Seccomp:\t2", "NoNewPrivs:\t1",
	} {
		if !strings.Contains(r.Status, line+"\n") {
			t.Errorf("its status has no line %q", line)
		}
	}
	if ours, err := os.Readlink("/proc/self/ns/user"); err != nil || r.UserNS != ours {
		t.Errorf("it is in user namespace %s, we in %s (%v)", r.UserNS, ours, err)
	}
	if got := tells(t, p, "read /etc/hostname"); got == "ok" {
		t.Error("it sees the host's files")
	}
}

func TestSocketMount(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]string{
		"/run/clamav/clamd.ctl": "/run/clamav", "/run/x.sock": "/run/x.sock", "/tmp/x": "/tmp/x",
		"/run/a/../b/s": "/run/b",
	} {
		if got := socketMount(path); got != want {
			t.Errorf("socketMount(%s) = %s, want %s", path, got, want)
		}
	}
}

func TestMissing(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		spec Spec
		want string
	}{
		"no groups":    {Spec{}, "cgroup: left out"},
		"network":      {Spec{Network: true}, "cgroup: left out"},
		"only seccomp": {Spec{Only: LayerSeccomp}, "user: left out"},
	} {
		l, why := plan(c.spec)
		confined := confinement(l, why)
		if lines := confined.Missing(); !slices.Contains(lines, c.want) && os.Getuid() == 0 {
			t.Errorf("%s: missing %q, want %s", name, lines, c.want)
		}
		if !confined.Reduced {
			t.Errorf("%s: not reduced", name)
		}
		if weak := c.spec.Only != 0 || os.Getuid() != 0; confined.Weak() != weak {
			t.Errorf("%s: weak is %v", name, !weak)
		}
	}
}

// TestStateSize counts what is there and what only a process still holds.
func TestStateSize(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "a"), make([]byte, 1<<20), 0o600))
	hidden, err := os.Create(filepath.Join(dir, "b"))
	must(t, err)
	t.Cleanup(func() { _ = hidden.Close() })
	_, err = hidden.Write(make([]byte, 1<<20))
	must(t, err)
	must(t, os.Remove(hidden.Name()))
	used, entries := stateSize(dir, os.Getpid(), 1<<30)
	if used < 2<<20 || used > 3<<20 || entries != 2 {
		t.Errorf("%d bytes in %d entries, want 2 MiB in 2", used, entries)
	}
	if used, _ := stateSize(filepath.Join(dir, "none"), os.Getpid(), 1); used != 0 {
		t.Errorf("a folder that is not there has %d bytes", used)
	}
}
