package vm

import (
	"os"
	"slices"
	"testing"

	"github.com/keepout-security/keepout/internal/boot"
	"github.com/keepout-security/keepout/internal/recovery/image"
	"github.com/keepout-security/keepout/internal/recovery/protocol"
	"github.com/keepout-security/keepout/internal/testenv"
	"github.com/keepout-security/keepout/internal/testvm"
)

// systemdBoot is where Debian's systemd-boot-efi has the loader.
const systemdBoot = "/usr/lib/systemd/boot/efi/systemd-bootx64.efi"

// efiMachine is a UEFI machine with systemd-boot, armed as "keepout recovery arm" does. The system's entry has no
// sort-key, so that by its name alone it comes before those of the recovery environment.
func efiMachine(t testing.TB, img image.Image, trust []byte) *testvm.Disk {
	t.Helper()
	program, err := os.ReadFile(systemdBoot)
	if err != nil {
		t.Fatal(err)
	}
	files := machineFiles(t, img, trust, boot.New())
	files["EFI/BOOT/BOOTX64.EFI"] = program
	files["loader/loader.conf"] = []byte("timeout 0\n")
	files["loader/entries/debian+3.conf"] = []byte("title Debian\nlinux /vmlinuz\n" +
		"initrd /guest.cpio\noptions " + systemParameters + "\n")
	recovery := []byte("title Keepout recovery environment\nlinux /keepout/vmlinuz-a\n" +
		"initrd /keepout/recovery-a.cpio\noptions " + image.A.Parameters() + " " + consoles + "\n")
	files["loader/entries/-keepout-recovery-2+1.conf"] = recovery
	files["loader/entries/-keepout-recovery-1.conf"] = recovery
	return testvm.NewDisk(t, files)
}

// TestRecoveryUEFI is the story on a UEFI machine with systemd-boot, whose counter is in the names of its entries, and
// with the panic's text in the firmware's variables.
func TestRecoveryUEFI(t *testing.T) {
	t.Parallel()
	testenv.Need(t, testenv.QEMU)
	o := newOrganisation(t)
	o.answer = func(q protocol.FixRequest) []byte {
		return o.seal(o.targeted("fix-uefi", q.Digest, q.Suspect), o.keys[0], o.keys[1])
	}
	source := o.source()
	source.Settings.Entries = "debian"
	img := buildImage(t, source)
	disk := efiMachine(t, img, o.trustText())
	m := testvm.Start(t, "uefi", testvm.Spec{
		Firmware: testvm.UEFI, Vars: testvm.Vars(t, testvm.UEFI), Disk: disk.File, Reboots: true,
	})
	story := testvm.Tell(m, "A machine that does not start, and comes back: UEFI, systemd-boot")
	threeFailures(story, m)
	picture := repaired(story, m, "fix-uefi")
	back(story, m)

	testvm.WantPicture(t, picture)
	wantPanic(t, o.lastBundle())
	names := disk.List("loader/entries")
	slices.Sort(names)
	want := []string{"-keepout-recovery-1.conf", "-keepout-recovery-2+1.conf", "debian+3.conf"}
	if !slices.Equal(names, want) {
		t.Errorf("after a good boot the entries are %q, want %q", names, want)
	}
}
