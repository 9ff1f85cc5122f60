package vm

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keepout-security/keepout/internal/boot"
	"github.com/keepout-security/keepout/internal/testenv"
	"github.com/keepout-security/keepout/internal/testvm"
)

// debianTime bounds each step of a story with a whole Debian system: a busy machine emulates its boot in minutes.
const debianTime = 8 * time.Minute

// debianID is /etc/machine-id of every Debian system.
const debianID = "4b4545504f5554000000000000000001"

// debianPackages are what every Debian system of the stories has: a server's, without what only a network needs.
func debianPackages() []string {
	return []string{
		"systemd-sysv", "udev", "kmod", "linux-image-cloud-amd64", "initramfs-tools", "lz4", "grub2-common",
		"grub-pc-bin", "grub-efi-amd64-bin", "dosfstools", "mokutil", "efibootmgr",
	}
}

// debian is one machine with a Debian system.
type debian struct {
	*testvm.Machine
	t    testing.TB
	spec testvm.Spec
	disk *testvm.Disk
	dir  string // Keepout's folder, as the system sees it
}

// debianFiles is what a person, Keepout's package and its vendor's put on a Debian system.
func debianFiles(t testing.TB, o *organisation, efi bool) map[string]testvm.File {
	t.Helper()
	fstab := []string{
		"UUID=" + testvm.RootVolume + " / ext4 errors=remount-ro 0 1", "tmpfs /srv tmpfs size=16m 0 0",
	}
	terminal := `GRUB_TERMINAL="console serial"`
	if efi { // the firmware's console is the screen and the serial line
		fstab = append(fstab, "UUID="+testvm.EFIVolume+" /boot/efi vfat umask=0077 0 1")
		terminal = "GRUB_TERMINAL=console"
	}
	root := "root=UUID=" + testvm.RootVolume + " ro " + consoles
	files := map[string]testvm.File{
		"/etc/fstab": testvm.Text(fstab...), "/etc/hostname": testvm.Text("debian"), "/etc/machine-id": testvm.Text(debianID),
		"/etc/default/grub": testvm.Text("GRUB_DEFAULT=0", "GRUB_TIMEOUT=1", "GRUB_DISTRIBUTOR=Debian", terminal,
			`GRUB_CMDLINE_LINUX_DEFAULT=""`, `GRUB_CMDLINE_LINUX="`+consoles+`"`, "GRUB_DISABLE_OS_PROBER=true",
			`GRUB_SERIAL_COMMAND="serial --unit=0 --speed=115200"`),
		"/boot/grub/grub.cfg": testvm.Text("# as it was installed; update-grub writes it anew",
			"search --fs-uuid --set=root "+testvm.RootVolume, "linux /vmlinuz "+root, "initrd /initrd.img", "boot"),
		"/etc/modprobe.d/test.conf":              testvm.Text("blacklist kvm_amd", "blacklist powernow_k8"),
		"/etc/systemd/system/test-shell.service": testvm.Text(testvm.ShellUnit),
		"/etc/systemd/system/keepoutd.service":   testvm.Text(daemonUnit),
		"/etc/keepout/keepout.yaml": testvm.Text("version: 1", "mode: enforce", "watch:",
			"  - {path: /srv, events: [open, exec]}", "providers:",
			"  - {id: hashlist, mode: enforce, content: /etc/keepout/hashlist}"),
		"/etc/keepout/hashlist/deny.txt":  testvm.Text(strings.Repeat("e", 64) + " a program that nobody has"),
		"/etc/keepout/hashlist/allow.txt": testvm.Text(),
		// The vendor's: the engine with the content of July 2024, started early by a unit of its own.
		"/etc/systemd/system/acme-av.service": testvm.Text(vendorUnit),
		vendorContent + "/c-00000291-00000032.channel": testvm.Text(
			strings.Repeat("*,", 20) + "evil-pipe"),
	}
	maps.Copy(files, programs(t))
	if o != nil {
		config, err := json.Marshal(map[string]any{
			"server": o.address(), "products": map[string]string{guilty: "ACME AV"},
		})
		if err != nil {
			t.Fatal(err)
		}
		files["/etc/keepout/recovery.json"] = testvm.Text(string(config))
		files["/etc/keepout/recipients.txt"] = testvm.Text(o.identity.Recipient().String())
		files["/etc/keepout/roots.pem"] = testvm.File{Data: o.roots, Mode: 0o644}
		files["/etc/keepout/fix-keys.json"] = testvm.File{Data: o.trustText(), Mode: 0o644}
	}
	return files
}

const (
	keepoutBin    = "/usr/lib/keepout"
	vendorContent = "/usr/lib/acme/content"
	vendorUnit    = `[Unit]
Description=ACME AV, early
DefaultDependencies=no
After=keepout-bootguard.service local-fs.target
Before=sysinit.target

[Service]
Type=oneshot
ExecStart=/usr/lib/acme/guest early ` + guilty + ` /usr/lib/acme/engine ` + vendorContent + `
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0

[Install]
WantedBy=sysinit.target
`
	daemonUnit = `[Unit]
Description=Keepout
After=keepout-bootguard.service

[Service]
ExecStart=` + keepoutBin + `/keepoutd
RuntimeDirectory=keepout
RuntimeDirectoryPreserve=yes
Restart=always

[Install]
WantedBy=multi-user.target
`
)

// programs are Keepout's as a package installs them, and the vendor's.
func programs(t testing.TB) map[string]testvm.File {
	t.Helper()
	commands := []string{"keepout", "keepoutd", "keepout-core", "keepout-bootguard", "keepout-rescue"}
	packages := []string{"./providers/hashlist", "./providers/hostile/channel291", "./test/vm/guest"}
	for _, name := range commands {
		packages = append(packages, "./cmd/"+name)
	}
	bin := testenv.Build(t, packages...)
	files := map[string]testvm.File{
		"/usr/lib/acme/engine": {From: filepath.Join(bin, "hostile", "channel291", "keepout-channel291"), Mode: 0o755},
		"/usr/lib/acme/guest":  {From: filepath.Join(bin, "guest"), Mode: 0o755},
	}
	for _, name := range commands {
		files[keepoutBin+"/"+name] = testvm.File{From: filepath.Join(bin, name), Mode: 0o755}
	}
	provider := filepath.Join(bin, "providers", "hashlist")
	entries, err := os.ReadDir(provider)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		files[keepoutBin+"/providers/hashlist/"+e.Name()] = testvm.File{From: filepath.Join(provider, e.Name()), Mode: 0o755}
	}
	return files
}

// debianLinks enables units and makes the command found.
func debianLinks() map[string]string {
	const units = "/etc/systemd/system/"
	links := map[string]string{
		"/usr/bin/keepout":   keepoutBin + "/keepout",
		"/boot/grub/i386-pc": "/usr/lib/grub/i386-pc",
		units + "multi-user.target.wants/keepoutd.service":   units + "keepoutd.service",
		units + "multi-user.target.wants/test-shell.service": units + "test-shell.service",
	}
	for _, name := range []string{ // what takes time and is no part of a story
		"apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "e2scrub_reap.service",
		"fstrim.timer", "getty@tty1.service", "serial-getty@ttyS0.service", "getty-static.service",
	} {
		links[units+name] = "/dev/null"
	}
	return links
}

// debianSystem is the system of a machine; efi says that it has an EFI system partition at /boot/efi.
func debianSystem(t testing.TB, o *organisation, efi bool, more map[string]testvm.File) *testvm.System {
	t.Helper()
	s := &testvm.System{Packages: debianPackages(), Files: debianFiles(t, o, efi), Links: debianLinks()}
	maps.Copy(s.Files, more)
	return s
}

// install starts a machine for the first time and waits until it is up.
func (d *debian) install(name string) {
	d.t.Helper()
	d.start(name)
	d.AwaitShell(debianTime)
	d.t.Logf("Debian is up after %v", time.Since(d.Started).Round(time.Second))
}

// start starts the machine that a spec says, which has a shell and survives its own restarts.
func (d *debian) start(name string) {
	d.t.Helper()
	d.spec.Disk, d.spec.Shell, d.spec.Reboots, d.spec.Memory, d.spec.Single = d.disk.File, true, true, 1024, true
	d.Machine = testvm.Start(d.t, name, d.spec)
}

// arm arms a machine as its owner does, on the running system: it shows the changes, makes them, builds the recovery
// image and puts the keys there.
func (d *debian) arm() {
	d.t.Helper()
	shown := d.Run("keepout recovery arm")
	if !strings.Contains(shown, "nothing was changed") || !strings.Contains(shown, "systemd.crash_reboot=1") {
		d.t.Fatalf("arm shows:\n%s", shown)
	}
	d.keep("arm.txt", shown)
	d.Run("keepout recovery arm --yes")
	d.Run("if [ -f /etc/keepout/fix-keys.json ]; then " +
		"install -D /etc/keepout/fix-keys.json " + d.dir + "/trust/keys.json; fi")
	begun := time.Now()
	d.Run("keepout recovery image build --unproven --roots /etc/keepout/roots.pem")
	d.t.Logf("the recovery image was built in the guest in %v:\n%s", time.Since(begun).Round(time.Second),
		d.Run("keepout recovery image verify; ls -l "+d.dir))
}

// keep keeps a text among the artefacts.
func (d *debian) keep(name, text string) {
	d.t.Helper()
	if err := os.WriteFile(filepath.Join(testvm.Artefacts(d.t), name), []byte(text+"\n"), 0o600); err != nil {
		d.t.Fatal(err)
	}
}

// restart restarts the machine in order, and off switches it off. The shell answers before it ends.
func (d *debian) restart() {
	d.t.Helper()
	d.Run("sync; (sleep 1; systemctl reboot) > /dev/null 2>&1 &")
}

func (d *debian) off() {
	d.t.Helper()
	d.Run("(sleep 1; systemctl poweroff) > /dev/null 2>&1 &")
	d.WaitExit(debianTime)
}

// status is what "keepout recovery status" says.
type status struct {
	Armed   bool
	Loader  string
	Left    int
	Attempt int
	Mode    boot.Mode
	Next    boot.Mode
	State   boot.State
	Wrong   []string
}

func (d *debian) status() (s status) {
	d.t.Helper()
	out, _ := d.Try("keepout recovery status -o json")
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		d.t.Fatalf("keepout recovery status: %v\n%s", err, out)
	}
	return s
}

// awaitGood waits until the boot is judged good, and returns what is known then.
func (d *debian) awaitGood() status {
	d.t.Helper()
	for end := time.Now().Add(debianTime); time.Now().Before(end); time.Sleep(5 * time.Second) {
		if s := d.status(); s.State.Boot == "" {
			return s
		}
	}
	out, _ := d.Try("keepout status; keepout recovery status; systemctl status keepoutd keepout-boot-good; " +
		"journalctl -b | tail -n 60")
	d.t.Fatalf("the boot was not judged good:\n%s", out)
	return status{}
}

// ladder follows the machine down to the recovery environment and through it.
func (d *debian) ladder() {
	d.t.Helper()
	for i, mode := range []string{"normal", "lkg", "safe"} {
		d.ExpectWithin(fmt.Sprintf("guest: boot is %s, attempt %d", mode, i+1), debianTime)
		d.ExpectWithin("guest: "+guilty+" ended: exit status 2: panic: runtime error: index out of range", debianTime)
		d.ExpectWithin("Kernel panic - not syncing: sysrq triggered crash", debianTime)
		d.t.Logf("attempt %d, %s, ended after %v", i+1, mode, time.Since(d.Started).Round(time.Second))
		if i == 0 {
			d.Screenshot("panic")
		}
	}
}
