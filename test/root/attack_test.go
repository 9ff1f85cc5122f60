package root

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/internal/sandbox"
	"github.com/keepout-security/keepout/internal/testenv"
)

var update = flag.Bool("update", false, "write the table in docs/threat-model.md")

// attack is one line of the table.
type attack struct {
	name  string
	title string
}

// theAttacks are those of test/providers/attacker, in the order of the table.
var theAttacks = []attack{
	{"read-shadow", "read `/etc/shadow`"},
	{"read-secret", "read a file of root by its path"},
	{"open-by-handle", "read it by its handle, past all paths"},
	{"proc-root", "read it through `/proc/PID/root`"},
	{"write-outside", "write outside the state folder"},
	{"reopen-descriptor", "open a passed read-only descriptor for writing"},
	{"core-pattern", "open `/proc/sys/kernel/core_pattern` for writing"},
	{"kernel-log", "read the kernel's log"},
	{"make-device", "make a device"},
	{"read-memory", "read another process's memory by `/proc/PID/mem`"},
	{"vm-readv", "the same by `process_vm_readv`"},
	{"ptrace", "trace another process"},
	{"signal", "signal another process"},
	{"steal-descriptor", "take another process's descriptor (`pidfd_getfd`)"},
	{"shared-memory", "attach shared memory of others (System V)"},
	{"outlive-core", "outlive the core"},
	{"dial-tcp", "connect by TCP"},
	{"send-udp", "send by UDP"},
	{"abstract-socket", "connect to an abstract socket"},
	{"path-socket", "connect to a socket in a folder"},
	{"netlink", "open a netlink socket"},
	{"raw-socket", "open a raw socket"},
	{"packet-socket", "open a packet socket"},
	{"io-uring", "`io_uring_setup`"},
	{"keyctl", "`keyctl`"},
	{"add-key", "`add_key`"},
	{"bpf", "`bpf`"},
	{"perf-event", "`perf_event_open`"},
	{"userfaultfd", "`userfaultfd`"},
	{"unshare", "make a mount namespace"},
	{"new-user-namespace", "become root in a user namespace"},
	{"setns", "enter a namespace of the host"},
	{"mount", "mount"},
	{"chroot", "`chroot`"},
	{"memfd-exec", "execute from memory"},
	{"state-exec", "execute what it wrote"},
	{"fork-bomb", "200 processes, limit 40"},
	{"memory", "128 MiB of memory, limit 64 MiB"},
	{"mapped-memory", "the same, shared"},
	{"descriptors", "1,000 descriptors, limit 100"},
	{"fill-disk", "24 MiB on disk in many files, limit 4 MiB"},
	{"big-file", "the same in one file"},
	{"hidden-file", "the same in files without a name"},
}

// fillers are the attacks that the core notices by the room that is left.
var fillers = []string{"fill-disk", "big-file", "hidden-file"}

// column is one way to start the attacker.
type column struct {
	name string
	only sandbox.Layers
}

// theColumns are: without a cage, each layer alone, and the cage.
var theColumns = []column{
	{"none", sandbox.NoLayers},
	{"user", sandbox.LayerUser},
	{"mount", sandbox.LayerMount},
	{"pid", sandbox.LayerPID},
	{"net", sandbox.LayerNet},
	{"ipc", sandbox.LayerIPC},
	{"caps", sandbox.LayerCaps},
	{"Landlock", sandbox.LayerLandlock},
	{"seccomp", sandbox.LayerSeccomp},
	{"rlimits", sandbox.LayerLimits},
	{"cgroup", sandbox.LayerCgroup},
	{"**all**", sandbox.AllLayers},
}

// TestAttacks runs every attack without the cage, where it must succeed, in the cage, where it must not, and with each
// layer alone. docs/threat-model.md must not claim more than what happens.
func TestAttacks(t *testing.T) {
	need(t)
	g := newRange(t)
	results := make([][]bool, len(theAttacks)) // [attack][column]: it was stopped
	t.Run("attack", func(t *testing.T) {
		for i, a := range theAttacks {
			results[i] = make([]bool, len(theColumns))
			t.Run(a.name, func(t *testing.T) {
				t.Parallel()
				g.each(func(c int) { results[i][c] = g.stopped(t, a.name, theColumns[c]) })
				if results[i][0] {
					t.Error("it does not succeed without a cage, so that it shows nothing")
				}
				if !results[i][len(theColumns)-1] {
					t.Error("IT SUCCEEDS IN THE CAGE")
				}
			})
		}
	})
	if !t.Failed() {
		compare(t, results)
	}
}

// target is what the attackers attack.
type target struct {
	dir     string
	program *os.File
	groups  *sandbox.Groups
	slots   chan int
	disks   []string // by slot: a file system for who fills one
	orders  map[string]any
	shared  string // a file that everybody may write to
}

// newRange makes what is attacked: files on a file system of its own, sockets, shared memory.
func newRange(t *testing.T) *target {
	t.Helper()
	bin := testenv.Build(t, "./test/providers/attacker")
	program, err := os.Open(filepath.Join(bin, "attacker"))
	must(t, err)
	t.Cleanup(func() { _ = program.Close() })
	g := &target{dir: testenv.Tmpfs(t, "512m"), program: program, slots: make(chan int, 6)}
	g.groups = sandbox.NewGroups(g.dir)
	t.Cleanup(g.groups.Close)
	for slot := range cap(g.slots) {
		g.slots <- slot
		// What is removed from a file system hides what is written to it at the same time, for up to a minute.
		g.disks = append(g.disks, testenv.Tmpfs(t, "64m"))
	}
	scratch := filepath.Join(g.dir, "scratch")
	must(t, os.Mkdir(scratch, 0o777))
	must(t, os.Chmod(scratch, 0o777))
	secret := write(t, filepath.Join(g.dir, "secret"), "secret", 0o600)
	handle, _, err := unix.NameToHandleAt(unix.AT_FDCWD, secret, 0)
	must(t, err)
	g.shared = write(t, filepath.Join(g.dir, "shared"), "content", 0o666)

	const key = 0x4b454550
	id, err := unix.SysvShmGet(key, 4096, unix.IPC_CREAT|0o666)
	must(t, err)
	t.Cleanup(func() { _, _ = unix.SysvShmCtl(id, unix.IPC_RMID, nil) })
	abstract := fmt.Sprint("keepout-attack-", os.Getpid())
	socket := filepath.Join(g.dir, "socket")
	port := accepting(t, "tcp4", "127.0.0.1:0").Addr().(*net.TCPAddr).Port
	accepting(t, "unix", "@"+abstract)
	accepting(t, "unix", socket)
	must(t, os.Chmod(socket, 0o777))
	g.orders = map[string]any{
		"Secret": secret, "Handle": handle.Bytes(), "Kind": handle.Type(), "Scratch": scratch, "Port": port,
		"Abstract": abstract, "Socket": socket, "Key": key,
	}
	return g
}

// accepting accepts connections until the test ends.
func accepting(t *testing.T, network, address string) net.Listener {
	t.Helper()
	var config net.ListenConfig
	l, err := config.Listen(t.Context(), network, address)
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.Close()
		}
	}()
	return l
}

// each runs do for every column, as many at a time as there are slots.
func (g *target) each(do func(column int)) {
	var running sync.WaitGroup
	for c := range theColumns {
		running.Go(func() { do(c) })
	}
	running.Wait()
}

// stopped runs one attack with some layers and reports whether it was stopped.
func (g *target) stopped(t *testing.T, name string, c column) bool {
	t.Helper()
	slot := <-g.slots
	defer func() { g.slots <- slot }()
	disk := g.dir
	if slices.Contains(fillers, name) {
		disk = g.disks[slot]
	}
	state, err := os.MkdirTemp(disk, "state-")
	if err != nil {
		t.Error(err)
		return false
	}
	defer func() { _ = os.RemoveAll(state) }()
	victim := exec.CommandContext(t.Context(), "/bin/sleep", "1000")
	if err := victim.Start(); err != nil {
		t.Error(err)
		return false
	}
	defer func() { _ = victim.Process.Kill(); _ = victim.Wait() }()

	p, err := sandbox.Start(sandbox.Spec{
		Program: "attacker", Slot: slot, StateDir: state, Mounts: []string{sandbox.ProcPath}, Only: c.only,
		Groups: g.groups,
		Limits: sandbox.Limits{Memory: 64 << 20, Processes: 40, Files: 100, State: 4 << 20},
	}, g.program)
	if err != nil {
		t.Errorf("%s: %v", c.name, err)
		return false
	}
	defer func() {
		p.Kill()
		<-p.Done()
		_ = p.Close()
	}()
	hold := time.Duration(0) // where nobody looks, nothing is noticed
	if c.only&sandbox.LayerLimits != 0 {
		hold = patience * 3 / 4 // the free space is looked at every few seconds
	}
	said, err := g.command(p, map[string]any{
		"Attack": name, "Victim": victim.Process.Pid, "State": state, "Hold": hold.Milliseconds(),
	})
	if err != nil {
		t.Errorf("%s: %v; %s", c.name, err, p.Log())
	}
	if c.only == sandbox.AllLayers || c.only == sandbox.NoLayers {
		t.Logf("%s: %s", c.name, said)
	}
	return said != succeeded
}

const succeeded = "succeeded"

// command sends the orders and returns what came of them.
func (g *target) command(p *sandbox.Process, orders map[string]any) (string, error) {
	maps.Copy(orders, g.orders)
	packet, err := json.Marshal(orders)
	if err != nil {
		return "", err
	}
	file, err := os.Open(g.shared)
	if err != nil {
		return "", err
	}
	defer func() { _ = file.Close() }()
	if err := p.Auth.Send(packet, int(file.Fd())); err != nil {
		return "", fmt.Errorf("send orders: %w", err)
	}
	watch := time.AfterFunc(patience, p.Kill)
	defer watch.Stop()
	buf := make([]byte, 4096)
	n, err := p.Auth.Recv(buf)
	if errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) {
		<-p.Done()
		if !strings.Contains(p.Cause(), "killed") && !strings.Contains(p.Cause(), "limit") {
			return "", fmt.Errorf("it ended by itself: %s", p.Cause())
		}
		return p.Cause(), nil
	}
	if err != nil {
		return "", err
	}
	var report struct {
		OK   bool
		Said string
	}
	if err := json.Unmarshal(buf[:n], &report); err != nil {
		return "", err
	}
	if report.OK {
		return succeeded, nil
	}
	return report.Said, nil
}

const (
	tableStart = "<!-- attacks: written by go test ./test/root -run TestAttacks -update -->\n"
	tableEnd   = "<!-- end of attacks -->\n"
)

// compare holds the table in the document against the results. A layer of another kernel may stop more, never less.
func compare(t *testing.T, results [][]bool) {
	t.Helper()
	path := filepath.Join(testenv.ModuleRoot(t), "docs", "threat-model.md")
	text, err := os.ReadFile(path)
	must(t, err)
	before, rest, found := strings.Cut(string(text), tableStart)
	old, after, closed := strings.Cut(rest, tableEnd)
	if !found || !closed {
		t.Fatal("docs/threat-model.md has no table of attacks")
	}
	now := table(results)
	if *update {
		must(t, os.WriteFile(path, []byte(before+tableStart+now+tableEnd+after), 0o644))
		return
	}
	oldLines, newLines := strings.Split(old, "\n"), strings.Split(now, "\n")
	if len(oldLines) != len(newLines) {
		t.Fatalf("the document has %d lines of attacks, there are %d: run it with -update", len(oldLines), len(newLines))
	}
	for i := range oldLines {
		said, is := strings.Split(oldLines[i], "|"), strings.Split(newLines[i], "|")
		if len(said) != len(is) || len(said) > 1 && said[1] != is[1] {
			t.Fatalf("line %q of the document, want %q: run it with -update", oldLines[i], newLines[i])
		}
		for c := range said {
			if strings.TrimSpace(said[c]) == stops && strings.TrimSpace(is[c]) != stops {
				t.Errorf("the document claims more than is true: %s\nwhat happened: %s", oldLines[i], newLines[i])
			}
		}
	}
}

// stops marks a cell.
const stops = "●"

func table(results [][]bool) string {
	var b strings.Builder
	b.WriteString("| attack |")
	for _, c := range theColumns {
		b.WriteString(" " + c.name + " |")
	}
	b.WriteString("\n|---|" + strings.Repeat(":-:|", len(theColumns)) + "\n")
	for i, a := range theAttacks {
		b.WriteString("| " + a.title + " |")
		for _, stopped := range results[i] {
			if stopped {
				b.WriteString(" " + stops + " |")
			} else {
				b.WriteString("   |")
			}
		}
		b.WriteString("\n")
	}
	return b.String()
}

// TestEveryAttackHasALine: an attack that nobody runs shows nothing.
func TestEveryAttackHasALine(t *testing.T) {
	source, err := os.ReadFile(filepath.Join(testenv.ModuleRoot(t), "test", "providers", "attacker", "main.go"))
	must(t, err)
	_, list, _ := strings.Cut(string(source), "var attacks = ")
	names := strings.Split(list, `"`)
	for i := 1; i < len(names); i += 2 {
		if !slices.ContainsFunc(theAttacks, func(a attack) bool { return a.name == names[i] }) {
			t.Errorf("attack %q is not in the table", names[i])
		}
	}
	if len(names)/2 != len(theAttacks) {
		t.Errorf("%d attacks, %d lines", len(names)/2, len(theAttacks))
	}
}
