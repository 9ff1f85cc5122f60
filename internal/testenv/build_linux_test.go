package testenv

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// module writes a module with one command and one provider, and moves the test into it.
func module(t *testing.T, mainGo string) {
	t.Helper()
	root := t.TempDir()
	for name, text := range map[string]string{
		"go.mod":                   "module example.com/m\n\ngo 1.26\n",
		"cmd/hello/main.go":        mainGo,
		"providers/hostile/x/m.go": mainGo,
	} {
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(filepath.Join(root, "cmd", "hello"))
}

const helloGo = "package main\n\nfunc main() { println(\"hello\") }\n"

func TestBuildOnceInAProcess(t *testing.T) {
	module(t, helloGo)
	t.Cleanup(builds.remove)
	dir := Build(t, "./cmd/hello", "./providers/hostile/x")
	for _, name := range []string{"hello", "hostile/x/keepout-x"} {
		out, err := exec.CommandContext(t.Context(), filepath.Join(dir, name)).CombinedOutput()
		if err != nil || string(out) != "hello\n" {
			t.Errorf("%s: %q, %v", name, out, err)
		}
	}
	if err := os.Remove(filepath.Join(dir, "hello")); err != nil {
		t.Fatal(err)
	}
	if again := Build(t, "./cmd/hello"); again != dir {
		t.Errorf("second folder %s, first %s", again, dir)
	}
	if _, err := os.Stat(filepath.Join(dir, "hello")); err == nil {
		t.Error("the second request linked the program again")
	}
	builds.remove()
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the folder is still there: %v", err)
	}
}

func TestBuildThatFailsFailsTheTest(t *testing.T) {
	module(t, "package main\n\nfunc main() { undefined() }\n")
	t.Cleanup(builds.remove)
	for range 2 { // the second answer is remembered, not forgiven
		r := record(func(tb testing.TB) { Build(tb, "./cmd/hello") })
		if r.outcome != "fatal" || !strings.Contains(r.message, "undefined") {
			t.Errorf("got %q %q, want the compiler's words", r.outcome, r.message)
		}
	}
}

func TestSweepLeavesWhatIsInUse(t *testing.T) {
	t.Parallel()
	temp := t.TempDir()
	old := time.Now().Add(-2 * sweepAge)
	folder := func(name string, modified time.Time) string {
		dir := filepath.Join(temp, buildPattern+name)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, lockName)
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(file, modified, modified); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	young, used, dead := folder("young", time.Now()), folder("used", old), folder("dead", old)
	held, err := lock(filepath.Join(used, lockName))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = held.Close() }()
	sweep(temp)
	for dir, want := range map[string]bool{young: true, used: true, dead: false} {
		if _, err := os.Stat(dir); (err == nil) != want {
			t.Errorf("%s is there: %v, want %v", filepath.Base(dir), err == nil, want)
		}
	}
}

func TestBuildSealsAProvider(t *testing.T) {
	t.Cleanup(builds.remove)
	dir := filepath.Join(Build(t, "./providers/hashlist"), "providers", "hashlist")
	program, err := os.ReadFile(filepath.Join(dir, "keepout-hashlist"))
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := os.ReadFile(filepath.Join(dir, "provider.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if digest := fmt.Sprintf("%x", sha256.Sum256(program)); !strings.Contains(string(manifest), digest) {
		t.Errorf("the manifest does not hold the program's digest %s:\n%s", digest, manifest)
	}
}
