package vm

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/keepout-security/keepout/internal/boot"
	"github.com/keepout-security/keepout/internal/recovery/esp"
	"github.com/keepout-security/keepout/internal/recovery/image"
	"github.com/keepout-security/keepout/internal/testenv"
	"github.com/keepout-security/keepout/internal/testvm"
)

// TestRecoveryUnified: firmware and systemd-boot start the recovery environment out of one file, which is an entry's,
// and it finds its own archive and parameters in there.
func TestRecoveryUnified(t *testing.T) {
	t.Parallel()
	testenv.Need(t, testenv.QEMU)
	source := image.Source{Settings: baseSettings()}
	img := buildImage(t, source)
	stub, err := os.ReadFile(testenv.EFIStub)
	if err != nil {
		t.Fatal(err)
	}
	unified, err := image.Unify(img, image.A, stub, consoles)
	if err != nil {
		t.Fatal(err)
	}
	img.SetUnified(unified)
	dir := t.TempDir()
	if err := image.Install(dir, image.A, img); err != nil {
		t.Fatal(err)
	}
	if _, err := image.Verify(dir, image.A); err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(systemdBoot)
	if err != nil {
		t.Fatal(err)
	}
	files := espFiles(t, boot.New())
	files["EFI/BOOT/BOOTX64.EFI"] = program
	files["loader/loader.conf"] = []byte("timeout 0\n")
	files["loader/entries/-keepout-recovery-2+1.conf"] = []byte("title Recovery\nefi /keepout/" + esp.UnifiedA + "\n")
	if files["keepout/"+esp.UnifiedA], err = os.ReadFile(filepath.Join(dir, esp.UnifiedA)); err != nil {
		t.Fatal(err)
	}
	disk := testvm.NewDisk(t, files)
	m := testvm.Start(t, "unified", testvm.Spec{
		Firmware: testvm.UEFI, Vars: testvm.Vars(t, testvm.UEFI), Disk: disk.File, Offline: true,
	})
	story := testvm.Tell(m, "The recovery environment out of one file")
	story.Say("the image has %.1f MB: kernel %.1f MB, archive %.1f MB", megabytes(unified), megabytes(img.Kernel),
		megabytes(img.Archive))
	line := m.ExpectWithin("keepout-rescue: recovery environment: ", storyTime)
	story.Say("%s", line)
	m.ExpectWithin("Next start", storyTime)
	testvm.WantPicture(t, story.Show("unified", "the environment runs, and found its archive"))
	m.WaitExit(storyTime)
	if s := stateOf(t, disk); s.Recoveries != 1 {
		t.Errorf("the state is %s", asJSON(t, s))
	}
	if !bytes.HasPrefix(unified, []byte("MZ")) {
		t.Error("it is no program of the firmware")
	}
}

func megabytes(data []byte) float64 { return float64(len(data)) / 1e6 }
