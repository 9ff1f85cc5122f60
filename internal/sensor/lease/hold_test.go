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

// noMarks is a Marker that does nothing but count.
type noMarks struct{ heeded atomic.Int64 }

func (*noMarks) Ignore(int) error { return nil }
func (m *noMarks) Heed(int) error { m.heeded.Add(1); return nil }
func (*noMarks) HeedAll() error   { return nil }

// TestHoldIsSeen: while a lease is held for which no event waits, whoever watches this process is told so, and hears a
// beat; neither before nor after, nor once the set is closed.
func TestHoldIsSeen(t *testing.T) {
	t.Parallel()
	var held, beats atomic.Int64
	s, err := lease.New(lease.Config{
		Marker: &noMarks{}, MaxEvent: 16, MaxKept: 16,
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
		Marker: &noMarks{}, MaxEvent: 1 << 10, MaxKept: 16, Held: func(int) {}, Beat: func() {},
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

// TestExpires: what was kept long enough is let go, however much it is, and nothing else.
func TestExpires(t *testing.T) {
	t.Parallel()
	s, marks := keeping(t)
	now := time.Now()
	for range many {
		keep(t, s, newFile(t), now.Add(-lease.KeptFor))
	}
	young := keep(t, s, newFile(t), now.Add(time.Hour))
	awaitKept(t, s, 1)
	if !s.Kept(&young) || marks.heeded.Load() != many {
		t.Errorf("what is young is kept: %v; %d marks taken away, want %d", s.Kept(&young), marks.heeded.Load(), many)
	}
}

// TestFlush: at once nothing is kept that was, then all of it is let go, and what is kept afterwards is kept, with its
// mark, though it was kept before.
func TestFlush(t *testing.T) {
	t.Parallel()
	s, marks := keeping(t)
	again := newFile(t)
	old := keep(t, s, again, time.Now())
	for range many - 1 {
		keep(t, s, newFile(t), time.Now())
	}
	s.Flush()
	if s.Kept(&old) {
		t.Error("still kept after a flush")
	}
	keep(t, s, again, time.Now())
	awaitKept(t, s, 1)
	if !s.Kept(&old) || marks.heeded.Load() != 0 {
		t.Errorf("what was kept again is kept: %v; %d marks taken away", s.Kept(&old), marks.heeded.Load())
	}
}

// many are more than are let go in one turn.
const many = 200

func keeping(t *testing.T) (*lease.Set, *noMarks) {
	t.Helper()
	marks := &noMarks{}
	s, err := lease.New(lease.Config{
		Marker: marks, MaxEvent: 1 << 10, MaxKept: many + 1, Held: func(int) {}, Beat: func() {},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s, marks
}

func newFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// keep has a file kept.
func keep(t *testing.T, s *lease.Set, path string, since time.Time) event.Version {
	t.Helper()
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		t.Fatal(err)
	}
	v := event.Version{Dev: st.Dev, Ino: st.Ino}
	if era, ok := s.Take(fd); !ok || !s.Keep(fd, &v, era, since) {
		t.Fatalf("not kept; lease %v", ok)
	}
	return v
}

// awaitKept waits until so many objects are kept.
func awaitKept(t *testing.T, s *lease.Set, want int) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); s.Counters().Kept != want; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d objects are kept, want %d", s.Counters().Kept, want)
		}
	}
}
