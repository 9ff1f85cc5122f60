package diagnostics

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

// panicText is what Linux 6.1 prints, shortened.
const panicText = `<4>[    3.400000] Modules linked in: acme(OE) fat
<1>[    3.412000] BUG: kernel NULL pointer dereference, address: 0000000000000010
<4>[    3.412100] CPU: 1 PID: 301 Comm: acmed Tainted: G           OE      6.1.0-56-amd64 #1  Debian 6.1.192-1
<4>[    3.412200] RIP: 0010:acme_scan+0x2a/0x90 [acme]
<4>[    3.413000] Call Trace:
<4>[    3.413100]  <TASK>
<4>[    3.413200]  dump_stack_lvl+0x44/0x5c
<4>[    3.413300]  ? acme_guess+0x10/0x20 [acme]
<4>[    3.413400]  acme_scan.isra.0+0x2a/0x90 [acme]
<4>[    3.413500]  acme_open+0x11/0x30 [acme]
<4>[    3.413600]  do_syscall_64+0x55/0xb0
<4>[    3.413700]  </TASK>
<4>[    3.414000] ---[ end trace 0000000000000000 ]---
<0>[    3.415000] Kernel panic - not syncing: Fatal exception in interrupt
`

func input() *Input {
	return &Input{
		MachineID: "0123456789abcdef0123456789abcdef", Nonce: bytes.Repeat([]byte{7}, 16), Now: time.Unix(1_784_000_000, 0),
		Failure: Failure{
			Attempts: 3, Visits: 1, Starting: "acme-av", Suspect: "acme-av",
			Reason: "it changed on host pc-of-bob",
		},
		Versions: Versions{Keepout: "1.0", Kernel: "6.1.0-56-amd64", System: "Debian GNU/Linux 12 (bookworm)"},
		Providers: []Provider{{
			ID: "acme-av", Engine: Slots{Active: "7.2", LKG: "7.2"}, Content: Slots{Active: "291", LKG: "290"},
		}},
		Changes:  []Change{{Code: "provider.promoted", Provider: "acme-av", What: "content 290→291"}},
		Units:    []Unit{{Name: "acme.service", Result: "failed/failed"}},
		Timings:  []Timing{{Phase: "kernel", Milliseconds: 900}},
		Crashes:  []Crash{{Provider: "acme-av", Signature: "signal 11 in scan", Count: 2}},
		Starts:   []Start{{What: "failed", Mode: "normal", Why: "pc-of-bob stopped"}},
		PanicLog: []byte(panicText), Known: Known{Hosts: []string{"pc-of-bob"}},
	}
}

func make1(t testing.TB, in *Input, level Level) (Bundle, []byte) {
	t.Helper()
	b, encoded, err := Make(in, level)
	if err != nil {
		t.Fatal(err)
	}
	decoded, err := Decode(encoded)
	if err != nil {
		t.Fatalf("a bundle that was made is not read: %v", err)
	}
	if again, err := decoded.Encode(); err != nil || !bytes.Equal(again, encoded) {
		t.Errorf("decoding and encoding change a bundle: %v", err)
	}
	return b, encoded
}

func TestLevels(t *testing.T) {
	t.Parallel()
	if _, _, err := Make(input(), Off); !errors.Is(err, ErrOff) {
		t.Errorf("level off: %v", err)
	}
	full, fullBytes := make1(t, input(), Full)
	if len(full.Panic) != 14 || len(full.Changes) != 1 || full.Failure.Reason != "it changed on host [host]" {
		t.Errorf("level full lacks something: %+v", full)
	}
	if full.Failure.Cause != "Kernel panic - not syncing: Fatal exception in interrupt" {
		t.Errorf("cause %q", full.Failure.Cause)
	}
	minimal, minimalBytes := make1(t, input(), Minimal)
	for _, text := range []string{
		"BUG:", "acme_scan [acme]: ", "pc-of", "signal 11", "kernel NULL", "content 290",
		"acme.service",
	} {
		if bytes.Contains(minimalBytes, []byte(text)) {
			t.Errorf("level minimal holds %q", text)
		}
	}
	if minimal.Signature.ID != full.Signature.ID || minimal.Providers[0].Content.Active != "291" {
		t.Error("a failure has another signature, or no versions, at level minimal")
	}
	if bytes.Contains(fullBytes, []byte("0123456789abcdef0123456789abcdef")) || minimal.Machine != full.Machine {
		t.Error("the machine id is in the bundle, or its pseudonym differs")
	}
}

func TestTheCallersInputStays(t *testing.T) {
	t.Parallel()
	in, same := input(), input()
	make1(t, in, Full)
	make1(t, in, Minimal)
	if !reflect.DeepEqual(in, same) {
		t.Error("making a bundle changed the input")
	}
}

// TestHugePanicLog: 10 MB of panic text are cut at both ends of the gap, and it is said.
func TestHugePanicLog(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	for i := 0; log.Len() < 10<<20; i++ {
		fmt.Fprintf(&log, "<6>[%5d.%06d] some line of a very long log with address %x \"quoted\\\n", i/1000, i%1000, i)
	}
	of := log.Len() + len(panicText)
	log.WriteString(panicText)
	in := input()
	in.PanicLog = log.Bytes()
	b, encoded := make1(t, in, Full)
	if len(encoded) > MaxBundle || len(encoded) < MaxBundle/4 {
		t.Errorf("%d bytes", len(encoded))
	}
	if !strings.Contains(b.Panic[0], "[    0.000000]") || !strings.Contains(b.Panic[len(b.Panic)-1], "Kernel panic") {
		t.Errorf("begins %q, ends %q", b.Panic[0], b.Panic[len(b.Panic)-1])
	}
	if len(b.Cuts) == 0 || b.Cuts[0].Of != int64(of) || b.Cuts[0].Kept > maxPanicHead+maxPanicTail {
		t.Errorf("cuts %+v, of %d bytes", b.Cuts, of)
	}
	if !strings.Contains(strings.Join(b.Panic, "\n"), "bytes left out here") {
		t.Error("the gap is not marked where it is")
	}
	if _, small := make1(t, input(), Full); b.Signature.ID != mustDecode(t, small).Signature.ID {
		t.Error("the length of a log changes the signature")
	}
}

func mustDecode(t testing.TB, encoded []byte) Bundle {
	t.Helper()
	b, err := Decode(encoded)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestEverythingAtOnce: the worst of every list still fits, and what was cut is said.
func TestEverythingAtOnce(t *testing.T) {
	t.Parallel()
	in := input()
	long := strings.Repeat("\"", 1000)
	for range 300 {
		in.Changes = append(in.Changes, Change{Code: long, Provider: long, What: long})
		in.Providers = append(in.Providers, Provider{ID: long, State: long, Engine: Slots{long, long, long, long, long}})
		in.Units = append(in.Units, Unit{Name: long, Result: long})
		in.Modules = append(in.Modules, Module{Name: long, Taint: long, Owner: long})
		in.Crashes = append(in.Crashes, Crash{Provider: long, Signature: long})
		in.Starts = append(in.Starts, Start{What: long, Mode: long, Why: long})
		in.Timings = append(in.Timings, Timing{Phase: long})
		in.Taint = append(in.Taint, long)
	}
	in.Failure = Failure{Starting: long, Suspect: long, Reason: long, Cause: long}
	in.PanicLog = bytes.Repeat([]byte(strings.Repeat("\x01", 100)+"\n"), 1<<12)
	b, encoded := make1(t, in, Full)
	if len(encoded) > MaxBundle || len(b.Cuts) < 8 {
		t.Errorf("%d bytes, cuts %+v", len(encoded), b.Cuts)
	}
	if b.Signature.ID == "" || len(b.Providers) == 0 {
		t.Error("what matters most was cut")
	}
}

func TestOddPanicLogs(t *testing.T) {
	t.Parallel()
	for name, log := range map[string][]byte{
		"empty": nil, "one endless line": bytes.Repeat([]byte("x"), 1<<20), "zeros": make([]byte, 1<<20),
		"newlines": bytes.Repeat([]byte("\n"), 1<<20), "bad bytes": bytes.Repeat([]byte("\xff\xfe\n"), 1<<18),
		"escapes": bytes.Repeat([]byte("\x01\x02\n"), 1<<18),
	} {
		in := input()
		in.PanicLog = log
		b, encoded, err := Make(in, Full)
		if err != nil || len(encoded) > MaxBundle {
			t.Errorf("%s: %d bytes, %v", name, len(encoded), err)
		}
		if len(log) > 0 && len(b.Cuts) == 0 && len(b.Panic) > 0 && name != "zeros" {
			t.Errorf("%s: nothing said of what was cut", name)
		}
	}
}

func TestPseudonym(t *testing.T) {
	t.Parallel()
	id := "0123456789abcdef0123456789abcdef"
	if p := Pseudonym(id); !isHex(p, 32) || p == id || p != Pseudonym(id+"\n") || p == Pseudonym(id[1:]) {
		t.Errorf("pseudonym %q", p)
	}
	in := input()
	in.MachineID, in.Machine = "", Pseudonym(id)
	if b, _ := make1(t, in, Full); b.Machine != Pseudonym(id) {
		t.Error("a pseudonym that was given is not used")
	}
}

func FuzzDecode(f *testing.F) {
	_, encoded, err := Make(input(), Full)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(encoded)
	f.Add([]byte(`{"format":1,"level":"full"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := Decode(data)
		if err != nil {
			return
		}
		if _, err := b.Encode(); err != nil {
			t.Fatal(err)
		}
		g := NewGroup(&b, time.Unix(1, 0))
		g.SuspectedChange()
	})
}
