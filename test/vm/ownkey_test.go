package vm

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/keepout-security/keepout/internal/boot"
	"github.com/keepout-security/keepout/internal/recovery/esp"
	"github.com/keepout-security/keepout/internal/recovery/image"
	"github.com/keepout-security/keepout/internal/recovery/intent"
	"github.com/keepout-security/keepout/internal/recovery/protocol"
	"github.com/keepout-security/keepout/internal/testenv"
	"github.com/keepout-security/keepout/internal/testvm"
)

// owner is who put a key of their own into a machine's firmware.
type owner struct {
	t                  testing.TB
	dir, key, cert, id string
}

// newOwner makes a key as an owner does.
func newOwner(t testing.TB) *owner {
	t.Helper()
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "the owner of this machine"},
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	o := &owner{
		t: t, dir: dir, key: filepath.Join(dir, "owner.key"), cert: filepath.Join(dir, "owner.crt"),
		id: "4b454550-4f55-5400-8000-00000000000f",
	}
	err = errors.Join(os.WriteFile(o.key, pem.EncodeToMemory(&pem.Block{
		Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(private),
	}), 0o600), os.WriteFile(o.cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600),
		os.WriteFile(filepath.Join(dir, "owner.der"), der, 0o600))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// run runs one of sbsigntool's programs, which writes to a file, and returns what is in it.
func (o *owner) run(output, name string, args ...string) []byte {
	o.t.Helper()
	file := filepath.Join(o.dir, output)
	cmd := exec.CommandContext(o.t.Context(), name, append([]string{"--output", file}, args...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		o.t.Fatalf("%s: %v\n%s", name, err, out)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		o.t.Fatal(err)
	}
	return data
}

// sign signs a program of the firmware.
func (o *owner) sign(program []byte) []byte {
	o.t.Helper()
	file := filepath.Join(o.dir, "unsigned.efi")
	if err := os.WriteFile(file, program, 0o600); err != nil {
		o.t.Fatal(err)
	}
	return o.run("signed.efi", "sbsign", "--key", o.key, "--cert", o.cert, file)
}

// attributes are those that systemd-boot writes the firmware's keys with; the signature covers them.
const attributes = "NON_VOLATILE,BOOTSERVICE_ACCESS,RUNTIME_ACCESS,TIME_BASED_AUTHENTICATED_WRITE_ACCESS"

// enrolment is what systemd-boot puts into firmware that has no keys yet: from then on, nothing is started that this
// owner has not signed.
func (o *owner) enrolment() map[string][]byte {
	o.t.Helper()
	o.run("owner.esl", "sbsiglist", "--owner", o.id, "--type", "x509", filepath.Join(o.dir, "owner.der"))
	files := map[string][]byte{}
	for _, variable := range []string{"db", "KEK", "PK"} {
		files["loader/keys/auto/"+variable+".auth"] = o.run(variable+".auth", "sbvarsign", "--key", o.key, "--cert", o.cert,
			"--attr", attributes, variable, filepath.Join(o.dir, "owner.esl"))
	}
	return files
}

// ownMachine is a UEFI machine with systemd-boot whose owner signs: the first copy of the recovery environment was
// built and never signed, the second one was.
func ownMachine(t testing.TB, o *owner, img image.Image, trust []byte) *testvm.Disk {
	t.Helper()
	stub, err := os.ReadFile(testenv.EFIStub)
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(systemdBoot)
	if err != nil {
		t.Fatal(err)
	}
	files := espFiles(t, worn())
	files["keepout/"+esp.Trust+"/"+intent.TrustFile] = trust
	files["EFI/BOOT/BOOTX64.EFI"] = o.sign(program)
	files["loader/loader.conf"] = []byte("timeout 0\nsecure-boot-enroll force\n")
	for name, content := range o.enrolment() {
		files[name] = content
	}
	for slot, names := range map[image.Slot][2]string{
		image.A: {"-keepout-recovery-2+1.conf", esp.UnifiedA}, image.B: {"-keepout-recovery-1.conf", esp.UnifiedB},
	} {
		unified, err := image.Unify(img, slot, stub, consoles+" loglevel=6")
		if err != nil {
			t.Fatal(err)
		}
		if slot == image.B {
			unified = o.sign(unified)
		}
		files["keepout/"+names[1]] = unified
		files["loader/entries/"+names[0]] = []byte("title Recovery " + string(slot) + "\nefi /keepout/" + names[1] + "\n")
	}
	return testvm.NewDisk(t, files)
}

// TestRecoveryFullOwnKey: with Secure Boot on and only the owner's key in the firmware, a unified image that nobody has
// signed is refused, and the refusal is counted; the signed copy starts, with the kernel locked down, loads its
// modules, gets on the network, and repairs.
func TestRecoveryFullOwnKey(t *testing.T) {
	t.Parallel()
	testenv.Need(t, testenv.QEMU, testenv.Signing)
	o := newOrganisation(t)
	o.answer = func(q protocol.FixRequest) []byte {
		return o.seal(o.targeted("fix-own-key", q.Digest, guilty), o.keys[0], o.keys[1])
	}
	disk := ownMachine(t, newOwner(t), buildImage(t, o.source()), o.trustText())
	m := testvm.Start(t, "own-key", testvm.Spec{
		Firmware: testvm.SecureBoot, Vars: testvm.Vars(t, testvm.UEFI), Disk: disk.File, Reboots: true,
	})
	story := testvm.Tell(m, "Secure Boot with the owner's own key: systemd-boot, unified images")
	m.ExpectText("Enrolling secure boot keys", storyTime)
	story.Say("the firmware has no keys; systemd-boot puts the owner's there, and starts the machine again")
	m.ExpectText("Error loading \\keepout\\recovery-a.efi: Access Denied", storyTime)
	story.Show("refused", "the first copy is not signed: the firmware refuses it, and that try is counted")
	m.Reset()
	story.Wait("Kernel is locked down from EFI Secure Boot", storyTime,
		"the second copy is signed, and starts: Secure Boot is on, and the kernel locked down")
	story.Wait("keepout-rescue: recovery environment: ", storyTime, "the environment runs")
	m.ExpectWithin("Network: wired", storyTime)
	story.Wait("Next start: fix fix-own-key", storyTime,
		"its modules are the distribution's, which this kernel takes: it has a disk and a network")
	testvm.WantPicture(t, story.Show("repaired", "what the next start will do"))
	m.ExpectWithin("keepout-rescue: restart", storyTime)
	m.Kill()

	if r := o.lastReport(); r.Source != "server" || r.Fix != "fix-own-key" {
		t.Errorf("report %+v", r)
	}
	names := disk.List("loader/entries")
	slices.Sort(names)
	if want := []string{"-keepout-recovery-1.conf", "-keepout-recovery-2+0-1.conf"}; !slices.Equal(names, want) {
		t.Errorf("the entries are %q, want %q", names, want)
	}
	if s := stateOf(t, disk); s.Recoveries != 1 || s.Next != boot.Normal {
		t.Errorf("the state is %s", asJSON(t, s))
	}
}
