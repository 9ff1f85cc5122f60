package testvm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// fetchTime bounds the download and the unpacking of one package, and of the packages of a whole system.
const fetchTime = 10 * time.Minute

// kernelPackage is the name of a kernel with its version, as opposed to the package that depends on the newest one.
var kernelPackage = regexp.MustCompile(`(?m)^\s*Depends:\s+(linux-image-\d\S+)$`)

// Kernel is a distribution's kernel as its package has it.
type Kernel struct {
	Release string // "6.1.0-56-cloud-amd64"
	Image   string // the signed kernel, a file
	Modules string // the folder lib/modules/<release>
}

// Cloud and Generic are the packages that depend on Debian's newest kernels.
const (
	Cloud   = "linux-image-cloud-amd64" // ext4 and NVMe built in, LZ4: starts fastest
	Generic = "linux-image-amd64"
)

// DebianKernel fetches the kernel that a package depends on. What was fetched before serves when there is no network.
func DebianKernel(t testing.TB, meta string) Kernel {
	t.Helper()
	return kernelIn(t, Package(t, newest(t, meta)))
}

// Package fetches a Debian package once and returns the folder that it was unpacked into, which must not be changed.
func Package(t testing.TB, name string) string {
	t.Helper()
	folder, err := Fetch(name)
	if err != nil {
		t.Fatalf("fetch the package %s: %v", name, err)
	}
	return folder
}

func newest(t testing.TB, meta string) string {
	t.Helper()
	out, err := command(t.Context(), "", "apt-cache", "depends", meta)
	if m := kernelPackage.FindStringSubmatch(out); err == nil && m != nil {
		return m[1]
	}
	t.Fatalf("ask for the newest %s: %v\n%s", meta, err, out)
	return ""
}

func kernelIn(t testing.TB, folder string) Kernel {
	t.Helper()
	images, _ := filepath.Glob(filepath.Join(folder, "boot", "vmlinuz-*")) // the pattern is well-formed
	if len(images) != 1 {
		t.Fatalf("%s holds %d kernels", folder, len(images))
	}
	release := strings.TrimPrefix(filepath.Base(images[0]), "vmlinuz-")
	return Kernel{Release: release, Image: images[0], Modules: filepath.Join(folder, "lib", "modules", release)}
}

// fetching lets one goroutine of the process at a time fetch; the file lock does the same for processes.
var fetching sync.Mutex

// Fetch is Package for who can do without.
func Fetch(name string) (string, error) {
	return cached(name, func(ctx context.Context, work string) (string, error) { return unpack(ctx, work, name) })
}

// cached returns what lies in the cache under a name. Where it is not there, fetch makes it in a folder of its own and
// says where in it; it is renamed when all is there, so that an interrupted run leaves no half.
func cached(name string, fetch func(ctx context.Context, work string) (string, error)) (string, error) {
	fetching.Lock()
	defer fetching.Unlock()
	cache, err := Cache()
	if err != nil {
		return "", err
	}
	lock, err := os.OpenFile(filepath.Join(cache, ".lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return "", fmt.Errorf("lock the cache: %w", err)
	}
	target := filepath.Join(cache, name)
	if _, err := os.Stat(target); err == nil {
		return target, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), fetchTime)
	defer cancel()
	work, err := os.MkdirTemp(cache, ".fetch-")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(work) }()
	made, err := fetch(ctx, work)
	if err != nil {
		return "", err
	}
	return target, os.Rename(made, target)
}

// Cache returns the folder for what tests fetch, and makes it.
func Cache() (string, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(base, "keepout-vm")
	return dir, os.MkdirAll(dir, 0o755)
}

// unpack downloads a package and unpacks it.
func unpack(ctx context.Context, work, name string) (string, error) {
	if out, err := command(ctx, work, "apt-get", "download", "-q", name); err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	debs, _ := filepath.Glob(filepath.Join(work, "*.deb")) // the pattern is well-formed
	if len(debs) != 1 {
		return "", errors.New("apt-get download left no single package")
	}
	tree := filepath.Join(work, "tree")
	if out, err := command(ctx, work, "dpkg-deb", "-x", debs[0], tree); err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return tree, nil
}

func command(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s: %w", name, err)
	}
	return string(out), err
}
