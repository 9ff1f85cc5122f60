package testenv

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	buildTime    = 5 * time.Minute
	buildPattern = "keepout-build-"
	lockName     = ".lock"
	sweepAge     = 10 * time.Minute // a younger folder may not be locked yet
)

// builder holds this process's folder of built programs.
type builder struct {
	mu    sync.Mutex
	dir   string
	lock  *os.File // held for the life of the process; tells other processes' sweeps that the folder is in use
	built map[string]error
}

// builds is the only state of the package besides the probes' memory: a program is linked once in a process.
var builds builder

// Build compiles packages of this module ("./cmd/keepoutd", "./providers/clamav"), each once in a process, and returns
// a folder with the layout of "make build": commands at its top, and providers/<id>/keepout-<id> (hostile/<id>/… for
// those that misbehave) with provider.yaml beside it, sealed. A build that fails fails the test. The folder is shared
// by the tests of the process, which must not change it; PrivateMounts removes it, or else a later Build does.
func Build(t testing.TB, pkgs ...string) string {
	t.Helper()
	root := ModuleRoot(t)
	builds.mu.Lock()
	defer builds.mu.Unlock()
	if err := builds.open(); err != nil {
		t.Fatalf("make a folder for the build: %v", err)
	}
	for _, pkg := range pkgs {
		if err := builds.one(root, pkg); err != nil {
			t.Fatalf("build %s: %v", pkg, err)
		}
	}
	return builds.dir
}

// ModuleRoot returns the folder of the go.mod that the test's working folder belongs to.
func ModuleRoot(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatalf("find the working folder: %v", err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			t.Fatal("find the module: no go.mod above the working folder")
		}
		dir = parent
	}
}

func (b *builder) open() error {
	if b.dir != "" {
		return nil
	}
	sweep(os.TempDir())
	dir, err := os.MkdirTemp("", buildPattern)
	if err != nil {
		return err
	}
	// A caged provider runs as another user and must reach its program.
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	b.dir, b.built = dir, map[string]error{}
	b.lock, err = lock(filepath.Join(dir, lockName))
	return err
}

func (b *builder) remove() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.dir != "" {
		_ = os.RemoveAll(b.dir)
		_ = b.lock.Close()
		b.dir, b.lock, b.built = "", nil, nil
	}
}

func (b *builder) one(root, pkg string) error {
	if err, done := b.built[pkg]; done {
		return err
	}
	err := b.compile(root, pkg)
	b.built[pkg] = err
	return err
}

func (b *builder) compile(root, pkg string) error {
	id, isProvider := strings.CutPrefix(path.Clean(pkg), "providers/")
	if !isProvider {
		return goBuild(root, filepath.Join(b.dir, path.Base(pkg)), pkg)
	}
	dir := filepath.Join(b.dir, "providers", filepath.FromSlash(id))
	if strings.HasPrefix(id, "hostile/") { // beside the others, so that nobody configures one by mistake
		dir = filepath.Join(b.dir, filepath.FromSlash(id))
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := goBuild(root, filepath.Join(dir, "keepout-"+path.Base(id)), pkg); err != nil {
		return err
	}
	manifest, err := os.ReadFile(filepath.Join(root, "providers", filepath.FromSlash(id), "provider.yaml"))
	if errors.Is(err, os.ErrNotExist) {
		return nil // a provider without a manifest is run by hand, as the hostile ones are
	}
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "provider.yaml"), manifest, 0o644); err != nil {
		return err
	}
	tests, _ := filepath.Glob(filepath.Join(root, "providers", filepath.FromSlash(id), "selftest.*")) // well-formed
	for _, file := range tests {
		object, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(file)), object, 0o644); err != nil {
			return err
		}
	}
	return b.seal(root, dir)
}

// seal writes the executable's digest into the manifest, as "make build" does.
func (b *builder) seal(root, dir string) error {
	if err := b.one(root, "./cmd/keepout"); err != nil {
		return err
	}
	_, err := output(filepath.Join(b.dir, "keepout"), "provider", "seal", dir)
	return err
}

func goBuild(root, target, pkg string) error {
	ctx, cancel := context.WithTimeout(context.Background(), buildTime)
	defer cancel()
	args, cgo := []string{"build", "-trimpath", "-o", target}, "0"
	if path.Clean(pkg) == "providers/yara" {
		args, cgo = append(args, "-tags", "yara"), "1"
	}
	if path.Clean(pkg) == "cmd/keepout-rescue" {
		// It travels in an image of bounded size: nothing is inlined but where the first picture is drawn.
		args = append(args, "-ldflags", "-s -w", "-gcflags", "all=-l", "-gcflags", "image/...=",
			"-gcflags", "golang.org/x/image/...=", "-gcflags", "./internal/crashscreen=", "-tags", "nethttpomithttp2")
	}
	cmd := exec.CommandContext(ctx, "go", append(args, pkg)...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED="+cgo)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%w\n%s", err, out.Bytes())
	}
	return nil
}

// sweep removes the folders of processes that ended without removing them. It is best effort: what it cannot
// remove, a later one may.
func sweep(temp string) {
	locks, _ := filepath.Glob(filepath.Join(temp, buildPattern+"*", lockName))
	for _, name := range locks {
		info, err := os.Stat(name)
		if err != nil || time.Since(info.ModTime()) < sweepAge {
			continue
		}
		held, err := lock(name)
		if err != nil {
			continue
		}
		_ = os.RemoveAll(filepath.Dir(name))
		_ = held.Close()
	}
}
