package vm

import (
	"bytes"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/keepout-security/keepout/internal/boot"
	"github.com/keepout-security/keepout/internal/recovery/esp"
	"github.com/keepout-security/keepout/internal/testenv"
	"github.com/keepout-security/keepout/internal/testvm"
)

// faultUnit does, in boots that run as configured, what /boot/efi/fault.txt says.
const (
	faultUnit = `[Unit]
Description=A fault for the test
DefaultDependencies=no
After=keepout-bootguard.service local-fs.target
Before=sysinit.target

[Service]
Type=oneshot
ExecStart=/bin/sh /usr/lib/acme/fault
TimeoutStartSec=infinity
StandardOutput=tty
TTYPath=/dev/ttyS0
`
	faultScript = `instruction=$(tr -d '\n' < /run/keepout/boot.json)
echo "guest: instruction $instruction"
fault=$(cat /boot/efi/fault.txt 2>/dev/null)
case $instruction in *'"mode": "normal"'*) ;; *) fault= ;; esac
echo "guest: fault is ${fault:-none}"
case $fault in
hang) exec sleep infinity ;;
crash) kill -SEGV 1; exec sleep infinity ;;
esac
`
	// The deadline of arming is ten minutes; a person may set another one.
	deadlineUnit = "[Unit]\nJobTimeoutSec=90s"
)

func faultFiles() map[string]testvm.File {
	const units = "/etc/systemd/system/"
	return map[string]testvm.File{
		units + "test-fault.service":             testvm.Text(faultUnit),
		"/usr/lib/acme/fault":                    testvm.Text(faultScript),
		units + "sysinit.target.d/zz-story.conf": testvm.Text(deadlineUnit),
	}
}

// TestRecoveryFullFaults plays what goes wrong on one armed Debian system, each on a copy of it.
func TestRecoveryFullFaults(t *testing.T) {
	t.Parallel()
	testenv.Need(t, testenv.QEMU, testenv.Debootstrap)
	armed := debianUEFI(t, nil, faultFiles())
	armed.install("arming")
	armed.arm()
	armed.Run("ln -s ../test-fault.service /etc/systemd/system/sysinit.target.wants/")
	armed.off()
	for name, story := range map[string]func(d *debian){
		"hang": hangs, "pid1": crashes, "powercut": losesPower,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := &debian{t: t, dir: armed.dir, spec: armed.spec, disk: armed.disk.Copy(t)}
			d.spec.Root, d.spec.Vars = testvm.CopyDisk(t, armed.spec.Root), testvm.CopyDisk(t, armed.spec.Vars)
			story(d)
		})
	}
}

// hangs: a unit that never ends, before anything else could end it. The deadline restarts, and that counts.
func hangs(d *debian) {
	d.disk.Put("fault.txt", []byte("hang\n"))
	d.start("debian")
	d.ExpectWithin("guest: fault is hang", debianTime)
	d.counted()
}

// crashes: PID 1 crashes, and restarts the machine instead of standing still. What it says then goes to the journal,
// and is lost; who has crashed keeps no deadline either, so that a restart can only be what arming asked for.
func crashes(d *debian) {
	d.disk.Put("fault.txt", []byte("crash\n"))
	d.start("debian")
	d.ExpectWithin("guest: fault is crash", debianTime)
	d.ExpectWithin("reboot: Restarting system", debianTime)
	d.counted()
}

// counted follows a machine that did not come up to its second attempt, which does.
func (d *debian) counted() {
	t, begun := d.t, time.Now()
	t.Helper()
	d.ExpectWithin(`guest: instruction .*"mode": "lkg", +"attempt": 2`, debianTime)
	t.Logf("the machine was on its second attempt %v later", time.Since(begun).Round(time.Second))
	d.AwaitShell(debianTime)
	s := d.status()
	if s.Attempt != 2 || s.Mode != boot.LastKnownGood || s.Left != 1 || len(s.State.History) == 0 ||
		s.State.History[0].What != boot.Failed {
		t.Errorf("after one failure: %s", asJSON(t, s))
	}
	d.off()
}

// cuts is how often the power is cut, each time at the moment at which somebody counts: the loader, bootguard, and,
// when they have counted enough, the recovery environment.
const cuts = 6

// mostStarts is how often a machine without a fault may start after the cuts until it is up, or waits for a person: the
// recovery environment may come first, once, and the boot after it.
const mostStarts = 3

// losesPower cuts the power while the loader or bootguard counts. Then the machine is left alone: it comes up, or its
// recovery environment waits for a person.
func losesPower(d *debian) {
	t := d.t
	chance := rand.New(rand.NewPCG(291, 719)) // the same moments in every run
	for i := range cuts {
		before, err := os.ReadFile(d.disk.File)
		if err != nil {
			t.Fatal(err)
		}
		places := d.countingPlaces(i%2 == 0)
		later := time.Duration(chance.IntN(30_000)) * time.Microsecond
		d.start("cut-" + string(rune('0'+i)))
		d.cutAt(places, before, later)
		torn := 0
		if chance.IntN(2) == 0 {
			torn = d.tear(before, chance)
		}
		t.Logf("cut %d: %v after the first change, %v after the start; %d sectors are as they were", i, later,
			time.Since(d.Started).Round(time.Second), torn)
	}
	d.start("after")
	d.ExpectWithin("guest: system is up|Nothing more happens by itself", 2*debianTime)
	d.Screenshot("after")
	if d.Serial.Count("guest: system is up") > 0 {
		d.AwaitShell(debianTime)
		t.Logf("after %d power cuts: %s\n%s", cuts, asJSON(t, d.status()), d.Run("ls "+d.dir+"/../loader/entries"))
	}
	if n := d.Serial.Count("guest: instruction|recovery environment: "); n > mostStarts {
		t.Errorf("the machine started %d times before it came up or stopped", n)
	}
}

// place is a part of the disk image.
type place struct{ at, size int64 }

// countingPlaces are where a boot is counted on the disk: the names of systemd-boot's entries, and, without loader,
// only the copies of the state.
func (d *debian) countingPlaces(loader bool) (out []place) {
	for _, name := range []string{esp.StateA, esp.StateB} {
		content, ok := d.disk.Get("keepout/" + name)
		if at := d.disk.Find(content); ok && at >= 0 {
			out = append(out, place{at: at, size: int64(len(content))})
		}
	}
	if !loader {
		return out
	}
	// A long name is in pieces, the first of which are at most five letters, two bytes each.
	var piece []byte
	for _, unit := range utf16.Encode([]rune("-keep")) {
		piece = append(piece, byte(unit), byte(unit>>8))
	}
	if at := d.disk.Find(piece); at >= 0 {
		const folder = 2048
		out = append(out, place{at: at / folder * folder, size: folder})
	}
	return out
}

// cutAt ends the machine some time after the first change of a place.
func (d *debian) cutAt(places []place, before []byte, later time.Duration) {
	d.t.Helper()
	f, err := os.Open(d.disk.File)
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	changed := func(p place) bool {
		now := make([]byte, p.size)
		if _, err := f.ReadAt(now, p.at); err != nil {
			d.t.Fatal(err)
		}
		return !bytes.Equal(now, before[p.at:p.at+p.size])
	}
	for end := time.Now().Add(debianTime); !slices.ContainsFunc(places, changed); time.Sleep(200 * time.Microsecond) {
		if time.Now().After(end) {
			d.t.Fatalf("nothing was counted:\n%s", strings.Join(d.Serial.Lines(), "\n"))
		}
	}
	time.Sleep(later)
	d.Kill()
}

// tear takes back some of the sectors that changed, as a disk does that wrote them in another order, or not at all. It
// returns how many.
func (d *debian) tear(before []byte, chance *rand.Rand) (torn int) {
	d.t.Helper()
	const sector = 512
	f, err := os.OpenFile(d.disk.File, os.O_RDWR, 0)
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	now := make([]byte, len(before))
	if _, err := f.ReadAt(now, 0); err != nil {
		d.t.Fatal(err)
	}
	for at := 0; at < len(now); at += sector {
		old := before[at : at+sector]
		if bytes.Equal(now[at:at+sector], old) || chance.IntN(2) == 0 {
			continue
		}
		if _, err := f.WriteAt(old, int64(at)); err != nil {
			d.t.Fatal(err)
		}
		torn++
	}
	return torn
}
