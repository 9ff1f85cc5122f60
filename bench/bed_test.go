package bench

import (
	"archive/tar"
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/keepout-security/keepout/internal/testenv"
)

// errEnough ends a walk.
var errEnough = errors.New("enough")

// makeBed makes everything that the arenas are filled with, once, on a tmpfs.
func makeBed(b *testing.B, s scale) *bed {
	b.Helper()
	bed := &bed{s: s, base: testenv.Tmpfs(b, "75%")}
	bed.goroot = strings.TrimSpace(command(b, "go", "env", "GOROOT"))
	bed.bin = testenv.Build(b, "./bench/load", "./bench/responder")
	bed.template = filepath.Join(bed.base, "template")
	in := func(name string) string { return filepath.Join(bed.template, name) }
	must(b, os.MkdirAll(in("tmp"), 0o777))
	command(b, bed.load(), "make", in("files"), strconv.Itoa(s.files))
	command(b, bed.load(), "copies", in("programs"), strconv.Itoa(s.programs), "/bin/true")
	tree := filepath.Join(bed.base, "tree")
	sourceTree(b, bed.goroot, tree, s.tree)
	bed.tar = filepath.Join(bed.base, "tree.tar")
	archive(b, bed.tar, tree)
	bed.deb = filepath.Join(bed.base, "tree.deb")
	debianPackage(b, bed.base, tree, bed.deb)
	repository(b, in("repository"), bed.goroot, s.repository)
	module(b, in("module"), s.packages)
	a := arena{dir: bed.template}
	fill := exec.Command(bed.load(), bed.build(a.dir)...) // the cache, with the standard library; nobody watches yet
	fill.Env = append(os.Environ(), a.environment()...)
	if out, err := fill.CombinedOutput(); err != nil {
		b.Fatalf("build the module: %v\n%s", err, out)
	}
	must(b, os.RemoveAll(tree))
	bed.sigs = signatures(b)
	writeSignatures(b, bed.sigs, s)
	return bed
}

// build is the measured build of the module.
func (bed *bed) build(dir string) []string {
	return []string{
		"run", "--", filepath.Join(bed.goroot, "bin", "go"), "-C", filepath.Join(dir, "module"), "build", "-o",
		filepath.Join(dir, "program"), ".",
	}
}

// sourceTree copies the first n Go files of the Go installation's own source.
func sourceTree(b *testing.B, goroot, to string, n int) {
	b.Helper()
	from := filepath.Join(goroot, "src")
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && d.Name() == "testdata":
			return filepath.SkipDir
		case !d.Type().IsRegular() || filepath.Ext(path) != ".go":
			return nil
		case n == 0:
			return errEnough
		}
		n--
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return err
		}
		return os.WriteFile(target, text, 0o644)
	})
	if err != nil && !errors.Is(err, errEnough) {
		b.Fatal(err)
	}
}

func archive(b *testing.B, to, dir string) {
	b.Helper()
	f, err := os.Create(to)
	must(b, err)
	w := tar.NewWriter(f)
	must(b, w.AddFS(os.DirFS(dir)))
	must(b, w.Close())
	must(b, f.Close())
}

func debianPackage(b *testing.B, base, tree, to string) {
	b.Helper()
	root := filepath.Join(base, "package")
	must(b, os.MkdirAll(filepath.Join(root, "DEBIAN"), 0o755))
	control := "Package: tree\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@localhost>\nDescription: files\n"
	must(b, os.WriteFile(filepath.Join(root, "DEBIAN", "control"), []byte(control), 0o644))
	command(b, "cp", "-a", tree, filepath.Join(root, "tree"))
	command(b, "dpkg-deb", "--root-owner-group", "-Znone", "-b", root, to)
	must(b, os.RemoveAll(root))
}

// repository makes one with two branches, which differ in every file.
func repository(b *testing.B, dir, goroot string, n int) {
	b.Helper()
	sourceTree(b, goroot, dir, n)
	git := func(args ...string) {
		args = append([]string{"-C", dir, "-c", "user.name=x", "-c", "user.email=x@localhost"}, args...)
		cmd := exec.Command("git", args...)
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null")
		if out, err := cmd.CombinedOutput(); err != nil {
			b.Fatalf("git %q: %v\n%s", args, err, out)
		}
	}
	git("init", "-q", "-b", "one")
	git("add", ".")
	git("commit", "-q", "-m", "one")
	git("checkout", "-q", "-b", "other")
	must(b, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") {
			return err
		}
		f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = f.WriteString("// other\n")
		return errors.Join(err, f.Close())
	}))
	git("commit", "-q", "-a", "-m", "other")
	git("checkout", "-q", "one")
}

// functions is how many a generated package has.
const functions = 60

// module makes a Go module whose packages all depend on one constant: another value rebuilds them all.
func module(b *testing.B, dir string, packages int) {
	b.Helper()
	put := func(name, text string) {
		path := filepath.Join(dir, name)
		must(b, os.MkdirAll(filepath.Dir(path), 0o755))
		must(b, os.WriteFile(path, []byte(text), 0o644))
	}
	put("go.mod", "module example.test/tree\n\ngo 1.24\n")
	var imports, calls strings.Builder
	for i := range packages {
		var p strings.Builder
		fmt.Fprintf(&p, "package p%d\n\nimport (\n\t\"strings\"\n\n\t\"example.test/tree/round\"\n)\n", i)
		for j := range functions {
			fmt.Fprintf(&p, "\nfunc F%d(s string) int {\n\tn := round.Number\n\tfor _, w := range strings.Fields(s) {\n"+
				"\t\tswitch {\n\t\tcase strings.HasPrefix(w, \"%d\"):\n\t\t\tn += len(w)\n\t\tdefault:\n\t\t\tn ^= %d\n"+
				"\t\t}\n\t}\n\treturn n\n}\n", j, j, i*j)
		}
		put(fmt.Sprintf("p%d/p.go", i), p.String())
		fmt.Fprintf(&imports, "\t\"example.test/tree/p%d\"\n", i)
		fmt.Fprintf(&calls, "\tn += p%d.F0(\"a b\")\n", i)
	}
	const program = "package main\n\nimport (\n\t\"os\"\n\n%s)\n\nfunc main() {\n\tn := 0\n%s\tos.Exit(n & 1)\n}\n"
	put("main.go", fmt.Sprintf(program, imports.String(), calls.String()))
	setRound(b, dir, 0)
}

// setRound makes the module another one.
func setRound(b *testing.B, module string, round int) {
	b.Helper()
	dir := filepath.Join(module, "round")
	must(b, os.MkdirAll(dir, 0o755))
	text := fmt.Sprintf("package round\n\n// Number is another one in each round.\nconst Number = %d\n", round)
	must(b, os.WriteFile(filepath.Join(dir, "round.go"), []byte(text), 0o644))
}

// writeSignatures makes a database for clamd out of chance, beside the one signature that is there already.
func writeSignatures(b *testing.B, dir string, s scale) {
	b.Helper()
	r := rand.New(rand.NewPCG(1, 2))
	put := func(name string, n int, line func(i int) string) {
		f, err := os.Create(filepath.Join(dir, name))
		must(b, err)
		w := bufio.NewWriter(f)
		for i := range n {
			fmt.Fprintln(w, line(i))
		}
		must(b, w.Flush())
		must(b, errors.Join(f.Chmod(0o644), f.Close()))
	}
	random := func(n int) string {
		raw := make([]byte, n)
		for i := range raw {
			raw[i] = byte(r.Uint32())
		}
		return hex.EncodeToString(raw)
	}
	put("hashes.hdb", s.hashes, func(i int) string {
		return fmt.Sprintf("%s:%d:Hash-%d", random(16), 100+r.IntN(1<<20), i)
	})
	put("bodies.ndb", s.bodies, func(i int) string { return fmt.Sprintf("Body-%d:0:*:%s", i, random(24)) })
}
