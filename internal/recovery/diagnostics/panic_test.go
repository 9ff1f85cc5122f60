package diagnostics

import (
	"slices"
	"strings"
	"testing"
)

func lines(text string) []string { return strings.Split(text, "\n") }

func TestParsePanic(t *testing.T) {
	t.Parallel()
	p := ParsePanic(lines(panicText))
	want := []string{"acme_scan [acme]", "acme_open [acme]", "do_syscall_64"}
	if !slices.Equal(p.Frames, want) || p.Tainted != "G           OE" {
		t.Errorf("frames %q, tainted %q", p.Frames, p.Tainted)
	}
	if p.Cause != "Kernel panic - not syncing: Fatal exception in interrupt" ||
		p.Bug != "BUG: kernel NULL pointer dereference, address: 0000000000000010" {
		t.Errorf("cause %q, bug %q", p.Cause, p.Bug)
	}
	arm := ParsePanic(lines("[ 1.0] pc : acme_scan+0x2a/0x90 [acme]\n[ 1.1] Call trace:\n" +
		"[ 1.2]  acme_open+0x1/0x2 [acme 1234]\n"))
	if !slices.Equal(arm.Frames, want[:2]) {
		t.Errorf("arm64: frames %q", arm.Frames)
	}
}

// TestSignature: other addresses, times, processors, compilers and versions are the same failure; another function is
// not.
func TestSignature(t *testing.T) {
	t.Parallel()
	sign := func(text string, f Failure) Signature {
		p := ParsePanic(lines(text))
		return Sign(&p, &f)
	}
	first := sign(panicText, Failure{})
	again := strings.NewReplacer("0x2a/0x90", "0x31/0xa0", "3.41", "99.77", "PID: 301", "PID: 7", ".isra.0",
		".constprop.3",
		"0000000000000010", "0000000000000018", "6.1.0-56", "6.12.9").Replace(panicText)
	if got := sign(again, Failure{Starting: "other"}); got.ID != first.ID || got.Title != first.Title {
		t.Errorf("the same failure has signatures %+v and %+v", first, got)
	}
	if got := sign(strings.ReplaceAll(panicText, "acme_scan", "acme_load"), Failure{}); got.ID == first.ID {
		t.Error("two failures have one signature")
	}
	if first.Title != "acme_scan [acme]: BUG: kernel NULL pointer dereference, address: N" {
		t.Errorf("title %q", first.Title)
	}
	sysrq := "Kernel panic - not syncing: sysrq triggered crash on CPU 3\n"
	other := strings.Replace(sysrq, "3", "0", 1)
	if a, b := sign(sysrq, Failure{}), sign(other, Failure{}); a.ID != b.ID {
		t.Errorf("%q and %q differ", a.Title, b.Title)
	}
	a, b, c := sign("", Failure{Starting: "a"}), sign("", Failure{Starting: "b"}), sign("", Failure{Attempts: 3})
	if a.ID == b.ID || a.ID == c.ID || c.Title != "stopped without a message" {
		t.Error("failures without a message are told apart by what was starting")
	}
}

func FuzzParsePanic(f *testing.F) {
	f.Add(panicText)
	f.Add("RIP: 0010:\x00+0x1/0x2\nCall Trace:\n a+0x1/0x2 [")
	f.Fuzz(func(t *testing.T, text string) {
		p := ParsePanic(lines(text))
		s := Sign(&p, &Failure{})
		if len(p.Frames) > maxFrames || !isHex(s.ID, 16) {
			t.Fatalf("%d frames, id %q", len(p.Frames), s.ID)
		}
	})
}
