package testenv

import (
	"testing"
	"time"
)

// Watchdog runs free and fails the test when the test lasts longer than d. A test that holds a permission
// group passes a free that closes the group: the kernel then releases every process that waits for a
// verdict, so the host never hangs on a wrong test. free runs at most once, on another goroutine, never
// after the test's cleanup; it may run while the test's own cleanup closes the same thing.
func Watchdog(t testing.TB, d time.Duration, free func()) {
	t.Helper()
	done := make(chan struct{})
	timer := time.AfterFunc(d, func() {
		defer close(done)
		// Free first: writing the failure could itself wait for a verdict.
		free()
		t.Errorf("the test still runs after %v; the watchdog freed what waits", d)
	})
	t.Cleanup(func() {
		if !timer.Stop() {
			<-done
		}
	})
}
