package vm

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/keepout-security/keepout/internal/recovery/initramfs"
	"github.com/keepout-security/keepout/internal/testenv"
	"github.com/keepout-security/keepout/internal/testvm"
)

func TestMain(m *testing.M) { os.Exit(testenv.PrivateMounts(m)) }

// consoles sends the kernel's messages to the serial port and keeps the screen's console.
const consoles = "console=tty0 console=ttyS0 quiet"

// archive writes an initramfs.
func archive(t testing.TB, files ...initramfs.File) string {
	t.Helper()
	content, err := initramfs.Bytes(files)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "initramfs.cpio")
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func program(t testing.TB, pkg string) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(testenv.Build(t, pkg), filepath.Base(pkg)))
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// TestMachineBoots proves the harness itself: Debian's kernel starts a static Go init, which says so.
func TestMachineBoots(t *testing.T) {
	t.Parallel()
	testenv.Need(t, testenv.QEMU)
	m := testvm.Start(t, "boot", testvm.Spec{
		Kernel:    testvm.DebianKernel(t, testvm.Cloud).Image,
		Initramfs: archive(t, initramfs.File{Name: "init", Mode: 0o755, Data: program(t, "./test/vm/guest")}),
		Cmdline:   consoles,
	})
	m.Expect("guest: init runs")
	t.Logf("kernel start to init: %v", time.Since(m.Started).Round(10*time.Millisecond))
	m.WaitExit(time.Minute)
}
