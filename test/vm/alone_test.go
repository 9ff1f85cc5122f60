package vm

import (
	"crypto/ed25519"
	"testing"
	"time"

	"github.com/keepout-security/keepout/internal/boot"
	"github.com/keepout-security/keepout/internal/recovery/protocol"
	"github.com/keepout-security/keepout/internal/recovery/remediation"
	"github.com/keepout-security/keepout/internal/testenv"
	"github.com/keepout-security/keepout/internal/testvm"
)

// TestRecoveryOffline: without a network the machine helps itself, and starts without the provider that was starting
// when it failed.
func TestRecoveryOffline(t *testing.T) {
	t.Parallel()
	testenv.Need(t, testenv.QEMU)
	o := newOrganisation(t)
	source := o.source()
	source.Settings.NetworkSeconds = 5
	img := buildImage(t, source)
	disk := grubMachine(t, img, o.trustText(), worn(), "")
	m := testvm.Start(t, "offline", testvm.Spec{
		Disk: disk.File, ERST: testvm.NewERST(t), Reboots: true, Offline: true,
	})
	m.ExpectWithin("guest: boot is safe", storyTime)
	m.ExpectWithin("recovery environment: ", storyTime)
	m.ExpectWithin("there is no wired network card", storyTime)
	testvm.WantPicture(t, m.Screenshot("offline"))
	m.ExpectWithin("Next start: start without ACME AV", storyTime)
	m.ExpectWithin(`disabled \["`+guilty+`"\]`, storyTime)
	m.ExpectWithin("guest: healthy", storyTime)
	m.WaitExit(storyTime)
	if s := stateOf(t, disk); s.Orders.Source != "local-rule" || s.Failures != 0 {
		t.Errorf("the state is %s", asJSON(t, s))
	}
}

// badFixes is a server whose fixes are refused, but for a campaign in each visit that helps nobody.
func badFixes(o *organisation) func(q protocol.FixRequest) []byte {
	campaign := func(id string, sequence uint64) *remediation.Fix {
		f := o.targeted(id, "", "somebody-else")
		f.Kind, f.Bundle, f.Sequence = remediation.Campaign, "", sequence
		f.Symptom.Provider = guilty
		return f
	}
	return func(q protocol.FixRequest) []byte {
		both := o.keys[:]
		switch q.Attempt {
		case 1: // forged: by strangers, and by one key of the organisation only
			return o.seal(o.targeted("forged", q.Digest, guilty), keyFrom("a stranger"), both[0])
		case 2:
			f := o.targeted("expired", q.Digest, guilty)
			f.Issued, f.Expires = built().Add(-48*time.Hour), built().Add(-24*time.Hour)
			return o.seal(f, both...)
		case 3:
			f := o.targeted("foreign", q.Digest, guilty)
			f.Machines.IDs = []string{"ffffffffffffffffffffffffffffffff"}
			return o.seal(f, both...)
		}
		switch {
		case q.Visits > 1 && q.Attempt == 4:
			return o.seal(campaign("useless", 7), both...) // the one of the first visit again
		case q.Visits > 1 && q.Attempt < 7:
			return o.seal(campaign("withdrawn", 99), both...)
		}
		return o.seal(campaign("useless", 6+uint64(q.Visits)), both...)
	}
}

// withdrawal takes a fix back in one answer only; before it, a stranger takes back what the machine still needs.
func withdrawal(o *organisation) func(q protocol.FixRequest) [][]byte {
	revocation := func(id string, key ed25519.PrivateKey) []byte {
		f := o.targeted("revoke-"+id, "", "nobody")
		f.Kind, f.Bundle, f.Actions, f.Machines, f.Revokes = remediation.Revocation, "", nil, remediation.Selector{},
			[]string{id}
		return o.seal(f, key)
	}
	return func(q protocol.FixRequest) [][]byte {
		if q.Visits > 1 && q.Attempt == 5 {
			return [][]byte{revocation("useless", keyFrom("a stranger")), revocation("withdrawn", o.keys[1])}
		}
		return nil
	}
}

// TestRecoveryBadFixesAndLoopGuard: what is forged, expired, for another machine, applied before or taken back is
// refused and said, also when the server then keeps silent about what was taken back, and a stranger takes nothing
// back; a machine that nothing helps ends at the menu after two visits, and stays there.
func TestRecoveryBadFixesAndLoopGuard(t *testing.T) {
	t.Parallel()
	testenv.Need(t, testenv.QEMU)
	o := newOrganisation(t)
	o.answer, o.revoke = badFixes(o), withdrawal(o)
	img := buildImage(t, o.source())
	disk := grubMachine(t, img, o.trustText(), worn(), " guest.stubborn=1")
	m := testvm.Start(t, "bad", testvm.Spec{Disk: disk.File, ERST: testvm.NewERST(t), Reboots: true})
	for visit := range 2 {
		m.ExpectWithin("guest: starting "+guilty, storyTime)
		m.ExpectWithin("recovery environment: ", storyTime)
		for _, code := range []string{"sign", "expired", "other machines"} {
			m.ExpectWithin("a fix was refused: .*"+code, storyTime)
		}
		if visit == 1 {
			m.ExpectWithin("a fix was refused: .*was taken already", storyTime)
			m.ExpectWithin("a revocation was refused: ", storyTime)
			for range 2 {
				m.ExpectWithin("a fix was refused: .*withdrawn was taken back", storyTime)
			}
		}
		m.ExpectWithin("Next start: fix useless", storyTime)
		m.ExpectWithin("guest: boot is normal", storyTime)
		m.ExpectWithin("guest: boot is safe", storyTime)
	}
	m.ExpectWithin("guest: starting "+guilty, storyTime)
	m.ExpectText("(second copy)", storyTime) // GRUB's menu: the loader, too, starts nothing by itself any more
	time.Sleep(3 * time.Second)              // for the picture only: the screen is drawn more slowly
	m.Screenshot("loader")
	m.PressUntil("down", "*Keepout recovery environment  ", storyTime)
	m.PressUntil("ret", "keepout-rescue: recovery environment: ", storyTime)
	m.ExpectWithin("recovery environment: ", storyTime)
	m.ExpectWithin("Nothing more happens by itself", storyTime)
	testvm.WantPicture(t, m.Screenshot("menu"))
	m.Press("f2")
	time.Sleep(3 * time.Second) // for the picture only
	m.Screenshot("details")
	m.Press("f10")
	m.ExpectWithin("keepout-rescue: power-off", storyTime)
	m.WaitExit(storyTime)
	if s := stateOf(t, disk); s.Next != boot.Menu || s.Recoveries != boot.MaxRecoveries {
		t.Errorf("the state is %s", asJSON(t, s))
	}
}
