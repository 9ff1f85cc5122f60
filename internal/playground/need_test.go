package playground

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/internal/health"
)

func TestWhatIsMissing(t *testing.T) {
	t.Parallel()
	wrap := func(errno error) error { return fmt.Errorf("fanotify_init: %w", errno) }
	for _, c := range []struct {
		name string
		err  error
		want []string
	}{
		{"no root", needsRoot("/opt/bin/keepout", "demo"), []string{"KO-1102", "root", "sudo /opt/bin/keepout demo"}},
		{"container", noGroup(wrap(unix.EPERM)), []string{"KO-1102", "CAP_SYS_ADMIN", "docker run --privileged"}},
		{"no fanotify", noGroup(wrap(unix.ENOSYS)), []string{"KO-1102", "CONFIG_FANOTIFY_ACCESS_PERMISSIONS=y"}},
		{"old", noGroup(wrap(unix.EINVAL)), []string{"KO-1102", "5.15"}},
		{"other", noGroup(wrap(unix.EMFILE)), []string{"KO-1102", "too many open files"}},
		{"no permission events", noMark(wrap(unix.EINVAL)), []string{
			"KO-1102", "CONFIG_FANOTIFY_ACCESS_PERMISSIONS=y", "zgrep FANOTIFY /proc/config.gz",
		}},
	} {
		var p health.Problem
		if !errors.As(c.err, &p) {
			t.Errorf("%s: %v is no problem as data", c.name, c.err)
		}
		for _, want := range c.want {
			if !strings.Contains(c.err.Error(), want) {
				t.Errorf("%s: no %q in %q", c.name, want, c.err)
			}
		}
	}
}
