package testenv

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// probeTime bounds each command that a probe runs.
const probeTime = 30 * time.Second

func probeRoot() error {
	if euid := os.Geteuid(); euid != 0 {
		return fmt.Errorf("effective user is %d", euid)
	}
	return nil
}

func probeFUSE() error {
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("open the FUSE device: %w", err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("close the FUSE device: %w", err)
	}
	_, err = output("bindfs", "--version")
	return err
}

// clamdPath is where Debian installs clamd, which is not on an ordinary user's PATH.
const clamdPath = "/usr/sbin/clamd"

func probeClamAV() error {
	name := "clamd"
	if _, err := exec.LookPath(name); err != nil {
		name = clamdPath
	}
	_, err := output(name, "--version")
	return err
}

func probeYARA() error {
	return compile("#include <yara.h>\nint main(void) { return yr_initialize(); }\n", "-lyara")
}

func probeGCC() error { return compile("int main(void) { return 0; }\n") }

func probeGRUB() error {
	for _, tool := range []string{"grub-script-check", "grub-editenv"} {
		if _, err := output(tool, "--version"); err != nil {
			return err
		}
	}
	return nil
}

func probeGit() error {
	_, err := output("git", "--version")
	return err
}

// EFIStub is where Debian's systemd-boot-efi has the stub of unified images.
const EFIStub = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub"

func probeSigning() error {
	for _, tool := range []string{"sbsign", "sbverify"} {
		if _, err := output(tool, "--version"); err != nil {
			return err
		}
	}
	_, err := os.Stat(EFIStub)
	return err
}

// probeQEMU starts a machine that stands still and ends it by its monitor, and looks for what makes a disk.
func probeQEMU() error {
	for _, name := range []string{"mformat", "mcopy", "sfdisk", "grub-mkimage", "apt-get", "dpkg-deb"} {
		if _, err := exec.LookPath(name); err != nil {
			return err
		}
	}
	if _, err := os.Stat("/usr/share/OVMF/OVMF_CODE_4M.fd"); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), probeTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", "-accel", "tcg", "-M", "q35", "-nodefaults",
		"-display", "none", "-S", "-qmp", "stdio")
	cmd.Stdin = strings.NewReader(`{"execute":"qmp_capabilities"}` + "\n" + `{"execute":"quit"}` + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("qemu-system-x86_64: %w %s", err, bytes.TrimSpace(out))
	}
	return nil
}

// probeDebootstrap looks for what unpacks a system. Unpacking needs the right to make devices and to change the root.
func probeDebootstrap() error {
	for _, name := range []string{"mmdebstrap", "mke2fs", "tar"} {
		if _, err := exec.LookPath(name); err != nil {
			return err
		}
	}
	return probeRoot()
}

func probePython() error {
	_, err := Interpreter()
	return err
}

// Interpreter returns the path of a Python interpreter, version 3.9 or later: the system's if it serves,
// else the one on PATH. The path is that of the program itself, never of a wrapper script that finds it.
// The answer is remembered for the life of the process.
func Interpreter() (string, error) { return interpreter() }

var interpreter = sync.OnceValues(findPython)

func findPython() (string, error) {
	const script = "import sys; assert sys.version_info >= (3, 9), sys.version; print(sys.executable)"
	var failures []error
	for _, name := range []string{"/usr/bin/python3", "python3"} {
		path, err := output(name, "-c", script)
		if err == nil && path != "" {
			return path, nil
		}
		failures = append(failures, err)
	}
	return "", errors.Join(failures...)
}

// compile links a C program into a folder that is removed at once.
func compile(program string, flags ...string) error {
	dir, err := os.MkdirTemp("", "keepout-probe-")
	if err != nil {
		return fmt.Errorf("make a folder for the compiler: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	source := filepath.Join(dir, "probe.c")
	if err := os.WriteFile(source, []byte(program), 0o600); err != nil {
		return fmt.Errorf("write the probe program: %w", err)
	}
	_, err = output("gcc", append([]string{"-o", filepath.Join(dir, "probe"), source}, flags...)...)
	return err
}

// output runs a command and returns its trimmed standard output; the error carries what it said instead.
func output(name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), probeTime)
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w %s", name, err, strings.TrimSpace(stderr.String()))
	}
	return strings.TrimSpace(stdout.String()), nil
}
