package vm

import (
	"bytes"
	"strings"
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
		Cmdline: image.A.Parameters() + " " + consoles, Disk: disk.File, Offline: true,
	})
	story := testvm.Tell(m, "The recovery environment alone, without a server")
	screen := testvm.SecondsAfter(t, m.Expect("keepout-rescue: screen: "))
	drawn := m.CPU()
	m.Expect("Next start")
	story.Show("screen", "what the next start will do")
	end := testvm.SecondsAfter(t, m.Expect("keepout-rescue: restart"))
	story.Measure("from the kernel's start to the screen", screen, screenLimit, "s")
	story.Measure("from the kernel's start to the repair's end", end, repairLimit, "s")
	story.Say("measured: %.1f s of processor time to the screen, %.1f s to the end, firmware included", drawn.Seconds(),
		m.CPU().Seconds())
	m.WaitExit(time.Minute)
	t.Log(asJSON(t, stateOf(t, disk)))
}

// TestRecoveryImage builds the image of Debian's generic kernel, twice, and holds its sizes against the limits.
func TestRecoveryImage(t *testing.T) {
	t.Parallel()
	testenv.Need(t, testenv.QEMU)
	for _, kernel := range []string{testvm.Cloud, testvm.Generic} {
		source := image.Source{Settings: baseSettings()}
		first := buildFrom(t, testvm.DebianKernel(t, kernel), source)
		if kernel == testvm.Cloud {
			second := buildFrom(t, testvm.DebianKernel(t, kernel), source)
			if !bytes.Equal(first.Archive, second.Archive) {
				t.Error("two builds differ")
			}
		}
		files, err := image.Files(first.Archive)
		if err != nil {
			t.Fatal(err)
		}
		modules := 0
		for _, f := range files {
			if f.Mode&0o111 != 0 && f.Name != "init" && f.Data != nil {
				t.Errorf("%s can be run", f.Name)
			}
			if f.Name == "init" {
				t.Logf("%s: init %.2f MB (limit %.1f MB)", kernel, megabytes(f.Data), float64(image.MaxInit)/1e6)
			}
			if strings.HasPrefix(f.Name, "lib/modules/") {
				modules++
			}
		}
		t.Logf("%s: image %.2f MB (limit %.1f MB) with %d modules, kernel %.2f MB beside it", kernel,
			megabytes(first.Archive), float64(image.MaxArchive)/1e6, modules, megabytes(first.Kernel))
	}
}
