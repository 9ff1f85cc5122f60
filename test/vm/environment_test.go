package vm

import (
	"testing"
	"time"

	"github.com/keepout-security/keepout/internal/boot"
	"github.com/keepout-security/keepout/internal/recovery/image"
	"github.com/keepout-security/keepout/internal/testenv"
	"github.com/keepout-security/keepout/internal/testvm"
)

// TestRecoveryEnvironmentAlone starts the environment without a server and looks at what it shows and leaves.
func TestRecoveryEnvironmentAlone(t *testing.T) {
	t.Parallel()
	testenv.Need(t, testenv.QEMU)
	img := buildImage(t, image.Source{Settings: baseSettings()})
	disk := testvm.NewDisk(t, espFiles(t, boot.New()))
	m := testvm.Start(t, "bios", testvm.Spec{
		Kernel: testvm.DebianKernel(t, testvm.Cloud).Image, Initramfs: inFile(t, "recovery.cpio", img.Archive),
		Cmdline: consoles, Disk: disk.File, Offline: true,
	})
	m.Expect("Looking at this machine")
	m.Expect("Next start")
	m.Screenshot("screen")
	m.WaitExit(time.Minute)
	t.Log(asJSON(t, stateOf(t, disk)))
}
