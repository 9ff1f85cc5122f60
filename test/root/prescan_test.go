package root

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/test/testhost"
)

// TestPrescan: what a writer has closed is shown to the providers before anybody opens it, so that the first open and
// the first exec are answered from memory; what they would deny is denied all the same.
func TestPrescan(t *testing.T) {
	need(t)
	h, watched, spare := staleHost(t, ext4(t))
	seen := func(n uint64) {
		until(t, "it was shown to the provider", func() bool { return h.Status().Verdicts.Prescanned >= n })
	}
	plain := write(t, filepath.Join(watched, "plain"), staleGood, 0o644)
	program := write(t, filepath.Join(watched, "program"), staleGood, 0o755)
	seen(2)
	before := h.Status()
	must(t, open(plain))
	if err := execute(t, program); !errors.Is(err, unix.ENOEXEC) {
		t.Errorf("got %v, want that the kernel finds no program", err)
	}
	after := h.Status()
	if got := after.Providers[0].Counters.Delivered - before.Providers[0].Counters.Delivered; got != 0 {
		t.Errorf("the provider was asked %d times about what it had seen", got)
	}
	if got := after.Verdicts.Remembered - before.Verdicts.Remembered; got < 2 {
		t.Errorf("%d answers from memory, want 2", got)
	}
	must(t, rewrite(plain, unix.O_WRONLY, staleBad))
	seen(3)
	denied(t, open(plain))
	// Elsewhere nothing is shown to anybody.
	write(t, filepath.Join(spare, "f"), staleGood, 0o644)
	before = h.Status()
	write(t, filepath.Join(watched, "last"), staleGood, 0o644)
	seen(4)
	if got := h.Status().Verdicts.Prescanned; got != 4 {
		t.Errorf("%d files were shown, want 4; before the last %d", got, before.Verdicts.Prescanned)
	}
}

// TestPrescanSwitchedOff: an administrator can do without.
func TestPrescanSwitchedOff(t *testing.T) {
	need(t)
	watched := ext4(t)
	h := testhost.Start(t, testhost.Options{
		Watch: watched, Extra: "prescan: false", Providers: []testhost.Provider{hashlist(t, staleBad)},
	})
	path := write(t, filepath.Join(watched, "f"), staleGood, 0o644)
	time.Sleep(10 * settle)
	must(t, open(path))
	if s := h.Status(); s.Verdicts.Prescanned != 0 || s.Sensor.Offered != 0 {
		t.Errorf("%+v %+v", s.Verdicts, s.Sensor)
	}
}
