package bench

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keepout-security/keepout/internal/testenv"
)

// comparisonLife is what the watchdogs give the whole comparison. Each measurement has a limit of its own.
const comparisonLife = 60 * time.Minute

// arena is a file system of its own with one variant that watches it, or none.
type arena struct {
	name   string
	dir    string   // where it is mounted
	prefix []string // what makes a command see the mount, where that is not in this namespace
	heavy  bool     // takes part only in the first and the last round
	slow   bool     // has engines of 1 ms, and is there for nothing else
	thread bool     // its throughput is measured

	image string
	start func(b *testing.B, a *arena)
	free  func()        // ends what could hold anybody up; set before anything is measured
	watch func() string // what falsified the numbers, or ""
	lost  bool          // it hung and was freed
}

// bed is what all arenas are made from.
type bed struct {
	s        scale
	base     string // on a tmpfs
	template string // what an arena holds in the beginning
	bin      string // load, responder
	tar      string // the source tree
	deb      string // the package
	goroot   string
	sigs     string // signatures
}

// mkfs gives an arena its image. ext3, because one of the peers watches file systems by type: so it finds this one
// and, in a mount namespace of its own, no other.
func (a *arena) mkfs(b *testing.B, bed *bed) {
	b.Helper()
	a.image = filepath.Join(bed.base, strconv.Itoa(len(a.name))+strings.Map(letters, a.name)+".ext3")
	f, err := os.Create(a.image)
	must(b, err)
	must(b, f.Truncate(int64(bed.s.image)<<20))
	must(b, f.Close())
	command(b, "mkfs.ext3", "-q", "-F", "-I", "256", "-N", strconv.Itoa(4*bed.s.files+20_000), a.image)
	a.dir = folder(b)
}

func letters(r rune) rune {
	if r >= 'a' && r <= 'z' {
		return r
	}
	return -1
}

// mount mounts the image and fills it.
func (a *arena) mount(b *testing.B, bed *bed) {
	b.Helper()
	if !testenv.InPrivateMounts() {
		b.Fatal("mount an arena: not in a private mount namespace")
	}
	a.command(b, "mount", "-t", "ext3", "-o", "loop,noatime", a.image, a.dir)
	if a.prefix == nil { // else the mount ends with its namespace
		dir := a.dir
		b.Cleanup(func() { command(b, "umount", "-l", dir) })
	}
	if a.slow {
		a.command(b, bed.load(), "make", filepath.Join(a.dir, "files"), strconv.Itoa(bed.s.slow))
		return
	}
	a.command(b, "cp", "-a", bed.template+"/.", a.dir)
	a.command(b, "sync", "-f", a.dir)
}

func (bed *bed) load() string { return filepath.Join(bed.bin, "load") }

// command runs a command where the arena is mounted.
func (a *arena) command(b *testing.B, args ...string) string {
	b.Helper()
	return command(b, append(append([]string{}, a.prefix...), args...)...)
}

// command runs a command and returns what it prints.
func command(b testing.TB, args ...string) string {
	b.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		b.Fatalf("%q: %v\n%s%s", args, err, out.String(), errs.String())
	}
	return out.String()
}

// took is what the load program prints.
type took struct {
	Ops      int
	NS       int64
	P50, P99 int64
}

var errHung = errors.New("it hung, and was freed")

// measure runs the load program in the arena. Where that does not end in time, whoever holds it up is ended, and the
// arena is lost.
func (a *arena) measure(bed *bed, args ...string) (took, error) {
	argv := append(append(append([]string{}, a.prefix...), bed.load()), args...)
	cmd := exec.Command(argv[0], argv[1:]...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.Env = append(os.Environ(), a.environment()...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return took{}, fmt.Errorf("start load: %w", err)
	}
	watchdog := time.AfterFunc(bed.s.limit, func() {
		a.free()
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // the group that it leads
	})
	err := cmd.Wait()
	if !watchdog.Stop() {
		a.lost = true
		return took{}, errHung
	}
	if err != nil {
		tail := errs.String()
		return took{}, fmt.Errorf("load %q: %w: %s", args, err, tail[max(0, len(tail)-600):])
	}
	var t took
	if err := json.Unmarshal(out.Bytes(), &t); err != nil {
		return took{}, fmt.Errorf("read what load says: %w", err)
	}
	return t, nil
}

// environment makes git and go use nothing outside the arena but the Go installation.
func (a *arena) environment() []string {
	return []string{
		"GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null", "HOME=" + a.dir,
		"GOCACHE=" + filepath.Join(a.dir, "cache"),
		"GOPROXY=off", "GOFLAGS=-mod=mod", "GOTOOLCHAIN=local", "GOTELEMETRY=off", "GOWORK=off", "CGO_ENABLED=0",
		"TMPDIR=" + filepath.Join(a.dir, "tmp"),
	}
}

// room gives an arena a mount namespace that holds no other arena. It lasts as long as the process that keeps it.
func (a *arena) room(b *testing.B) {
	b.Helper()
	keeper, _ := process(b, comparisonLife, "unshare", "--mount", "--propagation", "private", "sleep", "infinity")
	own, err := os.Readlink("/proc/self/ns/mnt")
	must(b, err)
	path := fmt.Sprintf("/proc/%d/ns/mnt", keeper)
	await(b, "the room is there", func() bool {
		theirs, err := os.Readlink(path)
		exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", keeper))
		return err == nil && theirs != own && strings.HasSuffix(exe, "sleep")
	})
	a.prefix = []string{"nsenter", "--mount=" + path, "--"}
}

// failing runs a command and returns what it prints when it fails, or "" when it does not.
func failing(b testing.TB, args ...string) string {
	b.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err == nil {
		return ""
	}
	return err.Error() + ": " + string(out)
}
