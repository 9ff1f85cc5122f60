package testvm

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/keepout-security/keepout/internal/testenv"
)

// System says what a Debian system is: packages, and what somebody put into it afterwards.
type System struct {
	Packages []string          // beside those that every Debian has; systems with the same ones share an unpacked tree
	Files    map[string]File   // by their absolute paths
	Links    map[string]string // symbolic links, by their absolute paths
}

// File is a file of a system.
type File struct {
	Data []byte
	From string // a file of this host, in place of Data
	Mode fs.FileMode
}

// Text is an ordinary file.
func Text(lines ...string) File {
	return File{Data: []byte(strings.Join(lines, "\n") + "\n"), Mode: 0o644}
}

// The one file system of every Debian root: the whole of the machine's second disk.
const (
	RootVolume = "4b454550-4f55-5400-8000-000000000001"
	rootMiB    = 2048 // most of it is a hole
)

// Build makes the root file system as a raw image, which a machine changes in place: give each a CopyDisk of its own.
// It needs testenv.Debootstrap.
func (s *System) Build(t testing.TB) string {
	t.Helper()
	testenv.Need(t, testenv.Debootstrap)
	base, err := s.base()
	if err != nil {
		t.Fatalf("build a Debian system: %v", err)
	}
	dir := t.TempDir()
	tree, image := filepath.Join(dir, "tree"), filepath.Join(dir, "root.img")
	if err := errors.Join(os.Mkdir(tree, 0o755), os.Chmod(tree, 0o755)); err != nil {
		t.Fatal(err)
	}
	must(t, "tar", "--numeric-owner", "--xattrs", "--xattrs-include=*", "-C", tree, "-xpf", base)
	for name, f := range s.Files {
		if err := f.put(filepath.Join(tree, name)); err != nil {
			t.Fatal(err)
		}
	}
	for name, to := range s.Links {
		path := filepath.Join(tree, name)
		_ = os.Remove(path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.Symlink(to, path)); err != nil {
			t.Fatal(err)
		}
	}
	// GRUB 2.06 reads no file system with these two features, and Debian makes none.
	must(t, "mke2fs", "-q", "-t", "ext4", "-O", "^metadata_csum_seed,^orphan_file", "-U", RootVolume, "-L", "root",
		"-d", tree, image, fmt.Sprintf("%dM", rootMiB))
	if err := os.RemoveAll(tree); err != nil {
		t.Fatal(err)
	}
	return image
}

func (f *File) put(path string) (err error) {
	data := f.Data
	if f.From != "" {
		if data, err = os.ReadFile(f.From); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	_ = os.Remove(path) // it may be a link that leads out of the tree
	return errors.Join(os.WriteFile(path, data, f.Mode), os.Chmod(path, f.Mode))
}

func must(t testing.TB, name string, args ...string) {
	t.Helper()
	if out, err := command(t.Context(), "", name, args...); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// CopyDisk copies an image, and leaves its holes.
func CopyDisk(t testing.TB, image string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), filepath.Base(image))
	must(t, "cp", "--sparse=always", image, file)
	return file
}

// recipe is how a tree is made of packages; a change makes another one.
const recipe = `#!/bin/sh
set -e
mkdir -p "$1/etc/initramfs-tools/conf.d"
printf 'MODULES=list\nCOMPRESS=lz4\n' > "$1/etc/initramfs-tools/conf.d/small"
printf 'virtio_pci\nvirtio_blk\next4\n' > "$1/etc/initramfs-tools/modules"
`

// base is the tree as an archive. Its name in the cache is a digest of what it is made of.
func (s *System) base() (string, error) {
	suite, err := codename()
	if err != nil {
		return "", err
	}
	packages := slices.Sorted(slices.Values(s.Packages))
	sum := sha256.Sum256([]byte(suite + "\n" + strings.Join(packages, "\n") + recipe))
	return cached("debian-"+hex.EncodeToString(sum[:8])+".tar", func(ctx context.Context, work string) (string, error) {
		sources, err := sources()
		if err != nil {
			return "", err
		}
		hook := filepath.Join(work, "hook")
		if err := os.WriteFile(hook, []byte(recipe), 0o700); err != nil {
			return "", err
		}
		archive := filepath.Join(work, "root.tar")
		args := append([]string{
			"--quiet", "--mode=root", "--variant=minbase", "--format=tar", "--include=" + strings.Join(packages, ","),
			"--essential-hook=" + hook,
			"--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*",
			"--dpkgopt=path-exclude=/usr/share/locale/*", suite, archive,
		}, sources...)
		if out, err := command(ctx, work, "mmdebstrap", args...); err != nil {
			return "", fmt.Errorf("%w\n%s", err, out)
		}
		return archive, nil
	})
}

// codename is what this host's Debian is called: its packages are what the tests have.
func codename() (string, error) {
	text, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "VERSION_CODENAME="); ok {
			return strings.Trim(name, `"`), nil
		}
	}
	return "", errors.New("/etc/os-release names no release")
}

// sources are the files in which this host's apt has Debian's archives: where a stranger's are, they stay out.
func sources() (files []string, err error) {
	for _, name := range []string{"/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list"} {
		text, err := os.ReadFile(name)
		if err == nil && bytes.Contains(text, []byte("deb")) && bytes.Contains(text, []byte("://")) {
			files = append(files, name)
		}
	}
	if len(files) == 0 {
		err = errors.New("neither /etc/apt/sources.list nor sources.list.d/debian.sources names Debian's archives")
	}
	return files, err
}

// Boot is what a boot loader outside a built root needs of it.
type Boot struct {
	Release    string // of the kernel
	Kernel     []byte
	Initramfs  []byte
	KernelFile string // where they lie in the root
}

// BootOf reads it from an image.
func BootOf(t testing.TB, image string) Boot {
	t.Helper()
	names, err := command(t.Context(), "", "debugfs", "-R", "ls -p /boot", image)
	if err != nil {
		t.Fatalf("%v\n%s", err, names)
	}
	var b Boot
	for field := range strings.SplitSeq(names, "/") {
		if release, ok := strings.CutPrefix(field, "vmlinuz-"); ok {
			b.Release, b.KernelFile = release, "/boot/"+field
		}
	}
	b.Kernel, b.Initramfs = readRoot(t, image, b.KernelFile), readRoot(t, image, "/boot/initrd.img-"+b.Release)
	return b
}

func readRoot(t testing.TB, image, name string) []byte {
	t.Helper()
	file := filepath.Join(t.TempDir(), "read")
	must(t, "debugfs", "-R", "dump "+name+" "+file, image)
	data, err := os.ReadFile(file)
	if err != nil || len(data) == 0 {
		t.Fatalf("read %s of the root: %d bytes, %v", name, len(data), err)
	}
	return data
}
