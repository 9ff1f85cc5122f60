package vm

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/keepout-security/keepout/internal/boot"
	"github.com/keepout-security/keepout/internal/recovery/esp"
	"github.com/keepout-security/keepout/internal/recovery/image"
	"github.com/keepout-security/keepout/internal/recovery/initramfs"
	"github.com/keepout-security/keepout/internal/recovery/intent"
	"github.com/keepout-security/keepout/internal/recovery/loader"
	"github.com/keepout-security/keepout/internal/recovery/protocol"
	"github.com/keepout-security/keepout/internal/testenv"
	"github.com/keepout-security/keepout/internal/testvm"
	"github.com/keepout-security/keepout/packaging"
)

// guilty is the provider that ends the machine in every story.
const guilty = "channel-file-291"

// storyTime bounds each step of a story: a busy machine emulates ten times slower than an idle one.
const storyTime = 6 * time.Minute

// systemParameters are what arming adds to a system's kernel, with a shorter time to look at a panic.
const systemParameters = consoles + " panic=1 guest.provider=" + guilty

// guestArchive is the system: its init, bootguard and the kernel modules of the image.
func guestArchive(t testing.TB, img image.Image) []byte {
	t.Helper()
	all, err := image.Files(img.Archive)
	if err != nil {
		t.Fatal(err)
	}
	files := []initramfs.File{
		{Name: "init", Mode: 0o755, Data: program(t, "./test/vm/guest")},
		{Name: "bin/keepout-bootguard", Mode: 0o755, Data: program(t, "./cmd/keepout-bootguard")},
	}
	for _, f := range all {
		if strings.HasPrefix(f.Name, "lib/modules/") && f.Data != nil || f.Name == "keepout/modules.json" {
			files = append(files, f)
		}
	}
	archive, err := initramfs.Bytes(files)
	if err != nil {
		t.Fatal(err)
	}
	return archive
}

// machineFiles is the EFI system partition of an armed machine, but for its loader.
func machineFiles(t testing.TB, img image.Image, trust []byte, state boot.State) map[string][]byte {
	t.Helper()
	files := espFiles(t, state)
	dir := t.TempDir()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := image.Install(dir, image.A, img); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		content, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files["keepout/"+e.Name()] = content
	}
	files["keepout/"+esp.Trust+"/"+intent.TrustFile] = trust
	files["guest.cpio"] = guestArchive(t, img)
	files["vmlinuz"] = img.Kernel
	return files
}

// grubMachine is a BIOS machine with GRUB, armed as "keepout recovery arm" does. state is that of its boots so far;
// extra are further kernel parameters of the system.
func grubMachine(t testing.TB, img image.Image, trust []byte, state boot.State, extra string) *testvm.Disk {
	t.Helper()
	files := machineFiles(t, img, trust, state)
	var env loader.Env
	env.Set(loader.EnvLeft, strconv.Itoa(state.Tries()))
	env.Set(loader.EnvVisits, strconv.Itoa(state.Recoveries))
	block, err := env.Encode()
	if err != nil {
		t.Fatal(err)
	}
	files["keepout/"+esp.GrubEnv] = block
	_, snippet, found := strings.Cut(string(packaging.Grub("/keepout")), "<< 'EOF'\n")
	snippet, _, closed := strings.Cut(snippet, "\nEOF\n")
	if !found || !closed {
		t.Fatal("the snippet for GRUB has another shape")
	}
	snippet = strings.NewReplacer("@REL@", "/keepout", "quiet loglevel=3", consoles).Replace(snippet)
	files["grub.cfg"] = []byte("serial --unit=0 --speed=115200\nterminal_output console serial\n" +
		"set timeout=0\nset default=system\nset keepout_esp=\"${root}\"\n" +
		"menuentry 'Debian' --id system --unrestricted {\n  linux /vmlinuz " + systemParameters + extra +
		"\n  initrd /guest.cpio\n}\n" + snippet + "\n")
	disk := testvm.NewDisk(t, files)
	disk.InstallGRUB("search --file --set=root /keepout/" + esp.StateA + "\nconfigfile (${root})/grub.cfg\n")
	return disk
}

// worn is a machine that has failed on every rung but the last before the recovery environment.
func worn() boot.State {
	s := boot.New()
	s.Failures, s.Mode, s.Next = 2, boot.LastKnownGood, boot.Safe
	return s
}

// threeFailures follows the machine through the rungs of the ladder.
func threeFailures(m *testvm.Machine) {
	for _, mode := range []string{"normal", "lkg", "safe"} {
		m.ExpectWithin("guest: boot is "+mode, storyTime)
		m.ExpectWithin("guest: starting "+guilty, storyTime)
	}
}

// TestRecoveryBIOS is the whole story on a BIOS machine: a provider ends the machine three times, on three rungs of
// the ladder; the recovery environment sends the panic home, gets a signed fix, and the machine starts without the
// provider.
func TestRecoveryBIOS(t *testing.T) {
	t.Parallel()
	testenv.Need(t, testenv.QEMU)
	o := newOrganisation(t)
	o.answer = func(q protocol.FixRequest) []byte {
		return o.seal(o.targeted("fix-bios", q.Digest, q.Suspect), o.keys[0], o.keys[1])
	}
	img := buildImage(t, o.source())
	disk := grubMachine(t, img, o.trustText(), boot.New(), "")
	m := testvm.Start(t, "bios", testvm.Spec{Disk: disk.File, ERST: testvm.NewERST(t), Reboots: true})
	threeFailures(m)
	begun := m.CPU()
	m.ExpectWithin("recovery environment: ", storyTime)
	m.ExpectWithin("Network: wired", storyTime)
	m.Screenshot("recovery")
	m.ExpectWithin("Next start: fix fix-bios", storyTime)
	m.ExpectWithin("keepout-rescue: restart", storyTime)
	t.Logf("recovery from loader to restart: %.1f s of processor time", (m.CPU() - begun).Seconds())
	m.ExpectWithin(`guest: boot is normal, attempt \d+, disabled \["`+guilty+`"\]`, storyTime)
	m.ExpectWithin("guest: healthy", storyTime)
	m.WaitExit(storyTime)

	wantPanic(t, o.lastBundle())
	if got := o.lastBundle().Failure; got.Suspect != guilty || got.Attempts != 3 {
		t.Errorf("the bundle suspects %q after %d attempts", got.Suspect, got.Attempts)
	}
	if r := o.lastReport(); r.Source != "server" || r.Fix != "fix-bios" {
		t.Errorf("report %+v", r)
	}
	s := stateOf(t, disk)
	if s.Failures != 0 || s.Recoveries != 0 || s.Next != boot.Normal {
		t.Errorf("after a good boot the state is %s", asJSON(t, s))
	}
}
