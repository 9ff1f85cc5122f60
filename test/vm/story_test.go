package vm

import (
	"fmt"
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

// worn is a machine that has failed on every rung but the last before the recovery environment, with guilty.
func worn() boot.State {
	s := boot.New()
	s.Failures, s.Mode, s.Next = 2, boot.LastKnownGood, boot.Safe
	s.Suspect = boot.Crumb{Boot: "a", Provider: guilty, Engine: "7.2", Content: "291"}
	return s
}

// threeFailures follows the machine through the rungs of the ladder.
func threeFailures(s *testvm.Story, m *testvm.Machine) {
	for i, rung := range []struct{ mode, told string }{
		{"normal", "as configured"}, {"lkg", "with last-known-good content"}, {"safe", "in safe mode"},
	} {
		s.Wait("guest: boot is "+rung.mode, storyTime, "start %d: bootguard counts it and runs it %s", i+1, rung.told)
		m.ExpectWithin("guest: starting "+guilty, storyTime)
		m.ExpectWithin("Kernel panic - not syncing", storyTime)
		m.ExpectWithin("Kernel Offset", storyTime) // its last line before the log is kept: all of it can be seen now
		s.Show(fmt.Sprintf("panic-%d", i+1), "start %d ends: %s, started early by its vendor's own unit, panics the kernel",
			i+1, guilty)
	}
}

// Limits of the recovery environment in software emulation, in seconds since its kernel's start.
const (
	screenLimit = 4
	repairLimit = 10
)

// repaired follows the recovery environment from its first line to its restart with a fix of the server, and measures.
func repaired(s *testvm.Story, m *testvm.Machine, fix string) (picture string) {
	begun := m.CPU()
	s.Wait("keepout-rescue: recovery environment: ", storyTime, "start 4: the loader starts the recovery environment")
	first := m.CPU()
	screen := testvm.SecondsAfter(s.T(), m.ExpectWithin("keepout-rescue: screen: ", storyTime))
	s.Wait("Diagnostics saved", storyTime, "the kernel's last words and a diagnostics bundle are saved")
	m.ExpectWithin("Network: wired", storyTime)
	picture = s.Show("recovery", "the black screen says what happened; the machine is on the network")
	s.Wait("Next start: fix "+fix, storyTime,
		"the server's fix has two signatures, answers this report, and is written down")
	s.Show("fix", "what the next start will do, and why")
	end := m.ExpectWithin("keepout-rescue: restart", storyTime)
	s.Say("the machine restarts by itself")
	s.Measure("from the kernel's start to the screen", screen, screenLimit, "s")
	s.Measure("from the kernel's start to the repair's end", testvm.SecondsAfter(s.T(), end), repairLimit, "s")
	s.Say("measured: %.1f s of processor time from the last panic to the restart, %.1f s of them since the environment's "+
		"first line", (m.CPU() - begun).Seconds(), (m.CPU() - first).Seconds())
	return picture
}

// back follows the machine to its good boot.
func back(s *testvm.Story, m *testvm.Machine) {
	m.ExpectWithin(`guest: boot is normal, attempt \d+, disabled \["`+guilty+`"\]`, storyTime)
	s.Say("start 5: bootguard verifies the fix again, applies it, and the system starts without %s", guilty)
	s.Wait("guest: healthy", storyTime, "the boot is good: every count is taken back")
	m.WaitExit(storyTime)
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
	story := testvm.Tell(m, "A machine that does not start, and comes back: BIOS, GRUB")
	threeFailures(story, m)
	repaired(story, m, "fix-bios")
	back(story, m)

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
