package sensor

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/internal/testenv"
)

// TestBurst: a thread is real-time for many answers only, and what it was before after that.
func TestBurst(t *testing.T) {
	testenv.Need(t, testenv.Root)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before := policy(t)
	if before.Policy != unix.SCHED_NORMAL {
		t.Fatalf("the test runs with policy %d, want an ordinary one", before.Policy)
	}
	for n, want := range map[int]uint32{0: unix.SCHED_NORMAL, 1: unix.SCHED_NORMAL, 1000: unix.SCHED_FIFO} {
		end := Burst(n)
		during := policy(t)
		end()
		if during.Policy != want {
			t.Errorf("policy %d for %d answers, want %d", during.Policy, n, want)
		}
		if after := policy(t); *after != *before {
			t.Errorf("after %d answers %+v, before %+v", n, after, before)
		}
	}
}

// TestBurstOfOneIsFree: the common case neither allocates nor asks the kernel.
func TestBurstOfOneIsFree(t *testing.T) {
	if n := testing.AllocsPerRun(100, func() { Burst(1)() }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func policy(t *testing.T) *unix.SchedAttr {
	t.Helper()
	a, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	return a
}
