package vm

import (
	"reflect"
	"testing"

	"github.com/keepout-security/keepout/internal/boot"
	"github.com/keepout-security/keepout/internal/recovery/esp"
	"github.com/keepout-security/keepout/internal/recovery/protocol"
	"github.com/keepout-security/keepout/internal/recovery/remediation"
	"github.com/keepout-security/keepout/internal/testenv"
	"github.com/keepout-security/keepout/internal/testvm"
)

// TestRecoveryRehearsal is "keepout recovery test" on a real machine: a good boot asks for it, the real environment
// starts, gets on the network, sends its report, finds and verifies a harmless signed fix, comes back, and left
// nothing but a report.
func TestRecoveryRehearsal(t *testing.T) {
	t.Parallel()
	testenv.Need(t, testenv.QEMU)
	o := newOrganisation(t)
	o.answer = func(q protocol.FixRequest) []byte {
		f := o.targeted("harmless", q.Digest, guilty)
		f.Actions, f.Test, f.Reason = []remediation.Action{{Verb: remediation.Collect}}, true, "a rehearsal"
		if q.Attempt == 1 { // a real fix, which a rehearsal must not take
			f = o.targeted("real", q.Digest, guilty)
		}
		return o.seal(f, o.keys[0], o.keys[1])
	}
	img := buildImage(t, o.source())
	disk := grubMachine(t, img, o.trustText(), boot.New(), " guest.rehearse=1")
	m := testvm.Start(t, "rehearsal", testvm.Spec{Disk: disk.File, ERST: testvm.NewERST(t), Reboots: true})
	story := testvm.Tell(m, "A rehearsal: through the real recovery environment and back")
	story.Wait("guest: boot is normal", storyTime, "the system starts as configured")
	story.Wait("guest: asks for a rehearsal", storyTime, "it is good; the next restart is a rehearsal")
	story.Wait("keepout-rescue: recovery environment: ", storyTime, "the loader starts the recovery environment, once")
	m.ExpectWithin("Network: wired", storyTime)
	testvm.WantPicture(t, story.Show("rehearsal", "the screen says that this is a rehearsal"))
	story.Wait("a fix was refused: .*rehearsal", storyTime, "a fix that is no rehearsal's is refused")
	story.Wait("keepout-rescue: restart", storyTime, "the harmless fix was found and verified; the machine restarts")
	story.Wait("guest: boot is normal, attempt 1, ", storyTime, "the system starts as if nothing had been")
	line := m.ExpectWithin("guest: rehearsal passed", storyTime)
	story.Say("the report: %s", line)
	m.WaitExit(storyTime)

	for _, want := range []string{"passed true", `fix "harmless"`, `trouble ""`} {
		testvm.WantText(t, line, want)
	}
	if r := o.lastReport(); !r.Test || r.Source != "test" || r.Fix != "harmless" {
		t.Errorf("report %+v", r)
	}
	s := stateOf(t, disk)
	if s.Failures != 0 || s.Recoveries != 0 || s.Next != boot.Normal || !reflect.DeepEqual(s.Orders, boot.Orders{}) {
		t.Errorf("the state is %s", asJSON(t, s))
	}
	if _, there := disk.Get("keepout/" + esp.Rehearsal); there {
		t.Error("the next visit would be a rehearsal, too")
	}
	if left := disk.List("keepout/" + esp.Intents); len(left) > 0 {
		t.Errorf("a rehearsal left the intents %q", left)
	}
}
