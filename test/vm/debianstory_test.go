package vm

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keepout-security/keepout/internal/boot"
	"github.com/keepout-security/keepout/internal/recovery/diagnostics"
	"github.com/keepout-security/keepout/internal/recovery/protocol"
	"github.com/keepout-security/keepout/internal/recovery/remediation"
	"github.com/keepout-security/keepout/internal/testenv"
	"github.com/keepout-security/keepout/internal/testvm"
)

// fixing is an organisation whose server answers each bundle with a fix for it: not to start what is suspected, or safe
// mode where nobody is.
func fixing(t testing.TB, id string) *organisation {
	t.Helper()
	o := newOrganisation(t)
	o.answer = func(q protocol.FixRequest) []byte {
		f := o.targeted(id, q.Digest, q.Suspect)
		f.Machines.IDs = []string{diagnostics.Pseudonym(debianID)}
		if q.Suspect == "" {
			f.Reason, f.Actions = "nobody is suspected", []remediation.Action{{Verb: remediation.SafeMode}}
		}
		return o.seal(f, o.keys[0], o.keys[1])
	}
	return o
}

// recovers plays the story on a machine that has just been started for the first time: it is armed, its vendor's
// update comes, three starts fail, the recovery environment gets a fix, and the boot after it is good.
func (d *debian) recovers(o *organisation, fix string) {
	t := d.t
	t.Helper()
	d.arm()
	d.Run("systemctl enable acme-av")
	d.restart()
	d.ladder()
	d.ExpectWithin("recovery environment: ", debianTime)
	d.ExpectWithin("Network: wired", debianTime)
	picture := d.Screenshot("recovery")
	d.ExpectWithin("Next start: fix "+fix, debianTime)
	d.ExpectWithin("keepout-rescue: restart", debianTime)
	d.ExpectWithin(`guest: boot is normal, attempt \d+, disabled \["`+guilty+`"\]`, debianTime)
	d.AwaitShell(debianTime)
	d.Screenshot("up")
	s := d.awaitGood()
	t.Logf("good again after %v", time.Since(d.Started).Round(time.Second))

	testvm.WantPicture(t, picture)
	wantPanic(t, o.lastBundle())
	if got := o.lastBundle().Failure; got.Suspect != guilty || got.Attempts != 3 {
		t.Errorf("the bundle suspects %q after %d attempts", got.Suspect, got.Attempts)
	}
	if r := o.lastReport(); r.Source != "server" || r.Fix != fix {
		t.Errorf("report %+v", r)
	}
	if !s.Armed || s.Mode != boot.Normal || s.Next != boot.Normal || s.State.Failures != 0 || s.Left != boot.MaxTries ||
		!slices.Equal(s.State.Orders.Disabled, []string{guilty}) || len(s.Wrong) > 0 {
		t.Errorf("after a good boot: %s", asJSON(t, s))
	}
	story := d.Run("keepout crash show")
	if !strings.Contains(story, "could not start, and has recovered (3 attempts)") || !strings.Contains(story, "ACME AV") {
		t.Errorf("keepout crash show:\n%s", story)
	}
	d.keep("crash-show.txt", story)
}

// TestRecoveryFullBIOS: a Debian system that GRUB starts on a BIOS machine, with everything on one file system.
func TestRecoveryFullBIOS(t *testing.T) {
	t.Parallel()
	testenv.Need(t, testenv.QEMU, testenv.Debootstrap)
	o := fixing(t, "fix-debian-bios")
	d := &debian{t: t, dir: "/boot/keepout", disk: testvm.NewDisk(t, nil)}
	d.spec.Root = debianSystem(t, o, false, nil).Build(t)
	d.disk.InstallGRUB("search --fs-uuid --set=root " + testvm.RootVolume +
		"\nset prefix=(${root})/boot/grub\nconfigfile ${prefix}/grub.cfg\n")
	d.spec.ERST = testvm.NewERST(t)
	d.install("debian")
	d.recovers(o, "fix-debian-bios")
	d.off()
}

// systemdBootOf is the EFI system partition of a Debian system that systemd-boot starts, as kernel-install fills it.
func systemdBootOf(t testing.TB, root string) map[string][]byte {
	t.Helper()
	program, err := os.ReadFile(systemdBoot)
	if err != nil {
		t.Fatal(err)
	}
	b := testvm.BootOf(t, root)
	folder := debianID + "/" + b.Release
	entry := testvm.Text("title      Debian GNU/Linux", "version    "+b.Release, "machine-id "+debianID,
		"sort-key   debian", "options    root=UUID="+testvm.RootVolume+" ro "+consoles,
		"linux      /"+folder+"/linux", "initrd     /"+folder+"/initrd.img")
	return map[string][]byte{
		"EFI/BOOT/BOOTX64.EFI": program, "EFI/systemd/systemd-bootx64.efi": program,
		"loader/loader.conf":   []byte("timeout 0\n"),
		folder + "/linux":      b.Kernel,
		folder + "/initrd.img": b.Initramfs,
		"loader/entries/" + debianID + "-" + b.Release + ".conf": entry.Data,
	}
}

// debianUEFI is a machine whose Debian systemd-boot starts.
func debianUEFI(t testing.TB, o *organisation, more map[string]testvm.File) *debian {
	t.Helper()
	d := &debian{t: t, dir: "/boot/efi/keepout"}
	d.spec.Root = debianSystem(t, o, true, more).Build(t)
	d.disk = testvm.NewDisk(t, systemdBootOf(t, d.spec.Root))
	d.spec.Firmware, d.spec.Vars = testvm.UEFI, testvm.Vars(t, testvm.UEFI)
	return d
}

// TestRecoveryFullUEFI: the same on a UEFI machine with systemd-boot.
func TestRecoveryFullUEFI(t *testing.T) {
	t.Parallel()
	testenv.Need(t, testenv.QEMU, testenv.Debootstrap)
	o := fixing(t, "fix-debian-uefi")
	d := debianUEFI(t, o, nil)
	d.install("debian")
	d.recovers(o, "fix-debian-uefi")
	names := d.Run("cd /boot/efi/loader/entries && ls")
	if !strings.Contains(names, "+3.conf") || !strings.Contains(names, "-keepout-recovery-2+1.conf") ||
		strings.Count(names, "\n") != 2 {
		t.Errorf("after a good boot the entries are\n%s", names)
	}
	d.off()
}

const (
	shim       = "/usr/lib/shim/shimx64.efi.signed"
	signedGRUB = "grub-efi-amd64-signed"
)

// TestRecoveryFullSecureBoot: the same with Secure Boot on, as machines are sold: the firmware has Microsoft's keys,
// shim has Debian's, and GRUB starts no kernel that is not signed, neither a system's nor an environment's. A kernel
// whose signature does not hold is refused, that counts, and the environment comes, which has a kernel of its own.
func TestRecoveryFullSecureBoot(t *testing.T) {
	t.Parallel()
	testenv.Need(t, testenv.QEMU, testenv.Debootstrap)
	o := fixing(t, "fix-debian-secure")
	d := &debian{t: t, dir: "/boot/efi/keepout"}
	d.spec.Root = debianSystem(t, o, true, nil).Build(t)
	d.disk = testvm.NewDisk(t, shimOf(t))
	d.spec.Firmware, d.spec.Vars = testvm.SecureBoot, testvm.Vars(t, testvm.SecureBoot)
	d.install("debian")
	for command, want := range map[string]string{
		"mokutil --sb-state": "SecureBoot enabled", "cat /sys/kernel/security/lockdown": "[integrity]",
		"od -An -tu1 /sys/firmware/efi/efivars/SecureBoot-*": "1",
	} {
		if got := d.Run(command); !strings.Contains(got, want) {
			t.Errorf("%s: %s", command, got)
		} else {
			t.Logf("%s: %s", command, got)
		}
	}
	d.recovers(o, "fix-debian-secure")

	// One byte of the kernel is another one. Nobody is blamed for that, although ACME's engine was suspected before.
	blamed := d.Serial.Count("Suspected: ")
	d.Run("printf x | dd of=/boot/vmlinuz-$(uname -r) bs=1 seek=2000000 conv=notrunc")
	d.restart()
	for attempt := range boot.MaxTries {
		d.ExpectText("The system cannot be started. This machine restarts", debianTime)
		if attempt == 0 {
			testvm.WantPicture(t, d.Screenshot("refused"))
		}
	}
	if d.Serial.Count("bad shim signature") == 0 {
		t.Error("GRUB did not say why")
	}
	d.ExpectWithin("recovery environment: ", debianTime)
	d.ExpectWithin(`This machine could not start \(3 attempts\)`, debianTime)
	d.ExpectWithin("Next start: fix fix-debian-secure - nobody is suspected", debianTime)
	testvm.WantPicture(t, d.Screenshot("after-refusals"))
	if got := o.lastBundle().Failure; got.Suspect != "" || got.Attempts != 3 || d.Serial.Count("Suspected: ") != blamed {
		t.Errorf("after three refusals the bundle suspects %q after %d attempts", got.Suspect, got.Attempts)
	}
}

// shimOf is the EFI system partition of a Debian system with shim and the signed GRUB, as grub-install fills it.
func shimOf(t testing.TB) map[string][]byte {
	t.Helper()
	first, err := os.ReadFile(shim)
	if err != nil {
		t.Fatal(err)
	}
	grub, err := os.ReadFile(filepath.Join(testvm.Package(t, signedGRUB), "usr", "lib", "grub", "x86_64-efi-signed",
		"grubx64.efi.signed"))
	if err != nil {
		t.Fatal(err)
	}
	config := testvm.Text("search.fs_uuid "+testvm.RootVolume+" root", "set prefix=($root)'/boot/grub'",
		"configfile $prefix/grub.cfg")
	return map[string][]byte{
		"EFI/BOOT/BOOTX64.EFI": first, "EFI/BOOT/grubx64.efi": grub,
		"EFI/debian/shimx64.efi": first, "EFI/debian/grubx64.efi": grub, "EFI/debian/grub.cfg": config.Data,
	}
}
