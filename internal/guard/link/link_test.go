package link

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestPulseIsShared(t *testing.T) {
	t.Parallel()
	guard, page, err := NewPulse()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = page.Close() })
	core, err := mapPulse(int(page.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	core.Taken.Add(3)
	core.Answered.Add(2)
	core.Beat.Add(1)
	core.Limit.Store(int64(time.Minute))
	if guard.Taken.Load() != 3 || guard.Answered.Load() != 2 || guard.Beat.Load() != 1 || guard.Limit.Load() != 60e9 {
		t.Error("the guard does not see what the core writes")
	}
	guard.Reset()
	if core.Taken.Load()+core.Answered.Load()+core.Beat.Load() != 0 || core.Limit.Load() != int64(firstLimit) {
		t.Error("reset leaves something")
	}
	file, err := os.Create(filepath.Join(t.TempDir(), "other"))
	if err != nil {
		t.Fatal(err)
	}
	_ = file.Close()
	if _, err := mapPulse(int(file.Fd())); err == nil {
		t.Error("a closed file was mapped")
	}
}

// TestTakeOver: the gap that the guard reports is what the core hears.
func TestTakeOver(t *testing.T) {
	t.Parallel()
	guard, core, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(guard) })
	l := &Link{sock: core}
	want := Gap{Cause: Killed, Detail: 9, Length: 1234 * time.Millisecond, Decided: 1 << 40, Cores: 7}
	heard := make(chan byte, 1)
	go func() {
		fds := []unix.PollFd{{Fd: int32(guard), Events: unix.POLLIN}}
		_, _ = unix.Poll(fds, 10_000)
		heard <- Hear(guard)
		if err := Report(guard, want); err != nil {
			t.Error(err)
		}
	}()
	got, err := l.TakeOver()
	if b := <-heard; err != nil || got != want || b != TakeOver {
		t.Errorf("%+v, %v, heard %q", got, err, b)
	}
	if b := Hear(guard); b != 0 {
		t.Errorf("heard %q from a silent core", b)
	}
	l.Leave()
	if b := Hear(guard); b != Leave {
		t.Errorf("heard %q", b)
	}
	_ = unix.Close(core)
	if err := Report(guard, want); err == nil {
		t.Error("a core that is gone was told")
	}
}

// TestTook: the first event that a core takes while the guard sleeps wakes it, whoever of the two was faster.
func TestTook(t *testing.T) {
	t.Parallel()
	guard, core, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(guard) })
	l := &Link{sock: core, Pulse: new(Pulse)}
	l.Took()
	if b := Hear(guard); b != 0 {
		t.Errorf("heard %q while it was awake", b)
	}
	l.Pulse.Asleep.Store(true)
	l.Took()
	l.Took()
	if a, b := Hear(guard), Hear(guard); a != Woken || b != 0 {
		t.Errorf("heard %q and %q", a, b)
	}
	_ = unix.Close(core)
	if b := Hear(guard); b != Closed {
		t.Errorf("heard %q of a core that is gone", b)
	}
}

// TestHold: a lease that a core takes while the guard sleeps, or is about to, keeps it awake as an event does.
func TestHold(t *testing.T) {
	t.Parallel()
	guard, core, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = unix.Close(guard), unix.Close(core) })
	l := &Link{sock: core, Pulse: new(Pulse)}
	l.Hold(true)
	if l.Pulse.Sleep() {
		t.Error("the guard may sleep while a lease is held")
	}
	l.Hold(false)
	for Hear(guard) != 0 { // whatever was said of that
	}
	if !l.Pulse.Sleep() {
		t.Error("the guard may not sleep though nothing is held")
	}
	l.Hold(false)
	if b := Hear(guard); b != 0 {
		t.Errorf("heard %q when nothing was held", b)
	}
	l.Hold(true)
	if b := Hear(guard); b != Woken || !l.Pulse.Held.Load() {
		t.Errorf("heard %q, held %v", b, l.Pulse.Held.Load())
	}
	l.Pulse.Taken.Add(1)
	l.Hold(false)
	if l.Pulse.Sleep() {
		t.Error("the guard may sleep while an event is not answered")
	}
}

func TestGapInWords(t *testing.T) {
	t.Parallel()
	for want, g := range map[string]Gap{
		"the core was ended by signal 9 (SIGKILL); for 1.5s the guard answered, 3 events were allowed without asking an " +
			"engine": {
			Cause: Killed, Detail: 9, Length: 1500 * time.Millisecond, Decided: 3,
		},
		"the core ended with exit code 2; for 0s the guard answered, 0 events were allowed without asking an engine": {
			Cause: Exited, Detail: 2,
		},
	} {
		if got := g.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func FuzzGap(f *testing.F) {
	var b [gapSize]byte
	Gap{Cause: Stalled, Length: time.Hour, Decided: 1, Cores: 2}.encode(&b)
	f.Add(b[:])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, in []byte) {
		g, err := decodeGap(in)
		if err != nil {
			if !errors.Is(err, ErrGap) {
				t.Error(err)
			}
			return
		}
		var out [gapSize]byte
		g.encode(&out)
		if again, err := decodeGap(out[:]); err != nil || again != g {
			t.Errorf("%+v became %+v, %v", g, again, err)
		}
		_ = g.String()
	})
}
