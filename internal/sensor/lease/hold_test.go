package lease_test

import (
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/sensor/lease"
)

// noMarks is a Marker that does nothing.
type noMarks struct{}

func (noMarks) Ignore(int) error { return nil }
func (noMarks) Heed(int) error   { return nil }
func (noMarks) HeedAll() error   { return nil }

// TestHoldIsSeen: while a lease is held for which no event waits, whoever watches this process is told so, and hears a
// beat; neither before nor after, nor once the set is closed.
func TestHoldIsSeen(t *testing.T) {
	t.Parallel()
	var held, beats atomic.Int64
	s, err := lease.New(lease.Config{
		Marker: noMarks{}, MaxEvent: 16, MaxKept: 16,
		Held: func(n int) { held.Store(int64(n)) }, Beat: func() { beats.Add(1) },
	})
	if err != nil {
		t.Fatal(err)
	}
	if held.Load() != 0 || beats.Load() != 0 {
		t.Error("something is held")
	}
	s.Hold(true)
	s.Hold(true)
	s.Hold(false)
	if held.Load() != 1 {
		t.Error("nothing is held")
	}
	for end := time.Now().Add(10 * time.Second); beats.Load() < 3; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("no beat")
		}
	}
	s.Hold(false)
	if held.Load() != 0 {
		t.Error("it is still held")
	}
	s.Close()
	s.Hold(true)
	s.Hold(false)
	if held.Load() != 0 {
		t.Error("it is held after the end")
	}
}

// TestKept: what is kept is known, until it is given up: because everything is, or because a writer wants it, however
// often it was kept.
func TestKept(t *testing.T) {
	t.Parallel()
	s, err := lease.New(lease.Config{
		Marker: noMarks{}, MaxEvent: 1 << 10, MaxKept: 16, Held: func(int) {}, Beat: func() {},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	it, other := event.Version{Dev: st.Dev, Ino: st.Ino}, event.Version{Dev: st.Dev, Ino: st.Ino + 1}
	keep := func() {
		t.Helper()
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		era, ok := s.Take(fd)
		if ok && s.Kept(&it) && s.Counters().Kept == 0 {
			t.Error("what is only held is kept")
		}
		if !ok || !s.Keep(fd, &it, era, time.Now()) {
			t.Fatalf("not kept; lease %v", ok)
		}
		if !s.Kept(&it) || s.Kept(&other) {
			t.Errorf("kept: %v, another object %v", s.Kept(&it), s.Kept(&other))
		}
	}
	if s.Kept(&it) {
		t.Error("kept from the beginning")
	}
	keep()
	s.Flush()
	if s.Kept(&it) {
		t.Error("still kept after a flush")
	}
	keep()
	keep()
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil { // waits until the leases are given up
		t.Fatal(err)
	}
	if s.Kept(&it) {
		t.Error("still kept when a writer has it")
	}
}
