package boot_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/keepout-security/keepout/internal/boot"
)

func encode(tb testing.TB, s boot.State, sequence uint64) []byte {
	tb.Helper()
	data, err := boot.Encode(&s, sequence)
	if err != nil {
		tb.Fatal(err)
	}
	return data
}

func TestPick(t *testing.T) {
	t.Parallel()
	older, newer := boot.New(), boot.New()
	older.Failures, newer.Failures = 1, 2
	a, b := encode(t, older, 4), encode(t, newer, 5)
	torn := append(bytes.Clone(b[:100]), a[100:]...)
	other := bytes.Replace(a, []byte(`"version":1`), []byte(`"version":9`), 1)
	zero := make([]byte, boot.Size)
	for name, c := range map[string]struct {
		a, b     []byte
		failures int
		write    int
		lost     bool
	}{
		"both good":           {a, b, 2, 0, false},
		"the other way round": {b, a, 2, 1, false},
		"the newer one torn":  {a, torn, 1, 1, false},
		"cut short":           {a[:60], b, 2, 0, false},
		"one missing":         {nil, b, 2, 0, false},
		"both missing":        {nil, nil, 0, 0, false},
		"both empty":          {zero, zero, 0, 0, false},
		"both bad":            {torn, b[:50], 0, 0, true},
		"a newer format":      {other, other, 0, 0, true},
		"one newer format":    {other, b, 2, 0, false},
		"not JSON":            {[]byte("{\n}"), []byte("hello"), 0, 0, true},
	} {
		p := boot.Pick(c.a, c.b)
		if p.State.Failures != c.failures || p.Write != c.write || p.Lost != c.lost {
			t.Errorf("%s: %+v", name, p)
		}
		if err := p.State.Check(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if p := boot.Pick(other, nil); !errors.Is(p.Errs[0], boot.ErrVersion) || !errors.Is(p.Errs[1], boot.ErrEmpty) {
		t.Errorf("%v", p.Errs)
	}
}

// TestALostStateBoots: with nothing to read, the machine boots as configured, whatever happens to what it writes.
func TestALostStateBoots(t *testing.T) {
	t.Parallel()
	for _, data := range [][]byte{nil, []byte("garbage"), make([]byte, boot.Size)} {
		p := boot.Pick(data, data)
		s, out := p.State.Step(now, boot.Input{Kind: boot.Started, Boot: "x", Left: -1, CanRecover: true})
		if s.Mode != boot.Normal || did(out, boot.EnterRecovery) {
			t.Errorf("%q: %v", data, out)
		}
	}
}

// TestEverySingleByteCounts: no change of one byte of what is summed up goes unnoticed.
func TestEverySingleByteCounts(t *testing.T) {
	t.Parallel()
	good := encode(t, boot.New(), 3)
	end := len(bytes.TrimRight(good, " \n"))
	for i := range end {
		bad := bytes.Clone(good)
		bad[i] ^= 1
		if s, sequence, err := boot.Decode(bad); err == nil && (sequence != 3 || !same(s, boot.New())) {
			t.Errorf("byte %d changed: %+v", i, s)
		}
	}
}

func TestCrumb(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 200)
	for _, c := range []boot.Crumb{
		{},
		{Boot: "b", Provider: "acme", Engine: "7.2", Content: "291", Ready: true},
		{Boot: long, Provider: long, Engine: long, Content: long, Ready: true},
	} {
		data, err := boot.EncodeCrumb(c)
		if err != nil || len(data) != boot.CrumbSize {
			t.Fatalf("%d bytes, %v", len(data), err)
		}
		got, err := boot.DecodeCrumb(data)
		if err != nil || !strings.HasPrefix(c.Provider, got.Provider) || got.Ready != c.Ready ||
			(got.Provider == "") != (c.Provider == "") {
			t.Errorf("got %+v, %v", got, err)
		}
		data[50] ^= 1
		if _, err := boot.DecodeCrumb(data); err == nil {
			t.Error("a torn crumb is believed")
		}
	}
}

func TestInstruction(t *testing.T) {
	t.Parallel()
	in := boot.Instruction{Boot: "b", Mode: boot.LastKnownGood, Attempt: 2, Reason: "why", Orders: boot.Orders{
		Disabled: []string{"x"},
	}}
	data, err := in.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := boot.ParseInstruction(data)
	if err != nil || got.Mode != in.Mode || !got.Disables("x") || got.Disables("y") || !got.Pins("y") {
		t.Errorf("%+v %v", got, err)
	}
	safe := boot.Instruction{Mode: boot.Safe}
	if !safe.Disables("anybody") {
		t.Error("safe mode starts a provider")
	}
	for _, bad := range []string{
		"", "{}", `{"version":2,"mode":"normal"}`, `{"version":1,"mode":"menu"}`,
		`{"version":1,"mode":"normal","attempt":-1}`, strings.Repeat(" ", boot.MaxInstruction+1),
	} {
		if _, err := boot.ParseInstruction([]byte(bad)); err == nil {
			t.Errorf("%.40q is accepted", bad)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(encode(f, boot.New(), 1))
	f.Add([]byte(`{"version":1,"sequence":1,"length":2,"crc32c":"00000000"}` + "\n{}"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		p := boot.Pick(data, nil)
		s, _ := p.State.Step(now, boot.Input{Kind: boot.Started, Boot: "x", Left: -1})
		if _, err := boot.Encode(&s, p.Sequence+1); err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		_, _ = boot.DecodeCrumb(data)
	})
}

func FuzzParseInstruction(f *testing.F) {
	f.Add([]byte(`{"version":1,"mode":"safe","orders":{"disabled":["x"]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		in, err := boot.ParseInstruction(data)
		if err != nil {
			return
		}
		again, err := in.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := boot.ParseInstruction(again); err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
	})
}
