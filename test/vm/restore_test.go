package vm

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"slices"
	"testing"

	"github.com/keepout-security/keepout/internal/boot"
	"github.com/keepout-security/keepout/internal/recovery/esp"
	"github.com/keepout-security/keepout/internal/recovery/image"
	"github.com/keepout-security/keepout/internal/recovery/protocol"
	"github.com/keepout-security/keepout/internal/recovery/remediation"
	"github.com/keepout-security/keepout/internal/recovery/settings"
	"github.com/keepout-security/keepout/internal/testenv"
	"github.com/keepout-security/keepout/internal/testvm"
)

// bootMachine is a UEFI machine whose system and its entry lie on an extended boot loader partition, mounted at /boot,
// while systemd-boot, Keepout's folder and the entries of the recovery environment lie on the EFI system partition.
// extra are further kernel parameters of the system.
func bootMachine(t testing.TB, img image.Image, trust []byte, extra string) (disk, second *testvm.Disk) {
	t.Helper()
	program, err := os.ReadFile(systemdBoot)
	if err != nil {
		t.Fatal(err)
	}
	efi, onBoot := machineFiles(t, img, trust, boot.New()), map[string][]byte{}
	for _, name := range []string{"vmlinuz", "guest.cpio"} {
		onBoot[name] = efi[name]
		delete(efi, name)
	}
	onBoot["loader/entries/debian+3.conf"] = []byte("title Debian\nlinux /vmlinuz\ninitrd /guest.cpio\n" +
		"options " + systemParameters + " guest.boot=/dev/vda3" + extra + "\n")
	recovery := []byte("title Keepout recovery environment\nlinux /keepout/vmlinuz-a\n" +
		"initrd /keepout/recovery-a.cpio\noptions " + image.A.Parameters() + " " + consoles + "\n")
	efi["EFI/BOOT/BOOTX64.EFI"] = program
	efi["loader/loader.conf"] = []byte("timeout 0\n")
	efi["loader/entries/-keepout-recovery-2+1.conf"] = recovery
	efi["loader/entries/-keepout-recovery-1.conf"] = recovery
	return testvm.NewDiskWithBoot(t, efi, onBoot)
}

// TestRecoveryFullRestore: a configuration that somebody broke ends the machine three times. The fix names the file and
// the digest that it had, the next start takes it from the copies of the last good boot, and the machine is well. All
// of it on a machine whose boot partition is not its EFI system partition, where the counter has to be found and set
// anew.
func TestRecoveryFullRestore(t *testing.T) {
	t.Parallel()
	testenv.Need(t, testenv.QEMU)
	config := []byte("version: 1\nmode: enforce\n")
	sum := sha256.Sum256(config)
	digest := hex.EncodeToString(sum[:])
	o := newOrganisation(t)
	o.answer = func(q protocol.FixRequest) []byte {
		f := o.targeted("give-back", q.Digest, "")
		f.Reason = "the configuration is broken"
		f.Actions = []remediation.Action{{Verb: remediation.RestoreFile, Path: "config/keepout.yaml", SHA256: digest}}
		return o.seal(f, o.keys[0], o.keys[1])
	}
	source := o.source()
	source.Settings.Entries = "debian"
	source.Settings.Boot = settings.Volume{Type: "vfat", ID: testvm.BootVolume, Dir: "."}
	disk, second := bootMachine(t, buildImage(t, source), o.trustText(), " guest.ruin=1")
	m := testvm.Start(t, "restore", testvm.Spec{
		Firmware: testvm.UEFI, Vars: testvm.Vars(t, testvm.UEFI), Disk: disk.File, Reboots: true,
		Root: testvm.NewState(t, map[string][]byte{"etc/keepout.yaml": config, "ruin": nil}),
	})
	story := testvm.Tell(m, "A file that somebody broke is given back; the boot partition is not the EFI system partition")
	story.Wait("guest: the configuration is "+digest, storyTime, "start 1: the configuration is whole")
	story.Wait("guest: healthy", storyTime, "the boot is good: Keepout's files are copied")
	story.Wait("guest: somebody ruins the configuration", storyTime, "then somebody breaks the configuration")
	for i, mode := range []string{"normal", "lkg", "safe"} {
		m.ExpectWithin("guest: boot is "+mode+", attempt "+string(rune('1'+i)), storyTime)
		m.ExpectWithin("guest: it ends the machine", storyTime)
		story.Wait("Kernel panic - not syncing", storyTime, "start %d ends, it ran %s", i+2, mode)
	}
	story.Wait("keepout-rescue: recovery environment: ", storyTime, "start 5: the loader starts the recovery environment")
	story.Wait("Next start: fix give-back", storyTime, "the fix has two signatures, and names a file and its digest")
	testvm.WantPicture(t, story.Show("fix", "what the next start will do, and why"))
	m.ExpectWithin("keepout-rescue: restart", storyTime)
	story.Wait("guest: the configuration is "+digest, storyTime, "start 6: the file is, to the byte, what it was")
	story.Wait("guest: healthy", storyTime, "the boot is good")
	m.WaitExit(storyTime)

	if got := second.List("loader/entries"); !slices.Equal(got, []string{"debian+3.conf"}) {
		t.Errorf("on the boot partition the entries are %q", got)
	}
	names := disk.List("loader/entries")
	slices.Sort(names)
	if want := []string{"-keepout-recovery-1.conf", "-keepout-recovery-2+1.conf"}; !slices.Equal(names, want) {
		t.Errorf("on the EFI system partition the entries are %q, want %q", names, want)
	}
	if r := o.lastReport(); r.Source != "server" || r.Fix != "give-back" {
		t.Errorf("report %+v", r)
	}
	if s := stateOf(t, disk); s.Failures != 0 || s.Recoveries != 0 || s.Next != boot.Normal || !s.Orders.None() {
		t.Errorf("after a good boot the state is %s", asJSON(t, s))
	}
	if left := disk.List("keepout/" + esp.Intents); len(left) > 0 {
		t.Errorf("intents stay: %q", left)
	}
}
