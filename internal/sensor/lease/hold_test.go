package lease_test

import (
	"sync/atomic"
	"testing"
	"time"

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
