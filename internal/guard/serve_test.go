package guard

import (
	"encoding/binary"
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/internal/sensor/fanotify"
	"github.com/keepout-security/keepout/internal/testenv"
)

// TestServingAllocatesNothing: what the guard does while it answers needs no memory, hence no collector, and nothing
// that could itself have to wait. The group has no mark, so nobody waits for it.
func TestServingAllocatesNothing(t *testing.T) {
	testenv.Need(t, testenv.Root, testenv.Fanotify)
	group, err := fanotify.NewPermission()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { group.Stop(); _ = group.Close() })
	g := Guard{group: group}
	const taken = 1000 // a number that no descriptor of the test has
	event := make([]byte, 24)
	binary.NativeEndian.PutUint32(event, 24)
	event[4] = unix.FANOTIFY_METADATA_VERSION
	binary.NativeEndian.PutUint16(event[6:], 24)
	binary.NativeEndian.PutUint64(event[8:], fanotify.OpenPerm)
	binary.NativeEndian.PutUint32(event[16:], taken)
	for name, do := range map[string]func(){
		"sweep": g.sweep,
		"drain": func() {
			if err := g.drain(); err != nil {
				t.Error(err)
			}
		},
		"allow": func() { g.allow(event) },
	} {
		if n := testing.AllocsPerRun(20, do); n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
	if err := group.Answer(taken, true); !errors.Is(err, fanotify.ErrAnswered) || g.gap.Decided != 0 {
		t.Errorf("%v, %d decided, though nobody waits", err, g.gap.Decided)
	}
}
