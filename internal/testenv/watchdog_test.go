package testenv

import (
	"testing"
	"time"
)

func TestWatchdogFreesATestThatHangs(t *testing.T) {
	t.Parallel()
	freed := make(chan struct{})
	r := record(func(tb testing.TB) {
		Watchdog(tb, time.Millisecond, func() { close(freed) })
		<-freed // what a test that waits for the kernel does
	})
	for _, cleanup := range r.cleanups {
		cleanup()
	}
	if r.failures() != 1 {
		t.Errorf("%d failures, want 1: a freed test must not pass", r.failures())
	}
}

func TestWatchdogLeavesAPromptTestAlone(t *testing.T) {
	t.Parallel()
	freed := make(chan struct{})
	r := record(func(tb testing.TB) { Watchdog(tb, time.Hour, func() { close(freed) }) })
	for _, cleanup := range r.cleanups {
		cleanup()
	}
	select {
	case <-freed:
		t.Error("freed a test that was over")
	default:
	}
	if r.failures() != 0 {
		t.Error("failed a test that was over")
	}
}
